"""Checkpoints in stored formats: every reader against an independent writer, bit for bit, and what is damaged."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import make_checkpoint
from tests.models.driver import Driver
from tests.models.tiny import write_tiny
from tests.quant import writers
from tests.quant.writers import WRITERS, Writer, Written
from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.native.step import NativeStep
from tgi.kernels.select import select
from tgi.kernels.weight import Weight, Within
from tgi.models.config_reader import read_config
from tgi.models.loader import load_model
from tgi.quant.checkpoint import from_tensors, stored
from tgi.quant.formats import format_for, modules
from tgi.quant.formats.base import Buffer, Shard

ROWS, COLUMNS = 192, 384
WHOLE = Shard()


class Source:
    """Tensors by name."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def has(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise ModelError(f"Tensor {name} is missing")
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self.tensors[name].dtype

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """As from a file, which gives no floats for integers."""
        assert self.dtype(name).is_floating_point or not into.is_floating_point(), name
        into.copy_(self.tensors[name][index])


def named(module: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    joints = {end: "" if end in ("_blocks", "_scales") else "." for end in tensors}
    return {f"{module}{joints[end]}{end}": tensor for end, tensor in tensors.items()}


def matrix(weight: Weight, source: Source, settings: dict[str, Any], shard: Shard = WHOLE) -> torch.Tensor:
    """What the reader of these settings makes of a weight, dequantised."""
    rows = []
    for _, piece in format_for(stored(settings, "here")).pieces(weight, source, Buffer(torch.float32), shard):
        rows.append(piece.dequantise() if isinstance(piece, CodedWeight) else piece.clone())
    return torch.cat(rows)


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Writer:
    return WRITERS[request.param]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "PIECE_BYTES", 80 * COLUMNS)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_matrix_has_the_bits_of_what_was_written(writer: Writer) -> None:
    written = writer(ROWS, COLUMNS, rng())
    source = Source(named("m", written.tensors))
    assert torch.equal(matrix(Weight(("m",), (ROWS,), COLUMNS), source, written.settings), written.matrix)


def test_parts_of_a_matrix(writer: Writer) -> None:
    """As heads take their rows of a projection, also turned round; what holds a matrix for each expert is refused."""
    written = writer(ROWS, COLUMNS, rng())
    source = Source(named("m", written.tensors))
    rows = Weight(("m",), (64,), COLUMNS, within=Within(32, ROWS))
    assert torch.equal(matrix(rows, source, written.settings), written.matrix[32:96])
    turned = Weight(("m",), (COLUMNS,), 64, transposed=True, within=Within(32, ROWS))
    assert torch.equal(matrix(turned, source, written.settings), written.matrix[32:96].T)
    with pytest.raises(ModelError, match="holds several matrices"):
        matrix(replace(rows, within=Within(0, 3, stacked=True)), source, written.settings)


def test_groups_larger_than_a_row_are_the_row() -> None:
    written = writers.awq(128, gemv=True)(ROWS, 128, rng())
    settings = written.settings | {"group_size": 1 << 40}
    assert torch.equal(
        matrix(Weight(("m",), (ROWS,), 128), Source(named("m", written.tensors)), settings), written.matrix
    )


def test_stacked_parts_and_shards(writer: Writer) -> None:
    """Parts of one stored matrix; rows and columns of ranks; a part that was left unquantised."""
    written, plain = writer(ROWS, COLUMNS, rng()), torch.randn((40, COLUMNS))
    source = Source(named("m", written.tensors) | {"p.weight": plain})
    mixed = Weight(("m", "p"), (ROWS, 40), COLUMNS)
    assert torch.equal(matrix(mixed, source, written.settings), torch.cat((written.matrix, plain)))
    stacked = Weight(("m",), (96, 48, 48), COLUMNS, order=(1, 0, 2), split="rows")
    parts = written.matrix.split((48, 96, 48))
    for rank in range(2):
        expected = torch.cat([parts[part].chunk(2)[rank] for part in (1, 0, 2)])
        assert torch.equal(matrix(stacked, source, written.settings, Shard(rank, 2)), expected)
    by_columns = Weight(("m",), (ROWS,), COLUMNS, split="columns")
    for ranks in (2, 3):
        for rank in range(ranks):
            share = matrix(by_columns, source, written.settings, Shard(rank, ranks))
            assert torch.equal(share, written.matrix.chunk(ranks, 1)[rank])


