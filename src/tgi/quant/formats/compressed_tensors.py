"""compressed-tensors: integers in words or bytes, fp8, mxfp4 and nvfp4, as llm-compressor writes them.

Tensors of a module with N rows and K columns: weight_packed [N, words] int32, a stream of codes or, by older versions,
as many whole ones as fit each word, and weight_shape; or weight of int8 or fp8; weight_scale [1], [N, 1], [N, groups]
or by blocks; weight_zero_point of the same shape, or packed along the rows; weight_g_idx [K]: the group of each column.
Packed codes and zero points are raised by half their range. Which bits a module has its shapes say, among those that
the settings name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats import fp8, microscaling
from tgi.quant.formats.bits import stream_words, unpack_either, whole_words
from tgi.quant.formats.gptq import column_order
from tgi.quant.formats.modules import ByModule, Part, check_dims, group_of, read
from tgi.untrusted import printable

UNSUPPORTED = ("marlin-24", "sparse-24-bitmask", "sparse-bitmask")


class CompressedTensors(ByModule):
    """See `StoredFormat`."""

    name = "compressed-tensors"
    ignored: tuple[str, ...] = (
        r".*\.(input|output)_(scale|zero_point|global_scale)",
        r".*\.[kvq]_(scale|zero_point)",
        r".*\.weight_shape",
    )

    def __init__(self, settings: Mapping[str, Any]) -> None:
        formats = [settings.get("format"), *(group.get("format") for group in _groups(settings))]
        bad = next((name for name in formats if name in UNSUPPORTED), None)
        sparsity = settings.get("sparsity_config")
        if isinstance(sparsity, dict) and sparsity.get("format") not in (None, "dense"):
            bad = sparsity.get("format")
        if bad is not None:
            raise ModelError(f"compressed-tensors with `format` = {printable(bad)} is not supported: dense formats are")
        weights = [group["weights"] for group in _groups(settings) if isinstance(group.get("weights"), dict)]
        self._weights = weights
        self._block = next((scheme["block_structure"] for scheme in weights if scheme.get("block_structure")), None)

    def stores(self, source: WeightSource, module: str) -> bool:
        if source.has(f"{module}.weight_packed"):
            return True
        if not source.has(f"{module}.weight"):
            return False
        coded = source.dtype(f"{module}.weight") in (torch.int8, *fp8.TYPES)
        return coded or source.has(f"{module}.weight_scale")

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        name = part.module
        if not source.has(f"{name}.weight_scale"):
            raise ModelError(
                f"Tensor {name}.weight_scale is missing from the checkpoint: its codes cannot be read without"
            )
        if not source.has(f"{name}.weight_packed"):
            dtype = source.dtype(f"{name}.weight")
            if dtype in fp8.TYPES:
                return self._fp8(source, part)
            if dtype != torch.int8:
                raise ModelError(f"Tensor {name}.weight is {dtype} beside a weight_scale: int8 and fp8 are supported")
            return self._integers(source, part)
        if source.dtype(f"{name}.weight_packed") == torch.uint8:
            return microscaling.read_compressed(source, part)
        return self._packed(source, part)

    def _fp8(self, source: WeightSource, part: Part) -> CodedWeight:
        block = self._block
        shape = source.shape(f"{part.module}.weight_scale")
        if block is None and len(shape) == 2 and shape[0] == part.rows and shape[1] > 1:  # by group
            group = group_of(f"{part.module}.weight_scale", part.columns, shape[1], None, self.name)
            block = (1, group)
        return fp8.read_rows(source, part, block)

    def _integers(self, source: WeightSource, part: Part) -> CodedWeight:
        name = part.module
        check_dims(source, f"{name}.weight", (part.rows, part.columns), self.name)
        codes = read(source, f"{name}.weight", torch.int8, (part.span,)).view(torch.uint8) ^ 128
        scales, group = self._scales(source, part, None)
        zeros = torch.full_like(scales, 128)
        if source.has(f"{name}.weight_zero_point"):
            zeros += self._per_group(source, f"{name}.weight_zero_point", part, torch.int32)
        return self._in_order(source, part, CodedWeight(codes, scales, group, zeros))

    def _packed(self, source: WeightSource, part: Part) -> CodedWeight:
        name = part.module
        if source.has(f"{name}.weight_shape"):
            stored = read(source, f"{name}.weight_shape", torch.int64).flatten().tolist()
            if stored != [part.rows, part.columns]:
                raise ModelError(f"{name} is stored as {stored}, the model needs {[part.rows, part.columns]}")
        _, words = check_dims(source, f"{name}.weight_packed", (part.rows, None), self.name)
        bits, said = self._scheme(name, words, part.columns)
        packed = read(source, f"{name}.weight_packed", torch.int32, (part.span,))
        codes = unpack_either(packed, bits, part.columns)
        scales, group = self._scales(source, part, said)
        half = 1 << (bits - 1)
        zeros = torch.full_like(scales, half)
        point = f"{name}.weight_zero_point"
        if source.has(point) and source.dtype(point) == torch.int32:
            in_stream = source.shape(point)[:1] == (stream_words(bits, part.rows),)
            words = (stream_words if in_stream else whole_words)(bits, part.rows)
            check_dims(source, point, (words, scales.shape[1]), self.name)
            columns = read(source, point, torch.int32).t().contiguous()  # codes of a word are of rows one after another
            zeros = unpack_either(columns, bits, part.rows).t()[part.span]
        elif source.has(point):
            zeros += self._per_group(source, point, part, torch.int32)
        return self._in_order(source, part, CodedWeight(codes, scales, group, zeros))

    def _scheme(self, name: str, words: int, columns: int) -> tuple[int, object]:
        """Bits and group size of a module with this many words: of the settings' groups the one that fits."""
        for needed in (stream_words, whole_words):
            for scheme in self._weights or [{"num_bits": bits} for bits in (4, 8)]:
                bits = scheme.get("num_bits")
                if isinstance(bits, int) and 2 <= bits <= 8 and words == needed(bits, columns):
                    return bits, scheme.get("group_size") if scheme.get("strategy") == "group" else None
        raise ModelError(
            f"Tensor {name}.weight_packed has {words} words for {columns} columns, which fits none of the bits that "
            "the checkpoint's settings name"
        )

    def _scales(self, source: WeightSource, part: Part, said: object) -> tuple[torch.Tensor, int]:
        name = f"{part.module}.weight_scale"
        shape = source.shape(name)
        groups = shape[1] if len(shape) == 2 and shape[0] == part.rows else 1
        group = group_of(name, part.columns, groups, said, self.name)
        return self._per_group(source, name, part, torch.float32).contiguous(), group

    @staticmethod
    def _per_group(source: WeightSource, name: str, part: Part, dtype: torch.dtype) -> torch.Tensor:
        """[rows of the part, groups] of what is there once, by row, or by row and group."""
        shape, rows = source.shape(name), part.end - part.begin
        if math.prod(shape) == 1:
            return read(source, name, dtype).view(1, 1).expand(rows, 1)
        if len(shape) not in (1, 2) or shape[0] != part.rows:
            raise ModelError(f"Tensor {name} has shape {list(shape)}, which has no number for each of {part.rows} rows")
        return read(source, name, dtype, (part.span,)).view(rows, -1)

    def _in_order(self, source: WeightSource, part: Part, coded: CodedWeight) -> CodedWeight:
        name = f"{part.module}.weight_g_idx"
        if not source.has(name):
            return coded
        check_dims(source, name, (part.columns,), self.name)
        of_column = read(source, name, torch.int64)
        if bool((of_column < 0).any()):  # written where no order was used
            return coded
        order = column_order(name, of_column, coded.group, coded.scales.shape[1])
        if order is None:
            return coded
        return CodedWeight(coded.codes[:, order], coded.scales, coded.group, coded.zeros, order=order)


def _groups(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = settings.get("config_groups")
    if groups is None:
        return
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise ModelError("`config_groups` of the compressed-tensors settings is not an object of objects")
    yield from groups.values()
