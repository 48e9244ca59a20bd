"""What cannot be served is refused before its weights are fetched, by one check for plans and for serving."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import FakeHub, Repo
from tests.models.checkpoints import make_checkpoint, make_config
from tgi.errors import StartupError
from tgi.hardware import Hardware
from tgi.hub.prepare import prepare_parsed, prepare_plan
from tgi.quant.checkpoint import METHODS
from tgi.quant.formats.registry import FORMATS
from tgi.settings.parse import parse

CPU = Hardware(cpu_count=2, available_memory=2 << 30, cpu_name="x")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
QUANTISED = {"quantization_config": {"quant_method": "aqlm"}}
BIG = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
BIG |= {"num_key_value_heads": 32, "vocab_size": 32000}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = make_checkpoint(tmp_path_factory.mktemp("sharded"), sharded=True)
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def refusal(make: Any, words: list[str], variables: dict[str, str]) -> str:
    with pytest.raises(StartupError) as caught:
        make(parse(words, {}), variables, CPU)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1500
    return text


def fetched(hub: FakeHub) -> set[str]:
    return {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}


def config(**changes: Any) -> bytes:
    return json.dumps(make_config("llama", **changes)).encode()


def without(index: bytes, tensor: str) -> bytes:
    content = json.loads(index)
    del content["weight_map"][tensor]
    return json.dumps(content).encode()


REMOTE: dict[str, tuple[dict[str, bytes | None], list[str], str]] = {
    "family": ({"config.json": config(model_type="no-such-family")}, [], "no-such-family"),
    "no language model": ({"config.json": config(architectures=["LlamaForTokenClassification"])}, [], "generates text"),
    "quantisation": ({"config.json": config(**QUANTISED)}, [], "quantised as aqlm"),
    "dtype": ({"config.json": config(dtype="float8_e4m3fn")}, [], "float8_e4m3fn"),
    "a key that changes the model": ({"config.json": config(clip_qkv=3.0)}, [], "`clip_qkv`"),
    "size": ({"config.json": config(**BIG)}, [], "the weights do not fit"),
    "tokenizer": ({"tokenizer.json": None}, [], "has no tokenizer"),
    "weights": ({"model.safetensors.index.json": None, "model-00001-of-00003.safetensors": None,
                 "model-00002-of-00003.safetensors": None, "model-00003-of-00003.safetensors": None,
                 "model.h5": b"x"}, [], "another framework"),
    "tensors": ({"model.safetensors.index.json": b""}, [], "model.norm.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", REMOTE)
def test_nothing_large_is_fetched_of_what_cannot_be_served(
    hub: FakeHub, sharded: dict[str, bytes], tmp_path: Path, case: str
) -> None:
    changes, flags, says = REMOTE[case]
    files = {name: data for name, data in {**sharded, **changes}.items() if data is not None}
    if case == "tensors":
        files["model.safetensors.index.json"] = without(sharded["model.safetensors.index.json"], "model.norm.weight")
    hub.repos["org/name"] = Repo(files)
    words = ["--model-id", "org/name", "--huggingface-hub-cache", str(tmp_path), *flags]
    for make in (prepare_parsed, prepare_plan):
        assert says in refusal(make, words, {"HF_ENDPOINT": hub.url})
    assert not [name for name in fetched(hub) if name.endswith((".safetensors", ".gguf"))]


def test_what_can_be_served_is_fetched(hub: FakeHub, sharded: dict[str, bytes], tmp_path: Path) -> None:
    hub.repos["org/name"] = Repo(sharded)
    parsed = parse(["--model-id", "org/name", "--huggingface-hub-cache", str(tmp_path)], {})
    prepare_plan(parsed, {"HF_ENDPOINT": hub.url}, CPU)
    assert fetched(hub) == {"config.json", "model.safetensors.index.json"}
    prepare_parsed(parsed, {"HF_ENDPOINT": hub.url}, CPU)
    assert "model-00003-of-00003.safetensors" in fetched(hub)


def test_a_refusal_names_what_would_work(hub: FakeHub, sharded: dict[str, bytes], tmp_path: Path) -> None:
    def said(*flags: str, **changes: Any) -> str:
        hub.repos["org/name"] = Repo({**sharded, "config.json": config(**changes)})
        words = ["--model-id", "org/name", "--huggingface-hub-cache", str(tmp_path / str(len(hub.requests))), *flags]
        return refusal(prepare_parsed, words, {"HF_ENDPOINT": hub.url})

    assert "llama" in said(model_type="no-such-family")
    assert "unquantised checkpoint" in said(**QUANTISED)
    assert "With --quantize int8 it fits: 6." in said("--memory", "8.5GiB", dtype="bfloat16", **BIG)
    assert "With --quantize int" in said("--memory", "5.4GiB", dtype="bfloat16", **BIG)
    assert "--quantize" not in said(**BIG)


@pytest.mark.parametrize("wanted", ["org/smol-model-135M-instruct", "org/Smol-Modle-135M", "smol-model-135M"])
def test_a_misspelt_name_gets_near_ones(hub: FakeHub, tmp_path: Path, wanted: str) -> None:
    for name in ("org/Smol-Model-135M-Instruct", "org/Smol-Model-135M", "other/Something-else"):
        hub.repos[name] = Repo({"config.json": config()})
    words = ["--model-id", wanted, "--huggingface-hub-cache", str(tmp_path)]
    for make in (prepare_parsed, prepare_plan):
        text = refusal(make, words, {"HF_ENDPOINT": hub.url})
        assert "neither a local directory nor a model on the hub" in text
        assert "Smol-Model-135M" in text.partition("similar names: ")[2] and "else" not in text
    assert "similar" not in refusal(prepare_plan, ["--model-id", "zzz/qqq", *words[2:]], {"HF_ENDPOINT": hub.url})


LOCAL: dict[str, tuple[str, Any, str]] = {
    "truncated": ("model-00002-of-00003.safetensors", lambda data: data[:-100], "is truncated"),
    "cut in its header": ("model-00002-of-00003.safetensors", lambda data: data[:20], "truncated or not a safetensors"),
    "pointer": ("model-00002-of-00003.safetensors", lambda data: POINTER, "Git LFS pointer"),
    "pointer to a tokenizer": ("tokenizer.json", lambda data: POINTER, "run `git lfs pull`"),
    "index names too little": (
        "model.safetensors.index.json", lambda data: without(data, "model.norm.weight"), None,
    ),
    "index names what is not there": (
        "model.safetensors.index.json", lambda data: data.replace(b"00001-of", b"00002-of"), "but it is not there",
    ),
    "another model's": ("config.json", lambda data: config(num_hidden_layers=4), "missing from the checkpoint"),
    "more than the model's": ("config.json", lambda data: config(num_hidden_layers=2), "does not use"),
    "of another shape": ("config.json", lambda data: config(intermediate_size=96), "the model needs"),
    "no tokenizer": ("tokenizer.json", None, "has no tokenizer"),
    "no weights at all": ("model-00001-of-00003.safetensors", None, "weight files are missing"),
    "quantised": ("config.json", lambda data: config(**QUANTISED), "quantised as aqlm"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCAL)
def test_plan_and_serving_see_the_same_in_a_directory(sharded: dict[str, bytes], tmp_path: Path, case: str) -> None:
    damaged, change, says = LOCAL[case]
    for name, data in sharded.items():
        if name != damaged or change is not None:
            (tmp_path / name).write_bytes(change(data) if name == damaged else data)
    words = ["--model-id", str(tmp_path)]
    if says is None:  # the shards hold it, whatever the index says
        prepare_plan(parse(words, {}), {}, CPU)
        return
    texts = [refusal(make, words, {}) for make in (prepare_plan, prepare_parsed)]
    assert says in texts[0] and texts[0] == texts[1]


def test_headers_are_read_and_not_the_tensors(sharded: dict[str, bytes], tmp_path: Path) -> None:
    """A file may be larger than the memory."""
    for name, data in sharded.items():
        (tmp_path / name).write_bytes(data)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    data = shard.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
        "dtype": "F32", "shape": [1 << 36], "data_offsets": [end, end + (1 << 38)],
    }  # fmt: skip
    packed = json.dumps(header).encode()
    with shard.open("wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed + data[8 + length :])
        file.truncate(8 + len(packed) + end + (1 << 38))  # a hole
    prepare_plan(parse(["--model-id", str(tmp_path)], {}), {}, CPU)


def test_unknown_keys_are_not_named_by_the_check(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The load names them, once."""
    path = make_checkpoint(tmp_path, own_invention=1)
    with caplog.at_level(logging.WARNING):
        prepare_parsed(parse(["--model-id", str(path)], {}), {}, CPU)
    assert not caplog.records


def test_formats_known_before_a_download_are_those_that_are_read() -> None:
    assert tuple(sorted(FORMATS)) == METHODS