@pytest.mark.parametrize(
    "name", ["gptq 4 bits", "awq", "nf4", "ct packed 4", "fp8 block", "bitsandbytes int8", "hqq 4 bits", "torchao int4"]
)
def test_tensors_tell_the_method_where_no_settings_do(name: str) -> None:
    written = WRITERS[name](ROWS, COLUMNS, rng())
    found = from_tensors({name: tuple(tensor.shape) for name, tensor in named("m", written.tensors).items()})
    assert found is not None and found.method == written.settings["quant_method"]


LINEARS = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
SERVED = {
    "gptq": writers.gptq(4, 32, act_order=True),
    "awq": writers.awq(32),
    "nf4": writers.four_bits(nested=True),
    "int8": writers.eight_bits,
    "fp8": writers.floats("block", "weight_scale_inv"),
    "compressed-tensors": writers.compressed(4, 32, symmetric=False),
}


Formats = Writer | dict[str, Writer | None]
"""What matrices are in; or by an end of their module's names, the first that fits, None for floats."""


def quantised(path: Path, formats: Formats, pattern: re.Pattern[str] = LINEARS) -> Path:
    """A checkpoint of which the matrices by these names are in a format; beside it, in `plain`, what they stand for."""
    by_end = formats if isinstance(formats, dict) else {"": formats}
    for name in ("coded", "plain"):
        make_checkpoint(path / name, "llama", hidden_size=64, intermediate_size=128)
    file = path / "coded" / "model.safetensors"
    tensors = load_file(file)
    plain, settings, draw = dict(tensors), {}, rng()
    for name in [name for name in tensors if pattern.fullmatch(name)]:
        writer = next(by_end[end] for end in by_end if name.removesuffix(".weight").endswith(end))
        if writer is None:
            continue
        written = writer(*tensors.pop(name).shape, draw)
        tensors |= named(name.removesuffix(".weight"), written.tensors)
        plain[name], settings = written.matrix, written.settings
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    save_file(plain, path / "plain" / "model.safetensors")
    change_config(path / "coded", quantization_config=settings)
    return path


