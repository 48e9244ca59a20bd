"""Loading: every layout of files, every way a checkpoint can be wrong, and the memory it takes."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.models.checkpoints import FAMILIES, Family, make_checkpoint, write_json, write_tensors
from tgi.errors import ModelError
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.program import Program
from tgi.kernels.reference.loading import load_matrix
from tgi.kernels.reference.step import Matrix, ReferenceStep
from tgi.kernels.select import select
from tgi.kernels.weight import Weight
from tgi.models.build.decoder import build
from tgi.models.families.registry import read_spec
from tgi.models.families.shared import LLAMA_NAMES
from tgi.models.loader import LoadedModel, load_model
from tgi.models.safetensors import SafetensorsFile
from tgi.models.weights import Weights, weight_files
from tgi.quant.reader import ModelWeights

CPU = torch.device("cpu")


def load(path: Path, dtype: Any = None, **options: Any) -> LoadedModel:
    return load_model(path, dtype, select(CPU, torch.float32), **options)


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "model.safetensors")


def matrices(loaded: LoadedModel) -> dict[str, Matrix]:
    """Every matrix of a model by its first stored name."""
    assert isinstance(loaded.step, ReferenceStep)
    return {weight.names[0]: matrix for weight, matrix in loaded.step._matrices.items()}


def state(loaded: LoadedModel) -> list[torch.Tensor]:
    """All weights of a model, in order of the program."""
    assert isinstance(loaded.step, ReferenceStep)
    found = [tensor for one in matrices(loaded).values() for tensor in (one.weight, one.bias) if tensor is not None]
    return found + list(loaded.step._vectors.values())


def program_of(loaded: LoadedModel) -> Program:
    return loaded.step.program


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_equal_one_file(family: Family, tmp_path: Path) -> None:
    one = load(make_checkpoint(tmp_path / "one", family, seed=3))
    three = load(make_checkpoint(tmp_path / "three", family, seed=3, sharded=True))
    assert all(map(torch.equal, state(one), state(three)))
    assert program_of(one).parameters == program_of(three).parameters
    assert one.step.weight_bytes == 4 * program_of(one).parameters
    assert sum(tensor.numel() for tensor in state(one)) == program_of(one).parameters
    assert one.dtype == torch.float32


def test_fused_in_order(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "qwen2")
    tensors = load_file(path / "model.safetensors")
    prefix = "model.layers.1.self_attn."
    expected = torch.cat([tensors[f"{prefix}{part}_proj.weight"] for part in "qkv"])
    held = matrices(load(path))[f"{prefix}q_proj"]
    assert torch.equal(held.weight, expected)
    assert held.bias is not None
    assert torch.equal(held.bias, torch.cat([tensors[f"{prefix}{part}_proj.bias"] for part in "qkv"]))


def test_names_without_prefix_and_with_buffers(tmp_path: Path) -> None:
    """GPT-2 on the hub: no `transformer.` in front, causal masks among the tensors, no head."""
    path = make_checkpoint(tmp_path / "plain", "gpt2")
    other = make_checkpoint(tmp_path / "hub", "gpt2")
    tensors = load_file(other / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare |= {f"h.{i}.attn.bias": torch.ones(1, 1, 8, 8) for i in range(3)}
    write_tensors(other, bare)
    assert all(map(torch.equal, state(load(path)), state(load(other))))


@pytest.mark.parametrize(
    ("family", "prefix", "buffers"),
    [
        ("bloom", "transformer.", ()),
        ("gpt_neox", "gpt_neox.", ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")),
    ],
)
def test_names_as_on_the_hub(family: Family, prefix: str, buffers: tuple[str, ...], tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "plain", family)
    other = make_checkpoint(tmp_path / "hub", family)
    tensors = load_file(other / "model.safetensors")
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    bare |= {f"layers.{layer}.{name}": torch.ones(3) for name in buffers for layer in range(3)}
    write_tensors(other, bare)
    assert all(map(torch.equal, state(load(path)), state(load(other))))


def test_heads_stored_one_after_another(tmp_path: Path) -> None:
    """q, k, v of a head stand together in the file, all of q, all of k and all of v in the layer."""
    path = make_checkpoint(tmp_path, "gpt_neox")
    tensors = load_file(path / "model.safetensors")
    layer = matrices(load(path))["gpt_neox.layers.2.attention.query_key_value"]
    for kind, held in (("weight", layer.weight), ("bias", layer.bias)):
        stored = tensors[f"gpt_neox.layers.2.attention.query_key_value.{kind}"]
        for part in range(3):
            for head in range(3):
                at = (3 * head + part) * 24
                assert torch.equal(held[part * 72 + head * 24 : part * 72 + head * 24 + 24], stored[at : at + 24])


def test_groups_of_unequal_parts() -> None:
    """Two queries to a key and a value, group by group."""

    class Source:
        def has(self, name: str) -> bool:
            return True

        def shape(self, name: str) -> tuple[int, ...]:
            return (24, 5)

        def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
            into.copy_(torch.arange(24.0)[:, None].expand(24, 5)[index])

    weight = Weight(("qkv",), (12, 6, 6), 5, groups=3)  # rows of a group: 4 of q, 2 of k, 2 of v
    held = load_matrix(weight, ModelWeights(Source(), torch.float32), CPU)
    expected = [*range(4), *range(8, 12), *range(16, 20), 4, 5, 12, 13, 20, 21, 6, 7, 14, 15, 22, 23]
    assert held.weight[:, 0].tolist() == expected


TIED: list[Family] = ["llama", "gpt2", "gpt_neox", "bloom", "gemma2"]


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("family", TIED)
def test_a_stored_head_that_is_another_is_used(
    family: Family, threads: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`tie_word_embeddings` stayed true when the head was trained by itself; transformers believes the weights."""
    path = make_checkpoint(tmp_path, family, tie_word_embeddings=True)
    spec = read_spec(path)
    head = torch.randn(spec.vocab_size, spec.hidden_size)
    change_tensors(path, lambda tensors: tensors.update({f"{spec.names.head}.weight": head}))
    loaded = load_model(path, None, select(CPU, torch.float32, threads=threads))
    assert len(caplog.records) == 1 and f"{spec.names.head}.weight" in caplog.text
    assert not loaded.spec.tied_head and program_of(loaded).parameters == build(spec).parameters + head.numel()
    model = AutoModelForCausalLM.from_pretrained(path)
    hidden = torch.randn(2, spec.hidden_size)
    wanted = model.lm_head(hidden)
    if spec.logit_soft_cap:
        wanted = spec.logit_soft_cap * (wanted / spec.logit_soft_cap).tanh()
    torch.testing.assert_close(loaded.step.logits(hidden), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_tied_head_may_be_stored(stored: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same numbers, or what they become in the serving dtype."""
    path = make_checkpoint(tmp_path, "llama", tie_word_embeddings=True, dtype="bfloat16")
    table = load_file(path / "model.safetensors")["model.embed_tokens.weight"]
    change_tensors(path, lambda tensors: tensors.update({"lm_head.weight": table.to(getattr(torch, stored))}))
    loaded = load(path)
    assert loaded.spec.tied_head and len(program_of(loaded).weights()) == len(build(read_spec(path)).weights())
    assert not caplog.records


def test_a_tied_table_may_be_stored_as_the_head_only(tmp_path: Path) -> None:
    path, other = (make_checkpoint(tmp_path / name, "llama", tie_word_embeddings=True) for name in ("one", "two"))
    change_tensors(other, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    assert all(map(torch.equal, state(load(path)), state(load(other))))


def test_a_tied_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama", tie_word_embeddings=True)
    change_tensors(path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(383, 64)}))
    with pytest.raises(ModelError, match=r"lm_head\.weight has shape \[383, 64\], the model needs \[384, 64\]"):
        load(path)


def test_ignored_tensors(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    change_tensors(path, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    load(path)


@pytest.mark.parametrize("sharded", [False, True])
def test_missing_tensor(sharded: bool, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    name = "model.layers.2.mlp.up_proj.weight"
    change_tensors(path, lambda tensors: tensors.__delitem__(name))
    if sharded:
        weight_map = dict.fromkeys([*load_file(path / "model.safetensors"), name], "model.safetensors")
        write_json(path / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(ModelError, match=name):
        load(path)


def test_missing_head(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    change_tensors(path, lambda tensors: tensors.__delitem__("lm_head.weight"))
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing"):
        load(path)


def test_unexpected_tensors(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    change_tensors(path, lambda tensors: tensors.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}))
    with pytest.raises(ModelError, match=r"does not use: model\.layers\.0\.self_attn\.q_norm\.weight"):
        load(path)
    other = make_checkpoint(tmp_path / "bias", "llama", attention_bias=True)
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", {**config, "attention_bias": False})
    with pytest.raises(ModelError, match=r"k_proj\.bias and 7 more"):
        load(other)


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.v_proj.weight",
        "model.layers.1.self_attn.v_proj.bias",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
    ],
)
def test_too_large(name: str, threads: int | None, tmp_path: Path) -> None:
    """A tensor that has all rows the model needs, and more: read in pieces it would go unnoticed."""
    path = make_checkpoint(tmp_path, "qwen2")
    change_tensors(path, lambda tensors: tensors.update({name: torch.cat((tensors[name], tensors[name]))}))
    with pytest.raises(ModelError, match=rf"{name} has shape \[\d+(, \d+)?\], the model needs"):
        load_model(path, None, select(CPU, torch.float32, threads=threads))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_wrong_shape(family: Family, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, family)
    name = "model.layers.0.self_attn.k_proj.weight" if family == "llama" else "transformer.h.0.attn.c_attn.weight"
    change_tensors(path, lambda tensors: tensors.update({name: tensors[name].t()}))
    with pytest.raises(ModelError, match=rf"{name} has shape \[\d+, \d+\], the model needs \[\d+, \d+\]"):
        load(path)


def test_integers_are_not_weights(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    name = "model.layers.0.mlp.down_proj.weight"
    change_tensors(path, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(ModelError, match=f"{name} is stored as int8"):
        load(path)


def test_an_error_while_copying_comes_through(tmp_path: Path) -> None:
    """Such as a device out of memory: not hidden by the file that cannot be unmapped at that moment."""
    path = make_checkpoint(tmp_path, "llama")
    with pytest.raises(RuntimeError, match="requires grad"), Weights(path, LLAMA_NAMES) as weights:
        weights.read("model.norm.weight", torch.empty(64, requires_grad=True))


def test_stored_twice(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    (path / "model.safetensors").rename(path / "a.safetensors")
    (path / "b.safetensors").write_bytes((path / "a.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"stored twice: in a\.safetensors and b\.safetensors"):
        load(path)


def test_which_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        weight_files(tmp_path)
    for name in ("b.safetensors", "a.safetensors", "training_state.safetensors"):
        (tmp_path / name).touch()
    assert [file.name for file in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


@pytest.mark.parametrize(
    "content",
    ["{", "[" * 100_000, "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"x": "../up.safetensors"}}',
     '{"weight_map": {"x": 3}}', '{"weight_map": {"x": "/etc/x.safetensors"}}',
     '{"weight_map": {"x": "absent.safetensors"}}'],
)  # fmt: skip
def test_bad_index(content: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama", sharded=True)
    (path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"index\.json|absent"):
        load(path)


def test_a_stale_index_beside_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As transformers reads it; the shards of another training lie there, or are gone."""
    path = make_checkpoint(tmp_path, "llama", seed=1, sharded=True)
    make_checkpoint(tmp_path, "llama", seed=2)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert torch.equal(matrices(load(path))["model.embed_tokens"].weight, model.model.embed_tokens.weight)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("tgi")]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        "two versions of its weights: model.safetensors is used, and model-00001-of-00003.safetensors, "
        "model-00002-of-00003.safetensors, model-00003-of-00003.safetensors and 1 more is not. "
        "Remove what you do not mean"
    )
    for shard in path.glob("model-*"):
        shard.unlink()
    caplog.clear()
    load(path)
    assert "model.safetensors is used, and model.safetensors.index.json is not" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"[]", b""])
