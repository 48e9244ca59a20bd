"""The commands as typed: help, versions, mistakes and their exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.launched import LAUNCHER, ROOT, environment
from tests.fake_hub import FakeHub, Repo
from tgi.hub.prepare import demo_directory

SERVER = ("-c", "import sys; from tgi.commands.cli import server_main; sys.exit(server_main())")
TGI = ("-m", "tgi")


def run(program: tuple[str, ...], *arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=home,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [
        (TGI, ("--help",), "Commands:"),
        (TGI, (), "Commands:"),
        (TGI, ("serve", "--help"), "[default: 8080]"),
        (TGI, ("plan", "--help"), "Show where the memory would go"),
        (TGI, ("inspect", "--help"), "Usage: tgi inspect MODEL [OPTIONS]"),
        (LAUNCHER, ("--help",), "[default: 3000]"),
        (SERVER, ("--help",), "download-weights"),
        (SERVER, ("download-weights", "-h"), "Usage: text-generation-server download-weights MODEL_ID"),
        (TGI, ("download-weights", "--help"), "Usage: tgi download-weights MODEL_ID"),
        (TGI, ("--version",), "tgi 0."),
        (LAUNCHER, ("--version",), "text-generation-launcher 0."),
    ],
)
def test_help_and_version(program: tuple[str, ...], arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    result = run(program, *arguments, home=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert says in result.stdout


def test_help_into_a_reader_that_leaves(tmp_path: Path) -> None:
    code = "import subprocess, sys; from tgi.commands.cli import launcher_main; sys.exit(launcher_main(['--help']))"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert (child.wait(60), child.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("program", "arguments", "status", "says"),
    [
        (LAUNCHER, ("--modle-id", "x"), 2, "tip: a similar argument exists: '--model-id'"),
        (TGI, ("serv",), 2, "unrecognized command 'serv'"),
        (TGI, ("serve", "--port", "x"), 2, "invalid value 'x' for '--port'"),
        (
            LAUNCHER,
            ("--max-input-tokens", "2", "--max-total-tokens", "2"),
            1,
            'Error: ArgumentValidation("`max_input_tokens`(2) must be < `max_total_tokens`(2)")',
        ),
        (LAUNCHER, ("--sharded", "true"), 1, 'Error: NotEnoughCUDADevices("`sharded` is true but only found'),
        (TGI, ("serve", "--quantize", "awq"), 1, "error: --quantize awq: the checkpoint is not quantised"),
        (LAUNCHER, ("--model-id", "./nothing"), 1, 'Error: DownloadError("there is no directory ./nothing")'),
        (TGI, ("serve", "--model-id", "./nothing"), 1, "error: there is no directory ./nothing"),
        (
            TGI,
            ("quantize", "m", "o", "--gguf", "Q8_0", "--bits", "4"),
            1,
            "--bits has no effect with --gguf Q8_0: leave",
        ),
        (TGI, ("quantize", "m", "o", "--method", "int4", "--sym"), 1, "--sym has no effect with --method int4: leave"),
        (SERVER, ("quantize", "org/m"), 2, "MODEL_ID and OUTPUT_DIR are needed, 1 are given"),
        (
            SERVER,
            ("quantize", "org/m", "out", "--upload-to-model-id", "x"),
            1,
            'Error: ArgumentValidation("--upload-to',
        ),
        (TGI, ("plan", "--model-id", "./nothing"), 1, "error: there is no directory ./nothing"),
    ],
)
def test_mistakes(program: tuple[str, ...], arguments: tuple[str, ...], status: int, says: str, tmp_path: Path) -> None:
    result = run(program, *arguments, home=tmp_path)
    assert result.returncode == status
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    reason = says.split(": ", 1)[-1].split('("')[-1].rstrip('")')
    assert (result.stdout + result.stderr).count(reason) == 1, "why is said once"


def test_quantize(tmp_path: Path) -> None:
    """The words of TGI's command; its output is a model."""
    source, target = str(demo_directory()), tmp_path / "coded"
    arguments = ("quantize", source, str(target), "--method=int8", "--no-trust-remote-code", "--logger-level", "INFO")
    result = run(SERVER, *arguments, home=tmp_path)
    assert (result.returncode, result.stderr.count("Error")) == (0, 0)
    assert f"tgi serve --model-id {target}" in result.stdout and "matrices at 8." in result.stdout
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in target.iterdir()}
    plan = run(TGI, "plan", "--model-id", str(target), home=tmp_path)
    assert (plan.returncode, plan.stderr) == (0, "")
    again = run(TGI, "quantize", str(target), str(tmp_path / "again"), "--method", "int4", home=tmp_path)
    assert again.returncode == 1 and "the checkpoint is quantised as int8" in again.stderr