def change_config(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text()) | values
    (path / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def logits(path: Path, threads: int | None, quantize: str | None = None) -> torch.Tensor:
    backend = select(torch.device("cpu"), torch.float32, threads=threads)
    return Driver(load_model(path, "float32", backend, quantize=quantize), backend).run(list(range(5, 45)))


@pytest.mark.parametrize("threads", [None, 1], ids=["reference", "native"])
@pytest.mark.parametrize("name", SERVED)
def test_a_checkpoint_computes_what_its_weights_stand_for(name: str, threads: int | None, tmp_path: Path) -> None:
    path = quantised(tmp_path, SERVED[name])
    found, expected = (logits(path / part, threads) for part in ("coded", "plain"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


STACKED = {
    "q, k and v in orders of their own": {"": writers.gptq(4, 32, act_order=True)},
    "v in floats": {"v_proj": None, "": writers.gptq(4, 32)},
    "k in more bits": {"k_proj": writers.gptq(8, 32), "": writers.gptq(4, 32)},
}


@pytest.mark.parametrize("name", STACKED)
def test_stacked_matrices_that_differ_keep_their_codes(name: str, tmp_path: Path, caplog: Any) -> None:
    """As layers of their own, each in its own bits, which together give what the reference backend does."""
    path = quantised(tmp_path, STACKED[name]) / "coded"
    settings = read_config(path)["quantization_config"]
    change_config(path, quantization_config=settings | {"dynamic": {r"+:.*k_proj": {"bits": 8}}})
    cpu = torch.device("cpu")
    rounded, exact = (select(cpu, torch.bfloat16, threads=threads) for threads in (2, None))
    with caplog.at_level("INFO"):
        step = load_model(path, "bfloat16", rounded).step
    kept = next(line for line in caplog.messages if "are kept as follows" in line)
    floats = 4 if "v_proj" in STACKED[name] else 1  # the head, and v of three layers
    assert f"{floats + 1} in bfloat16" in kept  # and the embedding
    assert isinstance(step, NativeStep)
    for weight, layer in step.layers.items():
        if weight.role == "layer" and "k_proj" not in weight.names[-1] and "v_proj" not in weight.names[-1]:
            assert layer.format == "int4", weight
    ids = list(range(5, 45))
    expected = Driver(load_model(path, "float32", exact), exact).run(ids)
    for activations, tolerance in (("int8", 0.25), ("float32", 0.1)):
        model = load_model(path, "bfloat16", rounded, activations=activations)
        found, again = (Driver(model, rounded).run(part) for part in (ids, ids[:7]))
        assert torch.equal(found[:7], again), "the same bits in every batch"
        assert (found - expected).std() < tolerance * expected.std()
    torch.testing.assert_close(logits(path, 2), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [None, 1], ids=["reference", "native"])
def test_experts_of_gpt_oss(threads: int | None, tmp_path: Path) -> None:
    """As OpenAI publishes them; what the blocks stand for is transformers' word."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    draw = rng()
    for name in ("coded", "plain"):
        write_tiny(tmp_path / name, "gpt_oss", intermediate_size=96)
    tensors = load_file(tmp_path / "plain" / "model.safetensors")
    coded = dict(tensors)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = tensors[name].shape
        blocks = torch.from_numpy(draw.integers(0, 256, (experts, rows, columns // 32, 16), dtype=np.uint8))
        scales = torch.from_numpy(draw.integers(121, 126, (experts, rows, columns // 32), dtype=np.uint8))
        coded |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        del coded[name]
        tensors[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    save_file(coded, tmp_path / "coded" / "model.safetensors")
    save_file(tensors, tmp_path / "plain" / "model.safetensors")
    change_config(tmp_path / "coded", quantization_config={"quant_method": "mxfp4"})
    found, expected = (logits(tmp_path / name, threads) for name in ("coded", "plain"))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_quantised_head_is_no_tied_one(tmp_path: Path) -> None:
    path = quantised(tmp_path, writers.gptq(4, 32), re.compile(r"lm_head\.weight"))
    change_config(path / "coded", tie_word_embeddings=True)
    torch.testing.assert_close(logits(path / "coded", None), logits(path / "plain", None))


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "tensors", "compression_config"])
def test_where_the_settings_stand(file: str, tmp_path: Path) -> None:
    awq = file == "quant_config.json"
    path = quantised(
        tmp_path, writers.awq(32) if awq else writers.compressed() if "comp" in file else writers.gptq(4, 32)
    )
    settings = json.loads((path / "coded" / "config.json").read_text())["quantization_config"]
    method = settings.pop("quant_method")
    change_config(path / "coded", quantization_config=None)
    if file == "compression_config":
        change_config(path / "coded", compression_config=settings | {"quant_method": method})
    elif file != "tensors":
        (path / "coded" / file).write_text(json.dumps(settings))
    assert torch.equal(logits(path / "coded", None, None if "comp" in file else method), logits(path / "plain", None))


@pytest.mark.parametrize(
    ("quantize", "words"),
    [("int4", ["int4", "gptq"]), ("awq", ["awq", "gptq"]), ("bitsandbytes-nf4", ["bitsandbytes-nf4", "gptq"])],
)
def test_a_flag_that_contradicts_the_checkpoint(quantize: str, words: list[str], tmp_path: Path) -> None:
    path = quantised(tmp_path, writers.gptq())
    with pytest.raises(ModelError) as caught:
        load_model(path / "coded", None, select(torch.device("cpu"), torch.float32), quantize=quantize)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(ModelError, match="not quantised"):
        load_model(path / "plain", None, select(torch.device("cpu"), torch.float32), quantize="gptq")


def without(name: str) -> Any:
    return lambda written: written.tensors.pop(name)


def settings(**values: Any) -> Any:
    return lambda written: written.settings.update(values)


def reshaped(name: str, *shape: int) -> Any:
    def change(written: Written) -> None:
        written.tensors[name] = torch.zeros(shape, dtype=written.tensors[name].dtype)

    return change


def filled(name: str, value: int) -> Any:
    return lambda written: written.tensors[name].fill_(value)


DAMAGED: dict[str, tuple[Writer, Any, str]] = {
    "no scales": (writers.gptq(), without("scales"), "scales is missing"),
    "no zero points": (writers.awq(), without("qzeros"), "qzeros is missing"),
    "no codes": (writers.gptq(), without("qweight"), "qweight is missing"),
    "another group size": (writers.gptq(4, 32), settings(group_size=64), "groups of 64"),
    "other bits": (writers.gptq(4, 32), settings(bits=3), "not the 3"),
    "bits nobody has": (writers.gptq(4, 32), settings(bits=5), "`bits` = 5"),
    "a format nobody knows": (writers.gptq(4, 32), settings(checkpoint_format="x"), "checkpoint_format"),
    "groups out of range": (writers.gptq(4, 32), filled("g_idx", 99), "g_idx"),
    "unequal groups": (writers.gptq(4, 32), filled("g_idx", 1), "g_idx"),
    "other rows": (writers.gptq(4, 32), reshaped("scales", 12, 64), "shape"),
    "short zero points": (writers.gptq(4, 32), reshaped("qzeros", 12, 2), "shape"),
    "awq of another group": (writers.awq(32), settings(group_size=128), "groups of 128"),
    "awq of 8 bits": (writers.awq(32), settings(bits=8), "AWQ with 8 bits"),
    "awq fast": (writers.awq(32), settings(version="gemv_fast"), "gemv_fast"),
    "no absmax": (writers.four_bits(), without("weight.absmax"), "absmax"),
    "no book": (writers.four_bits(), without("weight.quant_map"), "quant_map"),
    "no state": (writers.four_bits(), without("weight.quant_state.bitsandbytes__nf4"), "without their scales"),
    "state of nothing": (writers.four_bits(), reshaped("weight.quant_state.bitsandbytes__nf4", 9), "no JSON object"),
    "long state": (writers.four_bits(), reshaped("weight.quant_state.bitsandbytes__nf4", 1 << 17), "no quant_state"),
    "short codes": (writers.four_bits(), reshaped("weight", 99, 1), "shape"),
    "no nested": (writers.four_bits(nested=True), without("weight.nested_absmax"), "nested_absmax"),
    "no SCB": (writers.eight_bits, without("SCB"), "without their scales"),
    "fp8 without scales": (writers.floats(), without("weight_scale"), "weight_scale is missing"),
    "fp8 of other blocks": (writers.floats("block"), settings(weight_block_size=[64, 64]), "blocks of 64 x 64"),
    "fp8 of no blocks": (writers.floats("block"), settings(weight_block_size="x"), "no pair"),
    "packed without scales": (writers.compressed(), without("weight_scale"), "weight_scale is missing"),
    "sparse": (writers.compressed(), settings(format="marlin-24"), "marlin-24"),
    "groups that are none": (writers.compressed(), settings(config_groups=["x"]), "config_groups"),
    "another shape": (writers.compressed(), filled("weight_shape", 3), "the model needs"),
    "no scales of blocks": (writers.microscaling(), without("_scales"), "_scales"),
    "hqq of axis 0": (writers.hqq(), filled("axis", 0), "axis"),
    "hqq without bits": (writers.hqq(), without("nbits"), "nbits"),
    "hqq of no bits": (writers.hqq(), reshaped("nbits", 0), "nbits"),
    "nvfp4 of no scale": (writers.microscaling("ct-nvfp4"), reshaped("weight_global_scale", 0), "no single number"),
    "torchao without scales": (writers.torchao_int8(), without("_weight_scale"), "_weight_scale is missing"),
    "torchao of other groups": (writers.torchao_int8(64, zeros=True), reshaped("_weight_zero_point", 192, 1), "groups"),
    "torchao of no groups": (writers.torchao_int8(64), reshaped("_weight_scale", 192, 7), "no blocks"),
    "torchao int4 of no groups": (writers.torchao_int4(), reshaped("_weight_scale", 7, 192), "shape"),
    "torchao in tiles": (writers.torchao_int4(), reshaped("_weight_qdata", 2, 2, 32, 4), "no plain layout"),
    "torchao of scaled inputs": (
        writers.torchao_int4(),
        lambda written: written.tensors.update({"_weight_act_pre_scale": torch.ones(1)}),
        "scales of its inputs",
    ),
    "nobody's": (writers.gptq(), settings(quant_method="exl9"), "exl9"),
    "no name": (writers.gptq(), settings(quant_method=7), "quant_method"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_said_in_a_sentence(name: str) -> None:
    writer, damage, words = DAMAGED[name]
    written = writer(ROWS, COLUMNS, rng())
    damage(written)
    tensors = named("m", written.tensors)

    class Strict(Source):
        def shape(self, name: str) -> tuple[int, ...]:
            if name not in self.tensors:
                raise ModelError(f"Tensor {name} is missing from the checkpoint")
            return super().shape(name)

        def dtype(self, name: str) -> torch.dtype:
            self.shape(name)
            return super().dtype(name)

    with pytest.raises(ModelError, match=words) as caught:
        matrix(Weight(("m",), (ROWS,), COLUMNS), Strict(tensors), written.settings)
    assert "\n" not in str(caught.value)
