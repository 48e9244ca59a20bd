"""`tgi inspect`: what it says of models of every kind, whole and damaged, here and on the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from tests.fake_hub import FakeHub, Repo
from tests.models import seq2seq, tiny
from tests.models.checkpoints import make_checkpoint
from tests.models.test_gguf import TINY
from tests.models.test_gguf import write as write_gguf
from tests.models.tiny import write_tiny
from tests.quant.test_formats import quantised
from tests.quant.writers import WRITERS
from tgi.commands.cli import main
from tgi.commands.inspect.findings import Inspection
from tgi.commands.inspect.gather import inspect
from tgi.commands.inspect.program import kinds, parts, sections
from tgi.commands.inspect.report import numbers, render
from tgi.errors import StartupError
from tgi.hardware import Hardware
from tgi.hub import remote_gguf
from tgi.hub.prepare import prepare_plan
from tgi.models.build.decoder import build
from tgi.models.families.registry import spec_from_config
from tgi.models.spec import ModelSpec
from tgi.settings.parse import parse

CPU = Hardware(cpu_count=2, available_memory=2 << 30, cpu_name="x")
CASES = [*tiny.CASES, *seq2seq.CASES]


def found(model: str | Path, *flags: str, **variables: str) -> Inspection:
    return inspect(parse(["--model-id", str(model), *flags], {}), variables, CPU)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), sharded=True)


@pytest.fixture(scope="module")
def files(checkpoint: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in checkpoint.iterdir()}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def spec_of(name: str) -> ModelSpec:
    table = tiny.CASES if name in tiny.CASES else seq2seq.CASES
    model_type, values = table[name]
    if name in tiny.CASES:
        config = tiny.tiny_config(name).to_dict()
    else:
        import transformers

        config = transformers.AutoConfig.for_model(model_type, **{"vocab_size": seq2seq.VOCAB, **values}).to_dict()
    return spec_from_config(json.loads(json.dumps(config)) | {"architectures": []}, warn=False)


@pytest.mark.parametrize("name", CASES)
def test_every_operation_is_shown_once_and_every_parameter_counted(name: str) -> None:
    """The layers that are alike stand for each other, and the parts add up to the model."""
    spec = spec_of(name)
    program = build(spec)
    sides: list[tuple[Any, Any]] = [(program.ops, kinds(spec, program))]
    if program.encoder is not None:
        sides.append((program.encoder.ops, kinds(spec, program, encoder=True)))
    for ops, shown in sides:
        *written, after = sections(spec, program, encoder=ops is not program.ops)
        assert [op for section in (*written, after) for op in section] == list(ops)
        assert not any(number in str(op) for op in after for number in (".0.", ".1.")) or program.encoder is not None
        layers = sorted(number for kind in shown for number in kind.layers)
        assert layers == list(range(len(spec.layers if ops is program.ops else spec.encoder.layers)))  # type: ignore[union-attr]
        count = sum(len(kind.operations) * max(1, len(kind.layers)) for kind in shown)
        assert count == len(ops) + (ops is program.ops)  # and the logits
        formulas = [line.partition("    ")[0] for kind in shown for line in kind.operations]
        assert not {type(op).__name__ for op in ops} & set(formulas), "every operation has a formula"
    counted = parts(spec, program)
    assert sum(part.parameters for part in counted) == program.parameters
    unnamed = sum(part.parameters for part in counted if part.name.removeprefix("encoder ") == "other")
    assert unnamed < 0.01 * program.parameters


def test_of_a_model_like_all_others(checkpoint: Path) -> None:
    report = found(checkpoint)
    assert (report.route, report.model_type, report.title, report.problems) == ("native", "llama", "Llama", [])
    assert report.files is not None and report.files.format == "safetensors" and len(report.files.names) == 3
    assert report.files.types == {"F32": report.tensors.stored if report.tensors else 0}
    assert report.bits_per_weight == 32
    assert report.tensors is not None and report.tensors.stored == report.tensors.needed == report.tensors.found
    assert report.tensors.missing == report.tensors.unused == report.tensors.misshapen == []
    config = json.loads((checkpoint / "config.json").read_text())
    width = config["hidden_size"] // config["num_attention_heads"]
    assert report.cache is not None
    assert report.cache.bytes_per_token == 2 * 4 * width * config["num_key_value_heads"] * config["num_hidden_layers"]
    assert report.context == config["max_position_embeddings"]
    layers = [kind for kind in report.program if kind.name == "layer"]
    assert [kind.layers for kind in layers] == [list(range(config["num_hidden_layers"]))]
    text = render(report)
    assert "model.layers.{}.self_attn.q_proj, k_proj, v_proj" in text
    assert "It can be served here." in text
    assert max(map(len, text.splitlines())) <= 110
    assert all(len(line) <= 80 for line in render(report, width=40).splitlines())


def test_flags_change_what_is_said_of_memory(checkpoint: Path) -> None:
    plain, rounded = found(checkpoint), found(checkpoint, "--quantize", "int8", "--kv-cache-dtype", "int8")
    assert plain.weight_bytes and rounded.weight_bytes and rounded.weight_bytes < plain.weight_bytes / 2
    assert plain.cache and rounded.cache and rounded.cache.bytes_per_token < plain.cache.bytes_per_token / 2
    assert (rounded.cache.dtype, rounded.bits_per_weight) == ("int8", 32)
    assert "the weights do not fit" in found(checkpoint, "--memory", "100KiB").problems[0]


LAYERS = {"gemma3": 2, "lfm2": 2, "qwen3_next": 2, "cohere2": 2, "granitemoehybrid": 2, "qwen2_moe": 1, "t5": 1}


@pytest.mark.parametrize("name", LAYERS)
def test_kinds_of_layers(name: str) -> None:
    spec = spec_of(name)
    layers = [kind for kind in kinds(spec, build(spec)) if kind.layers]
    assert len(layers) >= LAYERS[name]
    states = build(spec).states
    assert bool(states) == any("state" in line or "convolution" in line for kind in layers for line in kind.operations)


DAMAGED: dict[str, tuple[str, Any, str, str]] = {
    "a shard is cut short": ("model-00002-of-00003.safetensors", lambda data: data[:-100], "is truncated", "native"),
    "a shard is missing": ("model-00002-of-00003.safetensors", None, "weight files are missing", "native"),
    "layers are missing": (
        "config.json", lambda data: data.replace(b'"num_hidden_layers": 3', b'"num_hidden_layers": 5'), "missing",
        "native",
    ),
    "layers are left over": (
        "config.json", lambda data: data.replace(b'"num_hidden_layers": 3', b'"num_hidden_layers": 2'), "does not use",
        "native",
    ),
    "no tokenizer": ("tokenizer.json", None, "has no tokenizer", "native"),
    "another family": (
        "config.json", lambda data: data.replace(b'"llama"', b'"no-such-thing"'), "no-such-thing", "refused",
    ),
    "a key that changes the model": (
        "config.json", lambda data: data.replace(b"{", b'{"clip_qkv": 3.0, ', 1), "`clip_qkv`", "refused",
    ),
    "quantised in a way that nobody reads": (
        "config.json", lambda data: data.replace(b"{", b'{"quantization_config": {"quant_method": "aqlm"}, ', 1),
        "quantised as aqlm", "native",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_wrong_is_said_and_the_rest_is_told(
    files: dict[str, bytes], tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change, says, route = DAMAGED[case]
    for file, data in files.items():
        if file != name or change is not None:
            (tmp_path / file).write_bytes(change(data) if file == name else data)
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    report = msgspec.json.decode(capsys.readouterr().out, type=Inspection)
    assert any(says in sentence for sentence in report.problems)
    assert report.route == route
    assert (report.parameters is not None) == (route == "native")
    text = " ".join(render(report).split())
    assert "It cannot be served here" in text and says in text


def test_names_that_are_missing_and_unused(files: dict[str, bytes], tmp_path: Path) -> None:
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    config = json.loads(files["config.json"])
    layers = config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers + 1}))
    tensors = found(tmp_path).tensors
    assert tensors is not None and tensors.missing_count == len(tensors.missing) == 9
    assert all(f".layers.{layers}." in name for name in tensors.missing)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers - 1, "vocab_size": 500}))
    tensors = found(tmp_path).tensors
    assert tensors is not None and all(f".layers.{layers - 1}." in name for name in tensors.unused)
    assert "embed_tokens" in tensors.misshapen[0]


def test_a_model_on_the_hub(hub: FakeHub, files: dict[str, bytes], checkpoint: Path, tmp_path: Path) -> None:
    hub.repos["org/name"] = Repo(files)
    report = found("org/name", "--huggingface-hub-cache", str(tmp_path), HF_ENDPOINT=hub.url)
    local = found(checkpoint)
    same = ("route", "parts", "program", "tensors", "cache", "bits_per_weight", "parameters", "problems", "files")
    assert {name: getattr(report, name) for name in same} == {name: getattr(local, name) for name in same}
    assert report.chat_template is None
    whole = [path for method, path, header in hub.requests if method == "GET" and "safetensors" in path and not header]
    assert [path for path in whole if not path.endswith(".index.json")] == []
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_model_on_the_hub_without_part_of_its_tensors(hub: FakeHub, files: dict[str, bytes], tmp_path: Path) -> None:
    config = json.loads(files["config.json"])
    changed = json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}).encode()
    hub.repos["org/name"] = Repo({**files, "config.json": changed})
    report = found("org/name", "--huggingface-hub-cache", str(tmp_path), HF_ENDPOINT=hub.url)
    assert report.tensors is not None and report.tensors.missing_count == 9
    assert "missing from the checkpoint" in report.problems[0]


@pytest.mark.parametrize("name", ["gptq 4 bits", "awq", "nf4", "fp8 channel", "ct packed 4", "hqq 4 bits"])
def test_quantised_checkpoints(tmp_path: Path, name: str) -> None:
    path = quantised(tmp_path, WRITERS[name]) / "coded"
    (path / "tokenizer.json").write_text("{}")
    report = found(path)
    assert (report.route, report.problems) == ("native", [])
    assert report.quantisation is not None and "plain" not in report.quantisation
    assert report.tensors is not None and report.tensors.missing == report.tensors.unused == []
    assert report.tensors.found == report.tensors.needed < report.tensors.stored
    assert report.bits_per_weight is not None and 4 <= report.bits_per_weight < 30
    tensors = load_file(path / "model.safetensors")
    gone = "model.layers.1.mlp.down_proj"
    save_file({key: value for key, value in tensors.items() if not key.startswith(gone)}, path / "model.safetensors")
    report = found(path)
    assert report.tensors is not None and report.tensors.missing == [f"{gone}.weight"]
    assert f"missing from the checkpoint: {gone}.weight" in report.problems[0]


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "Q8_0"), ("qwen3moe", "F32")])
def test_gguf_files(tmp_path: Path, architecture: str, kind: str) -> None:
    if architecture == "llama":
        make_checkpoint(tmp_path / "hf", "llama", hidden_size=64, intermediate_size=128)
    else:
        write_tiny(tmp_path / "hf", TINY[architecture])
    file = write_gguf(tmp_path / "hf", tmp_path / f"model.{kind}.gguf", architecture, kind)
    flags = ("--huggingface-hub-cache", str(tmp_path / "cache"))
    report = found(file, *flags)
    assert (report.route, report.problems) == ("native", [])
    assert report.files is not None and (report.files.format, report.files.names) == ("gguf", [file.name])
    assert report.quantisation == (None if kind == "F32" else kind)
    assert report.tensors is not None and report.tensors.missing == report.tensors.unused == []
    assert (report.bits_per_weight == 32) == (kind == "F32")
    plan = prepare_plan(parse(["--model-id", str(file), *flags], {}), {}, CPU)
    assert Path(plan.model_path).parent.name == "tgi-gguf"


def test_a_gguf_file_on_the_hub(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning is read, and more of it only where the header is longer."""
    monkeypatch.setattr(remote_gguf, "FIRST_BYTES", 1 << 10)
    make_checkpoint(tmp_path / "hf", "llama", hidden_size=64, intermediate_size=128)
    file = write_gguf(tmp_path / "hf", tmp_path / "model.Q8_0.gguf", "llama", "Q8_0")
    hub.repos["org/name-GGUF"] = Repo({file.name: file.read_bytes(), "README.md": b""})
    flags = ("--huggingface-hub-cache", str(tmp_path / "cache"))
    report, local = found("org/name-GGUF:Q8_0", *flags, HF_ENDPOINT=hub.url), found(file, *flags)
    same = ("route", "parts", "program", "tensors", "cache", "bits_per_weight", "quantisation", "problems", "files")
    assert {name: getattr(report, name) for name in same} == {name: getattr(local, name) for name in same}
    ranges = [int(header.rpartition("-")[2]) for header in hub.transfers(file.name) if header]
    assert len(ranges) == len(hub.transfers(file.name)) > 1
    assert ranges == [4**number * 1024 - 1 for number in range(len(ranges))]
    assert ranges[-2] < file.stat().st_size
    with pytest.raises(StartupError, match="has no GGUF file Q4_K_M; it has: model"):
        found("org/name-GGUF:Q4_K_M", *flags, HF_ENDPOINT=hub.url)


