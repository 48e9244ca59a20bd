"""From `--model-id` to a directory: bundled, local, converted, joined; and the plan without weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub, Repo
from tests.models.checkpoints import make_checkpoint, make_config
from tgi.errors import ArgumentError, DownloadError, ModelError
from tgi.hardware import Hardware
from tgi.hub import files
from tgi.hub import prepare as module
from tgi.hub.download import Hub
from tgi.hub.prepare import locate, model_files, prepare, prepare_plan
from tgi.settings.flags import LauncherConfig
from tgi.settings.parse import UsageError, parse

OFFLINE = Hub(offline=True)
CPU = Hardware(cpu_count=2, available_memory=1 << 30, cpu_name="x")


def write(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("{}")
    return directory


def refusal(name: str) -> str:
    with pytest.raises(DownloadError) as caught:
        locate(name, None, OFFLINE)
    return str(caught.value)


def test_local_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "my-model", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    model = locate("./my-model", "main", OFFLINE)
    assert (model.path, model.model_id, model.sha) == (str(tmp_path / "my-model"), "./my-model", None)
    assert "--revision has no effect" in caplog.text
    assert locate("my-model", None, OFFLINE).path == model.path


def test_what_is_no_model_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "nothing")) == f"there is no directory {tmp_path / 'nothing'}"
    assert "no config.json" in refusal(str(write(tmp_path / "a", "model.safetensors")))
    assert "has no weights" in refusal(str(write(tmp_path / "b", "config.json")))
    assert "is a file" in refusal(str(write(tmp_path / "c", "model.safetensors") / "model.safetensors"))
    directory = write(tmp_path / "d", "config.json", "model-1.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    assert "1 of 1 weight files are missing" in refusal(str(directory))


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', "nonsense"])
def test_an_index_from_strangers(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DownloadError):
        files.read_index(tmp_path / "index.json")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "consolidated.safetensors"], ["model.safetensors"]),
        (["a.safetensors", "b.safetensors", "c.bin"], ["a.safetensors", "b.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.pt"], ["pytorch_model.bin"]),
        (["x.pt"], ["x.pt"]),
        (["sub/model.safetensors"], []),
    ],
)
def test_choice_of_weights(names: list[str], chosen: list[str]) -> None:
    assert list(files.choose(names, Path).names) == chosen


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer.model", "config.json"])
def test_what_is_no_file_is_refused_before_anything_starts(name: str, tmp_path: Path) -> None:
    directory = write(tmp_path, "config.json", "tokenizer.json", "model.safetensors")
    (directory / name).write_text(POINTER)
    config = LauncherConfig(model_id=str(directory))
    with pytest.raises(DownloadError, match=f"{name} is a Git LFS pointer"):
        model_files(config, OFFLINE)
    for make in (os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")):
        (directory / name).unlink()
        make(directory / name)
        wanted = "not a regular file" if name != "config.json" else "has no config"
        with pytest.raises(DownloadError, match=wanted):
            model_files(config, OFFLINE)


@pytest.mark.parametrize(
    "name",
    [
        "no such model",
        "a\x1b[31mb",
        "a\nb",
        "x" * 5000,
        "-x",
        "~nobody-here/x",
        "a--b/c..d",
        "org/name:tag",
        "a\0b",
        "\udcff",
    ],
)
@pytest.mark.parametrize("offline", [True, False])
def test_a_name_that_no_model_has(name: str, offline: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the hub out of reach, too, and without a traceback or a control character."""
    hub = Hub(cache_dir=str(tmp_path), offline=offline, endpoint="http://127.0.0.1:9", pause_s=0.0)
    with pytest.raises(DownloadError) as caught:
        locate(name, None, hub)
    assert any(words in str(caught.value) for words in ("is neither a local directory nor", "there is no directory"))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    if name == "\udcff":  # a byte that no text has is refused before anything looks for a model
        with pytest.raises(UsageError, match="for '--model-id': it is not valid UTF-8"):
            parse(["--model-id", name], {})
        return
    parsed = parse(["--model-id", name], {})
    with pytest.raises(DownloadError):
        prepare_plan(parsed, {"HF_HUB_OFFLINE": "1", "HUGGINGFACE_HUB_CACHE": str(tmp_path)}, CPU)


