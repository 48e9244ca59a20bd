"""GPTQ: codes of 2, 3, 4 or 8 bits in words along the columns, scales and zero points of groups, act-order.

Tensors of a module with K columns and N rows: qweight [K bits / 32, N] int32, scales [groups, N], qzeros
[groups, N bits / 32] int32, g_idx [K]: the group of each column (Frantar et al. 2022; files of AutoGPTQ and GPTQModel).
In the first version zero points are stored less one. With the layout of Marlin see `marlin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats import marlin
from tgi.quant.formats.bits import WORD, unpack
from tgi.quant.formats.modules import ByModule, Part, check_dims, group_of, read, whole_tensors

BITS = (2, 3, 4, 8)


class Gptq(ByModule):
    """See `StoredFormat`."""

    name = "gptq"
    ignored: tuple[str, ...] = (r".*\.workspace",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._bits, self._group = settings.get("bits"), settings.get("group_size")
        if self._bits is not None and self._bits not in BITS:
            raise ModelError(f"GPTQ with `bits` = {self._bits!r} is not supported: 2, 3, 4 and 8 are")
        if any(map(_differs, [settings.get("dynamic"), settings.get("extra_config")])):
            self._bits = self._group = None  # modules of their own bits and groups: their shapes say which
        version = settings.get("checkpoint_format") or settings.get("format") or "gptq"
        self._marlin = version == "marlin" or bool(settings.get("is_marlin_format"))
        if version not in ("gptq", "gptq_v2", "marlin"):
            raise ModelError(f"GPTQ with `checkpoint_format` = {version!r} is not supported: gptq, gptq_v2, marlin are")
        self._subtracted = 0 if version == "gptq_v2" else 1
        """From stored zero points."""

    def stores(self, source: WeightSource, module: str) -> bool:
        if marlin.stores(source, module):
            return True
        return whole_tensors(source, module, ("qweight", "qzeros", "scales"), self.name)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        if marlin.stores(source, part.module):
            return marlin.read_rows(source, part, self._group)
        name = part.module
        words, _ = check_dims(source, f"{name}.qweight", (None, part.rows), "GPTQ")
        bits = self._bits_of(name, words, part.columns)
        groups, _ = check_dims(source, f"{name}.scales", (None, part.rows), "GPTQ")
        group = group_of(f"{name}.scales", part.columns, groups, self._group, "GPTQ")
        check_dims(source, f"{name}.qzeros", (groups, -(-part.rows * bits // WORD)), "GPTQ")
        every, span = slice(None), part.span
        packed = read(source, f"{name}.qweight", torch.int32, (every, span))
        codes = unpack(packed.t().contiguous(), bits, part.columns)
        scales = read(source, f"{name}.scales", torch.float32, (every, span)).t().contiguous()
        zeros = unpack(read(source, f"{name}.qzeros", torch.int32), bits, part.rows)[:, span].t()
        # Plus one within the bits, as AutoGPTQ does: a zero point of 0 was stored as the largest code.
        zeros = (zeros.int() + self._subtracted) & ((1 << bits) - 1)
        order = self._order(source, name, part.columns, group, groups)
        if order is not None:
            codes = codes[:, order]
        return CodedWeight(codes, scales, group, zeros, order=order)

    def _bits_of(self, name: str, words: int, columns: int) -> int:
        found = next((bits for bits in BITS if words == -(-columns * bits // WORD)), None)
        if found is None or (self._bits is not None and found != self._bits):
            said = "none of 2, 3, 4, 8" if self._bits is None else f"not the {self._bits} of the checkpoint's settings"
            raise ModelError(f"Tensor {name}.qweight has {words} words for {columns} columns: its bits are {said}")
        return found

    @staticmethod
    def _order(source: WeightSource, name: str, columns: int, group: int, groups: int) -> torch.Tensor | None:
        """Columns by their groups; None where they stand in that order anyway."""
        if not source.has(f"{name}.g_idx"):
            return None
        check_dims(source, f"{name}.g_idx", (columns,), "GPTQ")
        return column_order(f"{name}.g_idx", read(source, f"{name}.g_idx", torch.int64), group, groups)


def _differs(by_module: Any) -> bool:
    """Whether some modules have bits or groups of their own, as GPTQModel (`dynamic`) and AutoRound say it."""
    entries = by_module.values() if isinstance(by_module, dict) else ()
    return any(isinstance(entry, dict) and {"bits", "group_size"} & entry.keys() for entry in entries)


def column_order(name: str, of_column: torch.Tensor, group: int, groups: int) -> torch.Tensor | None:
    """of_column [columns]: the group of each -> the columns in the order of their groups; None: they stand in it.

    Raises ModelError where groups have other sizes than the checkpoint says.
    """
    columns = len(of_column)
    natural = torch.arange(columns) // group
    if torch.equal(of_column, natural):
        return None
    order = torch.argsort(of_column, stable=True)
    if not torch.equal(of_column[order], natural):
        raise ModelError(
            f"Tensor {name} does not give each of {groups} groups {group} columns: the checkpoint is damaged, or its "
            "group size is another"
        )
    return order