def test_a_broken_index_beside_one_file(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_checkpoint(tmp_path, "llama")
    (path / "model.safetensors.index.json").write_bytes(content)
    load(path)
    assert "model.safetensors is used, and model.safetensors.index.json is not" in caplog.text


def test_an_index_that_agrees_is_not_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_checkpoint(tmp_path, "llama")
    write_json(path / "model.safetensors.index.json", {"weight_map": {"model.norm.weight": "model.safetensors"}})
    load(path)
    assert not caplog.records


def test_shards_that_the_index_does_not_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_checkpoint(tmp_path, "llama", sharded=True)
    for name in ("model-00001-of-00002.safetensors", "consolidated.safetensors", "pytorch_model.bin"):
        (path / name).write_bytes(b"old")
    load(path)
    assert [record.getMessage().partition(" weights: ")[2] for record in caplog.records] == [
        "model.safetensors.index.json is used, and model-00001-of-00002.safetensors is not. Remove what you do not mean"
    ]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama", sharded=True)
    calls: list[tuple[int, int]] = []
    loaded = load(path, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls) and len(calls) > 20
    assert calls[-1] == (loaded.step.weight_bytes, loaded.step.weight_bytes)


def test_slices_for_ranks(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    name = "model.layers.0.self_attn.q_proj.weight"
    whole = load_file(path / "model.safetensors")[name]
    with Weights(path, LLAMA_NAMES) as weights:
        for index in ((slice(16, 48),), (slice(None), slice(8, 24)), (slice(16, 32), slice(40, 64))):
            into = torch.empty_like(whole[index])
            weights.read(name, into, index)
            assert torch.equal(into, whole[index])
        assert weights.shape(name) == (64, 64)
        with pytest.raises(ModelError, match="the model needs"):
            weights.read(name, torch.empty(16, 64), (slice(0, 15),))


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        ("float32", None, torch.float32),
        ("bfloat16", None, torch.bfloat16),
        ("float16", None, torch.bfloat16),  # on a CPU
        ("float16", "float16", torch.float16),
        ("float32", "bfloat16", torch.bfloat16),
        ("bfloat16", torch.float32, torch.float32),
    ],
)
def test_serving_dtype(
    stored: str, given: Any, expected: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = make_checkpoint(tmp_path, "llama", dtype=stored)
    for named in (True, False):
        if not named:  # then the tensors tell
            config = json.loads((path / "config.json").read_text())
            write_json(path / "config.json", {key: value for key, value in config.items() if key != "torch_dtype"})
        loaded = load(path, given)
        assert loaded.dtype == expected
        assert all(tensor.dtype == expected for tensor in state(loaded))
        assert loaded.step.weight_bytes == program_of(loaded).parameters * expected.itemsize
    assert ("bfloat16" in caplog.text) == (stored == "float16" and given is None)
    with pytest.raises(ModelError, match="float64 is not supported"):
        load(path, "float64")


def write_raw(path: Path, header: bytes | dict[str, Any], data: bytes = bytes(64), length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def entry(shape: Any = (16,), offsets: Any = (0, 64), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BAD_HEADERS: dict[str, tuple[Any, str]] = {
    "empty file": (b"", "shorter than its header"),
    "header longer than the file": ((b"{}", b"", 1 << 40), "its header claims"),
    "header of 2^64 - 1 bytes": ((b"{}", b"", (1 << 64) - 1), "its header claims"),
    "not JSON": (b"{nope}", "not JSON"),
    "not UTF-8": (b"\xff\xfe\x00", "not JSON"),
    "deeply nested": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "not an object"),
    "entry not an object": ({"x": 3}, "tensor x is not described"),
    "unknown dtype": ({"x": entry(dtype="F13")}, "tensor x has dtype F13"),
    "dtype a list": ({"x": entry(dtype=["F32"])}, "tensor x has dtype"),
    "negative size": ({"x": entry(shape=[-16])}, "tensor x has shape"),
    "size a float": ({"x": entry(shape=[16.0])}, "tensor x has shape"),
    "size a bool": ({"x": entry(shape=[True, 16])}, "tensor x has shape"),
    "absurd size": ({"x": entry(shape=[1 << 62, 1 << 62])}, "tensor x has shape"),
    "product too large": ({"x": entry(shape=[1 << 40, 1 << 40])}, "cannot take 64 bytes"),
    "shape missing": ({"x": {"dtype": "F32", "data_offsets": [0, 64]}}, "tensor x has shape"),
    "too few bytes": ({"x": entry(offsets=[0, 60])}, "cannot take 60 bytes"),
    "offsets reversed": ({"x": entry(offsets=[64, 0])}, "data offsets"),
    "offsets negative": ({"x": entry(offsets=[-64, 0])}, "data offsets"),
    "three offsets": ({"x": entry(offsets=[0, 64, 64])}, "data offsets"),
    "past the end": ({"x": entry(offsets=[32, 96])}, "truncated: tensor x ends at byte 96 of 64"),
    "overlap": ({"x": entry(shape=[8], offsets=[0, 32]), "y": entry(shape=[8], offsets=[28, 60])},
                "tensors x and y overlap"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_header(name: str, tmp_path: Path) -> None:
    content, message = BAD_HEADERS[name]
    file = tmp_path / "model.safetensors"
    if content == b"":
        file.write_bytes(content)
    else:
        write_raw(file, *(content if isinstance(content, tuple) else (content,)))
    with pytest.raises(ModelError, match=message) as caught:
        SafetensorsFile(file)
    assert "model.safetensors" in str(caught.value) and len(str(caught.value)) < 300


def test_good_odd_headers(tmp_path: Path) -> None:
    """Scalars, empty tensors, metadata and unaligned data are allowed."""
    file = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "scalar": entry(shape=[], offsets=[0, 4]),
        "empty": entry(shape=[0, 7], offsets=[4, 4]),
        "odd": entry(shape=[3], offsets=[5, 17]),
    }
    data = struct.pack("<f", 2.5) + b"\0" + struct.pack("<3f", 1, 2, 3)
    for padding in range(4):
        write_raw(file, json.dumps(header).encode() + b" " * padding, data)
        opened = SafetensorsFile(file)
        scalar, odd = torch.empty(()), torch.empty(3)
        opened.copy("scalar", scalar)
        opened.copy("odd", odd)
        opened.copy("empty", torch.empty(0, 7))
        opened.close()
        assert scalar.item() == 2.5 and odd.tolist() == [1, 2, 3]


def test_random_damage(tmp_path: Path) -> None:
    """Flipped bytes and truncation anywhere before the data: a model or a ModelError, nothing else."""
    path = make_checkpoint(tmp_path, "llama", num_hidden_layers=1)
    file = path / "model.safetensors"
    good = file.read_bytes()
    header = 8 + struct.unpack("<Q", good[:8])[0]
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    refused = 0
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(header)] = rng.randrange(256)
        if rng.random() < 0.3:
            bad = bad[: rng.randrange(len(bad))]
        file.write_bytes(bad)
        try:
            load(path)
        except ModelError:
            refused += 1
    assert refused > 50


PEAK = """
import sys, torch
from pathlib import Path
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.select import select
from tgi.models.loader import load_model

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

torch.set_num_threads(1)
warm, path, dtype, kind = sys.argv[1:]
cpu = torch.device("cpu")
backend = select(cpu, torch.bfloat16, threads=1 if kind == "native" else None)
assert isinstance(backend, NativeBackend) == (kind == "native")
load_model(warm, dtype, backend)  # pay for what torch loads on first use
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
before = status("VmRSS")
loaded = load_model(path, dtype, backend)
print(before, status("VmHWM"), status("VmRSS"), loaded.step.weight_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["reference", "native"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_peak_memory(stored: str, kind: str, tmp_path: Path) -> None:
    """Peak resident memory while loading, above the process before, is below 1.3 times the weights served.

    Measured as VmHWM - VmRSS of a fresh process: private and shared pages, those of mapped files too.
    The embedding, a third of the model, is the worst single tensor.
    """
    if kind == "native" and not isinstance(select(CPU, torch.bfloat16, threads=1), NativeBackend):
        pytest.skip("the native kernels were not built")
    shape = {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 3, "num_attention_heads": 12,
             "num_key_value_heads": 4, "vocab_size": 24_000, "tie_word_embeddings": True}  # fmt: skip
    path = make_checkpoint(tmp_path / "large", "llama", dtype=stored, **shape)
    warm = make_checkpoint(tmp_path / "tiny", "llama", dtype=stored)
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(warm), str(path), "bfloat16", kind],
        capture_output=True, text=True, timeout=100, env={"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    before, peak, after, weight_bytes = map(int, result.stdout.split())
    print(f"before {before >> 20}, peak {peak >> 20}, after {after >> 20}, weights {weight_bytes >> 20} MiB")
    assert weight_bytes > 50 << 20
    assert peak - before < 1.3 * weight_bytes
    assert after - before > 0.95 * weight_bytes, "the weights were not resident: nothing was measured"
