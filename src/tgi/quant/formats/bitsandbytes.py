"""bitsandbytes: nf4 and fp4 in blocks of the flattened matrix, and int8 by row, as its layers are serialised.

4 bits: weight [n / 2, 1] bytes, the first code in the upper half, weight.absmax (float32, or 8 bits that name values of
weight.nested_quant_map times weight.nested_absmax, plus an offset), weight.quant_map, and weight.quant_state.
bitsandbytes__nf4 or __fp4, which is JSON as bytes (Dettmers et al. 2023). 8 bits: weight int8, SCB: 127 times the
scales (Dettmers et al. 2022); outlier columns are chosen at run time and not stored.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.bits import nibbles
from tgi.quant.formats.modules import ByModule, Part, check_dims, read
from tgi.untrusted import printable

KINDS = ("nf4", "fp4")
LONGEST_STATE = 1 << 16
"""Bytes of a quant_state: it has a dozen short entries."""


class BitsAndBytes(ByModule):
    """See `StoredFormat`."""

    name = "bitsandbytes"
    ignored: tuple[str, ...] = (r".*\.weight_format",)

    def stores(self, source: WeightSource, module: str) -> bool:
        if not source.has(f"{module}.weight"):
            return False
        return _kind(source, module) is not None or source.has(f"{module}.SCB") or self._is_codes(source, module)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        kind = _kind(source, part.module)
        if kind is not None:
            return _read_four_bits(source, part, kind)
        if not source.has(f"{part.module}.SCB"):
            raise ModelError(
                f"Module {part.module} holds bitsandbytes codes without their scales ({part.module}.SCB or its "
                "quant_state): fetch the checkpoint again"
            )
        check_dims(source, f"{part.module}.weight", (part.rows, part.columns), "bitsandbytes int8")
        check_dims(source, f"{part.module}.SCB", (part.rows,), "bitsandbytes int8")
        codes = read(source, f"{part.module}.weight", torch.int8, (part.span,)).view(torch.uint8) ^ 128
        scales = read(source, f"{part.module}.SCB", torch.float32, (part.span,)).unsqueeze(1) / 127
        return CodedWeight(codes, scales, part.columns, torch.full_like(scales, 128))

    @staticmethod
    def _is_codes(source: WeightSource, module: str) -> bool:
        return not source.dtype(f"{module}.weight").is_floating_point


def _kind(source: WeightSource, module: str) -> str | None:
    return next((kind for kind in KINDS if source.has(f"{module}.weight.quant_state.bitsandbytes__{kind}")), None)


def _read_four_bits(source: WeightSource, part: Part, kind: str) -> CodedWeight:
    name, count = f"{part.module}.weight", part.rows * part.columns
    state = _state(source, f"{name}.quant_state.bitsandbytes__{kind}")
    block = _positive(state, "blocksize", name)
    if state.get("shape") not in (None, [part.rows, part.columns]):
        raise ModelError(
            f"{name} is stored as {printable(state['shape'])}, the model needs {[part.rows, part.columns]}"
        )
    group = math.gcd(part.columns, block)
    if part.columns % 2 or group < 2:
        raise ModelError(
            f"{name} has {part.columns} columns, which 4-bit codes in blocks of {block} cannot be cut into"
        )
    dtype = source.dtype(name)  # of storage that means nothing: bytes, or floats made of them
    if math.prod(source.shape(name)) * dtype.itemsize != -(-count // 2):
        raise ModelError(f"Tensor {name} has shape {list(source.shape(name))} for {count} codes of 4 bits")
    width = part.columns // 2
    unit = dtype.itemsize
    first, last = part.begin * width // unit, -(-part.end * width // unit)
    index = (slice(first, last),) if len(source.shape(name)) else ()
    raw = read(source, name, dtype, index).flatten().view(torch.uint8)[part.begin * width - first * unit :]
    codes = nibbles(raw[: (part.end - part.begin) * width].view(-1, width), high_first=True)
    scales = _absmax(source, name, state, -(-count // block))
    of_group = torch.arange(part.begin * part.columns // group, part.end * part.columns // group) * group // block
    book = read(source, f"{name}.quant_map", torch.float32) if source.has(f"{name}.quant_map") else None
    if book is None or book.shape != (16,):
        raise ModelError(f"Tensor {name}.quant_map with the 16 values of {kind} is missing: fetch the checkpoint again")
    return CodedWeight(codes, scales[of_group].view(part.end - part.begin, -1), group, codebook=book)


def _absmax(source: WeightSource, name: str, state: dict[str, Any], blocks: int) -> torch.Tensor:
    """The scale of each block."""
    check_dims(source, f"{name}.absmax", (blocks,), "bitsandbytes")
    if source.dtype(f"{name}.absmax").is_floating_point:
        return read(source, f"{name}.absmax", torch.float32)
    block = _positive(state, "nested_blocksize", name)
    check_dims(source, f"{name}.nested_absmax", (-(-blocks // block),), "bitsandbytes with nested scales")
    check_dims(source, f"{name}.nested_quant_map", (256,), "bitsandbytes with nested scales")
    codes = read(source, f"{name}.absmax", torch.uint8).long()
    outer = read(source, f"{name}.nested_absmax", torch.float32).repeat_interleave(block)[:blocks]
    offset = state.get("nested_offset", 0.0)
    if not isinstance(offset, int | float) or not math.isfinite(offset):
        raise ModelError(f"{name}: `nested_offset` of its quant_state is no number")
    return read(source, f"{name}.nested_quant_map", torch.float32)[codes] * outer + offset


def _state(source: WeightSource, name: str) -> dict[str, Any]:
    shape = source.shape(name)
    if len(shape) != 1 or shape[0] > LONGEST_STATE:
        raise ModelError(f"Tensor {name} has shape {list(shape)}, which is no quant_state")
    try:
        state = json.loads(bytes(read(source, name, torch.uint8).tolist()))
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise ModelError(f"Tensor {name} holds no JSON object: fetch the checkpoint again")
    return state


def _positive(state: dict[str, Any], key: str, name: str) -> int:
    value = state.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 20:
        raise ModelError(f"{name}: `{key}` of its quant_state is {printable(value)}, not a number of weights")
    return value
