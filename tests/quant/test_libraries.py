"""Readers of stored formats against the libraries that write them, where these are installed: bit for bit.

`pip install --no-deps bitsandbytes compressed-tensors loguru torchao` is enough. Formats of libraries that do not
install without a GPU have the writers of `tests.quant.writers`, which every format has.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tests.quant.test_formats import Source, matrix
from tgi.kernels.weight import Weight

ROWS, COLUMNS = 64, 256


def drawn(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Fresh weights [ROWS, COLUMNS], a few of them large."""
    generator = torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 32))
    weight = torch.randn((ROWS, COLUMNS), generator=generator) * 0.03
    weight[:, 5] *= 12
    return weight.to(dtype)


def as_read(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> torch.Tensor:
    """What the reader makes of module m, [ROWS, COLUMNS] float32."""
    return matrix(Weight(("m",), (ROWS,), COLUMNS), Source(tensors), settings)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_of_bitsandbytes(kind: str, nested: bool) -> None:
    """What a layer of the library's saves; it dequantises to float32 as it does to any other dtype."""
    library = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from bitsandbytes import functional

    made = library.nn.Params4bit(drawn(), requires_grad=False, quant_type=kind, compress_statistics=nested)
    layer = library.nn.Linear4bit(COLUMNS, ROWS, bias=False, quant_type=kind)
    layer.weight = made.to("cpu") if made.bnb_quantized else made._quantize(torch.device("cpu"))
    tensors = {f"m.{name}": value for name, value in layer.state_dict().items()}
    assert any("quant_state" in name for name in tensors)
    wanted = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    torch.testing.assert_close(as_read(tensors, settings), wanted, rtol=2e-7, atol=0)


def test_eight_bits_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    codes, scb, _ = functional.int8_vectorwise_quant(drawn(torch.float16))
    tensors = {"m.weight": codes, "m.SCB": scb, "m.weight_format": torch.tensor(0, dtype=torch.uint8)}
    wanted = functional.int8_vectorwise_dequant(codes, scb)
    found = as_read(tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True})
    torch.testing.assert_close(found, wanted, rtol=2e-7, atol=0)  # it multiplies by 1/127, not divides by 127


INTEGERS = {"type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "packed 4": ("pack-quantized", INTEGERS | {"num_bits": 4}),
    "packed 4 zeros": ("pack-quantized", INTEGERS | {"num_bits": 4, "symmetric": False}),
    "packed 3": ("pack-quantized", INTEGERS | {"num_bits": 3}),
    "packed 8 by row": ("pack-quantized", {"type": "int", "strategy": "channel", "symmetric": True, "num_bits": 8}),
    "int8": ("int-quantized", {"type": "int", "strategy": "channel", "symmetric": True, "num_bits": 8}),
    "fp8": ("float-quantized", {"type": "float", "strategy": "channel", "symmetric": True, "num_bits": 8}),
    "fp8 tensor": ("float-quantized", {"type": "float", "strategy": "tensor", "symmetric": True, "num_bits": 8}),
    "fp8 block": (
        "float-quantized",
        {"type": "float", "strategy": "block", "block_structure": [128, 128], "symmetric": True, "num_bits": 8},
    ),
    "nvfp4": (
        "nvfp4-pack-quantized",
        {"type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True, "num_bits": 4},
    ),
    "mxfp4": (
        "mxfp4-pack-quantized",
        {"type": "float", "strategy": "group", "group_size": 32, "symmetric": True, "num_bits": 4}
        | {"scale_dtype": torch.uint8},
    ),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_compressed_tensors(name: str) -> None:
    """What its compressors store, and what they make of that again."""
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    format, settings = SCHEMES[name]
    arguments = QuantizationArgs(**settings)
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments, format=format)
    compressor = BaseCompressor.get_value_from_registry(format)
    state = {"weight": drawn()} | scales(drawn(), settings)
    tensors = compressor.compress(state, scheme)
    wanted = compressor.decompress(tensors, scheme)["weight"].float()
    if name.endswith("fp4"):  # decompresses to bfloat16
        wanted = decompressed(tensors, arguments)
    config = {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments.model_dump(mode="json")}},
    }
    found = as_read({f"m.{end}": tensor for end, tensor in tensors.items()}, config)
    assert torch.equal(found, wanted)