def test_a_directory_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write(tmp_path / "m", "config.json", "model.safetensors")

    def refuse(self: Path) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    for method in ("iterdir", "is_dir", "is_file"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            assert refusal(str(directory)).endswith("cannot be read: Permission denied")


def test_offline_interface_takes_the_flags_by_name(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m")
    api, engine = prepare(str(directory), max_total_tokens=64, memory="1GiB", dtype="float32")
    assert (engine.max_total_tokens, engine.memory_bytes, engine.dtype) == (64, 1 << 30, "float32")
    assert api.model_path == engine.model_path == str(directory)
    with pytest.raises(ArgumentError, match="max_total_token"):
        prepare(str(directory), max_total_token=1)
    with pytest.raises(ArgumentError, match="24GiB"):
        prepare(str(directory), memory="lots")
    with pytest.raises(ModelError, match="not quantised"):
        prepare(str(directory), quantize="gptq")


def test_weights_of_another_directory(tmp_path: Path) -> None:
    base = write(tmp_path / "base", "config.json", "tokenizer.json", "model.safetensors")
    other = write(tmp_path / "other", "model.safetensors")
    (other / "model.safetensors").write_text("mine")
    config = LauncherConfig(model_id=str(base), weights_cache_override=str(other))
    joined = Path(model_files(config, OFFLINE).path)
    assert (joined / "model.safetensors").read_text() == "mine"
    assert (joined / "config.json").resolve() == base / "config.json"
    for bad in (tmp_path / "nothing", write(tmp_path / "empty")):
        with pytest.raises(DownloadError):
            model_files(LauncherConfig(model_id=str(base), weights_cache_override=str(bad)), OFFLINE)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.mark.parametrize("flags", [["--quantize", "eetq"], ["--quantize", "int4"], []])
def test_activations_of_layers_that_have_codes(flags: list[str], tmp_path: Path) -> None:
    (make_checkpoint(tmp_path / "m", "llama") / "tokenizer.json").write_text("{}")
    parsed = parse(["--model-id", str(tmp_path / "m"), "--activation-dtype", "float32", *flags], {})
    if flags:
        assert prepare_plan(parsed, {}, CPU).activation_dtype == "float32"
        return
    with pytest.raises(ArgumentError, match="`activation_dtype` float32 needs `quantize` or a quantised checkpoint"):
        prepare_plan(parsed, {}, CPU)


def test_plan_fetches_the_configuration_alone(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["org/name"] = Repo(
        {"config.json": json.dumps(make_config("llama")).encode(), "model.safetensors": b"x", "tokenizer.json": b"{}"}
    )
    parsed = parse(["--model-id", "org/name", "--huggingface-hub-cache", str(tmp_path)], {})
    engine = prepare_plan(parsed, {"HF_ENDPOINT": hub.url}, CPU)
    assert [path.name for path in Path(engine.model_path).iterdir()] == ["config.json"]
    assert hub.transfers("model.safetensors") == []


def test_bin_weights_from_the_hub_are_converted(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights")
    hub.repos["org/name"] = Repo(
        {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": (tmp_path / "weights").read_bytes()}
    )
    caplog.set_level(logging.INFO, "tgi")
    reach = Hub(cache_dir=str(tmp_path / "cache"), endpoint=hub.url, pause_s=0.0)
    model = model_files(LauncherConfig(model_id="org/name"), reach)
    from safetensors.numpy import load_file

    assert load_file(Path(model.path) / "model.safetensors")["a"].tolist() == [1, 1]
    messages = caplog.messages
    order = ["Starting check and download process for org/name", "Download file: pytorch_model.bin"]
    order += ["Convert: [1/1] -- Took: 0:00:00", "Successfully downloaded weights for org/name"]
    assert [message for message in messages if message in order] == order
    caplog.clear()
    model_files(LauncherConfig(model_id="org/name"), reach)
    assert not [message for message in caplog.messages if message.startswith("Convert")]


def test_refused_weights_are_told_in_the_converters_words(tmp_path: Path) -> None:
    directory = write(tmp_path, "config.json")
    (directory / "pytorch_model.bin").write_bytes(b"no checkpoint")
    with pytest.raises(DownloadError, match=r"cannot be converted: pytorch_model\.bin"):
        model_files(LauncherConfig(model_id=str(directory)), OFFLINE)
    assert not list(directory.glob("*.safetensors"))


def test_demo_model_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "config.json", "model.safetensors", "tokenizer.json")
    monkeypatch.setattr(module, "demo_directory", lambda: tmp_path)
    model = model_files(LauncherConfig(), OFFLINE)
    assert (model.path, model.model_id) == (str(tmp_path), "tgi-demo")
    assert locate("tgi-demo", None, OFFLINE).path == str(tmp_path)