def test_an_architecture_that_transformers_computes(tmp_path: Path) -> None:
    config = {"model_type": "persimmon", "architectures": ["PersimmonForCausalLM"], "hidden_size": 32, "vocab_size": 99}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    report = found(tmp_path)
    assert (report.route, report.vocabulary) == ("transformers", 99)
    assert "PersimmonForCausalLM" in report.why and "persimmon" in report.why
    assert report.parameters and report.program == [] and report.tensors is None
    assert "no weights" in report.problems[0]


def test_weights_that_are_converted_first(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(files["config.json"])
    (tmp_path / "tokenizer.json").write_bytes(files["tokenizer.json"])
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    report = found(tmp_path)
    assert report.files is not None and (report.files.format, report.files.bytes) == ("pickle", None)
    assert (report.route, report.tensors, report.bits_per_weight) == ("native", None, None)


def test_json_is_for_machines(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["route"] == "native" and report["tensors"]["missing"] == []
    assert [kind["name"] for kind in report["program"]] == ["embedding", "layer", "head"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--help"], 0, "Usage: tgi inspect MODEL"),
        ([], 2, "Usage: tgi inspect MODEL"),
        (["--json"], 2, "a model is needed"),
        (["/no/such/directory"], 1, "there is no directory /no/such/directory"),
        (["x", "--jsno"], 2, "unexpected argument '--jsno'"),
    ],
)
def test_command_lines(words: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *words]) == status
    printed = capsys.readouterr()
    assert says in printed.out + printed.err


def test_the_command_needs_no_torch(checkpoint: Path) -> None:
    code = "import sys; from tgi.commands.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, "inspect", str(checkpoint)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_numbers_of_layers() -> None:
    assert numbers([]) == ""
    assert numbers([3]) == "3"
    assert numbers([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7"