def decompressed(tensors: dict[str, torch.Tensor], arguments: Any) -> torch.Tensor:
    """4-bit floats, with the library's functions in float32."""
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    values = unpack_fp4_from_uint8(tensors["weight_packed"], ROWS, COLUMNS, dtype=torch.float32)
    stored, whole = tensors["weight_scale"], tensors.get("weight_global_scale")
    scale = stored.float() if whole is not None else torch.exp2(stored.float() - 127)
    return dequantize(values, scale, args=arguments, global_scale=whole, dtype=torch.float32)


def scales(weight: torch.Tensor, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Scales and, where asked for, zero points that a calibration would have given."""
    strategy, bits = settings["strategy"], settings["num_bits"]
    shape = {"tensor": (1, ROWS, 1, COLUMNS), "channel": (ROWS, 1, 1, COLUMNS), "block": (1, ROWS, 2, 128)}.get(
        strategy, (ROWS, 1, COLUMNS // settings.get("group_size", COLUMNS), settings.get("group_size", COLUMNS))
    )
    peaks = weight.abs().view(shape).amax((1, 3))
    if settings["type"] == "int":
        found = {"weight_scale": peaks / ((1 << (bits - 1)) - 0.5)}
        points = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), peaks.shape, dtype=torch.int8)
        return found | {"weight_zero_point": points if not settings["symmetric"] else torch.zeros_like(points)}
    if strategy == "tensor_group":
        whole = 448 * 6 / peaks.max()
        stored = (peaks / 6 * whole).to(torch.float8_e4m3fn).float()
        return {"weight_scale": stored, "weight_global_scale": whole.view(1)}
    if bits == 4:
        return {"weight_scale": torch.exp2((peaks / 6).log2().ceil())}
    return {"weight_scale": peaks.view(-1)[:1] if strategy == "tensor" else peaks / 448}


def torchao_configs() -> dict[str, Any]:
    """Its settings that save in a plain layout on a CPU."""
    from torchao import quantization as ao
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow

    return {
        "int8 by row": ao.Int8WeightOnlyConfig(version=2),
        "int8 groups": ao.IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerGroup(32), version=2),
        "int4 in bytes": ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(64), version=2),
        "int5 by row": ao.IntxWeightOnlyConfig(weight_dtype=torch.int5, granularity=PerAxis(0), version=2),
        "float8": ao.Float8WeightOnlyConfig(version=2),
        "float8 activations": ao.Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), version=2),
    }


@pytest.mark.parametrize(
    "name", ["int8 by row", "int8 groups", "int4 in bytes", "int5 by row", "float8", "float8 activations"]
)
def test_torchao(name: str) -> None:
    """What `quantize_` makes of a layer, flattened as it is saved in safetensors files."""
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quantize_

    layer = torch.nn.Sequential()
    layer.add_module("m", torch.nn.Linear(COLUMNS, ROWS, bias=False))
    layer.m.weight.data = drawn()
    try:
        quantize_(layer, torchao_configs()[name])
    except (AssertionError, NotImplementedError, RuntimeError, ImportError) as error:
        pytest.skip(f"this machine cannot make it: {str(error).splitlines()[0]}")
    wanted = layer.m.weight.dequantize().detach().float()
    tensors, _ = flatten_tensor_state_dict(layer.state_dict())
    assert "m._weight_qdata" in tensors
    found = as_read(tensors, {"quant_method": "torchao", "quant_type": {"default": {}}})
    assert torch.equal(found, wanted)
