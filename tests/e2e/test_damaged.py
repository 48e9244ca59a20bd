"""Damaged and contradictory checkpoints as a user meets them: an exit status and one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.test_cli import TGI, run
from tests.models.checkpoints import make_checkpoint
from tests.models.test_gguf import write
from tests.quant import writers
from tests.quant.test_formats import quantised


def gptq(path: Path) -> Path:
    return quantised(path, writers.gptq(4, 32)) / "coded"


def without_scales(path: Path) -> Path:
    file = gptq(path) / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("down_proj.scales")}, file)
    return file.parent


def of_another_group(path: Path) -> Path:
    file = gptq(path) / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"]["group_size"] = 64
    file.write_text(json.dumps(config))
    return file.parent


def cut_gguf(path: Path) -> Path:
    make_checkpoint(path / "source", "llama", hidden_size=64, intermediate_size=128)
    file = write(path / "source", path / "model.gguf", "llama", "Q4_0")
    file.write_bytes(file.read_bytes()[:-1000])
    return file


def cut_safetensors(path: Path) -> Path:
    file = gptq(path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return file.parent


CASES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], str]] = {
    "no scales": (without_scales, (), "scales"),
    "another group size": (of_another_group, (), "group"),
    "a flag that contradicts": (gptq, ("--quantize", "awq"), "gptq"),
    "a truncated GGUF file": (cut_gguf, (), "truncated"),
    "a truncated file": (cut_safetensors, (), "model.safetensors"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_checkpoint_ends_the_start_with_a_sentence(name: str, tmp_path: Path) -> None:
    make, flags, words = CASES[name]
    model = make(tmp_path / "model")
    flags = ("--model-id", str(model), "--port", "0", "--kv-cache-memory", "16MiB", *flags)
    result = run(TGI, "serve", *flags, home=tmp_path)
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "Traceback" not in said
    sentences = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and words in sentences[0], said