def test_download_weights(tiny_model: Path, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    with FakeHub() as hub:
        hub.repos["org/name"] = Repo(files)
        arguments = ("download-weights", "org/name", "--revision", "main", "--no-trust-remote-code", "--auto-convert")
        arguments += ("--extension", ".safetensors", "--logger-level=INFO", "--merge-lora")
        result = run(SERVER, *arguments, home=tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
        assert (result.returncode, result.stderr) == (0, "")
        assert "Successfully downloaded weights for org/name" in result.stdout
        assert list((tmp_path / "hf/hub").glob("models--org--name/snapshots/*/model.safetensors"))
        config = json.loads(files["config.json"]) | {
            "model_type": "llama",
            "quantization_config": {"quant_method": "aqlm"},
        }
        hub.repos["org/other"] = Repo({**files, "config.json": json.dumps(config).encode()})
        refused = run(TGI, "download-weights", "org/other", home=tmp_path, HF_ENDPOINT=hub.url)
        assert refused.returncode == 1 and "quantised as aqlm" in refused.stderr
        assert not [path for _, path, _ in hub.requests if "org/other" in path and path.endswith(".safetensors")]
        missing = run(TGI, "download-weights", "org/none", home=tmp_path, HF_ENDPOINT=hub.url)
        assert missing.returncode == 1
        assert missing.stderr.strip().count("\n") == 0
        assert "org/none is neither" not in missing.stdout and "download" not in missing.stderr


def test_plan_of_a_local_model(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ("plan", "--model-id", str(tiny_model), "--memory", "2GiB", "--device", "cpu")
    table = run(TGI, *arguments, home=tmp_path)
    assert (table.returncode, table.stderr) == (0, "")
    for word in ("weights", "KV cache", "available", "2.00 GiB", "requests of full length", "--max-total-tokens 2048"):
        assert word in table.stdout
    plan = json.loads(run(TGI, *arguments, "--json", home=tmp_path).stdout)
    assert plan["max_total_tokens"] == 2048
    assert plan["memory"]["available_bytes"] == 2 << 30
    assert sum(row["bytes"] for row in plan["memory"]["rows"]) == 2 << 30


def test_plan_knows_the_engines_block_size() -> None:
    pytest.importorskip("torch")
    from tgi.kernels.types import DEFAULT_BLOCK_SIZE
    from tgi.memory import estimate

    assert estimate.DEFAULT_BLOCK_SIZE == DEFAULT_BLOCK_SIZE


@pytest.mark.parametrize("arguments", [(), ("--dev",)])
def test_make_installs_what_every_flag_needs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    planned = run((str(ROOT / "tools" / "install.py"),), "--dry-run", *arguments, home=tmp_path)
    assert "otlp]" in planned.stdout


def test_installed_commands_are_these() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {
        "tgi": "tgi.commands.entry:main",
        "text-generation-launcher": "tgi.commands.entry:launcher_main",
        "text-generation-server": "tgi.commands.entry:server_main",
        "text-generation-benchmark": "tgi.commands.entry:benchmark_main",
    }
