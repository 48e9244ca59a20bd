"""AWQ: 4-bit codes with scales and zero points of groups (Lin et al. 2023, layouts of AutoAWQ).

Tensors of a module with K columns and N rows. GEMM: qweight [K, N / 8] int32, qzeros [groups, N / 8] int32, scales
[groups, N], eight rows to a word in an order of their own. GEMV: qweight [N, K / 8], qzeros [N, words], scales [N,
8 words] in plain order, padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.bits import unpack
from tgi.quant.formats.modules import ByModule, Part, check_dims, group_of, read, whole_tensors

NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a word holds each of its eight rows."""
PER_WORD = 8
GEMM, GEMV = ("gemm", "exllama", "ipex"), ("gemv",)


class Awq(ByModule):
    """See `StoredFormat`."""

    name = "awq"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        bits = settings.get("bits", settings.get("w_bit", 4))
        if bits != 4:
            raise ModelError(f"AWQ with {bits!r} bits is not supported: 4 are")
        self._group = settings.get("group_size", settings.get("q_group_size"))
        version = str(settings.get("version", "gemm")).lower()
        if version not in GEMM + GEMV:
            known = ", ".join(GEMM + GEMV)
            raise ModelError(
                f"AWQ with `version` = {version!r} is not supported: {known} are, as most checkpoints have it"
            )
        self._by_row = version in GEMV

    def stores(self, source: WeightSource, module: str) -> bool:
        return whole_tensors(source, module, ("qweight", "qzeros", "scales"), self.name)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        return self._gemv(source, part) if self._by_row else self._gemm(source, part)

    def _gemm(self, source: WeightSource, part: Part) -> CodedWeight:
        name, words = part.module, -(-part.rows // PER_WORD)
        check_dims(source, f"{name}.qweight", (part.columns, words), "AWQ")
        groups, _ = check_dims(source, f"{name}.scales", (None, part.rows), "AWQ")
        group = group_of(f"{name}.scales", part.columns, groups, self._group, "AWQ")
        check_dims(source, f"{name}.qzeros", (groups, words), "AWQ")
        first, last = part.begin // PER_WORD, -(-part.end // PER_WORD)
        cut = slice(part.begin - first * PER_WORD, part.end - first * PER_WORD)

        def rows(tensor: str) -> torch.Tensor:
            packed = read(source, f"{name}.{tensor}", torch.int32, (slice(None), slice(first, last)))
            eight = unpack(packed, 4, PER_WORD * packed.shape[1]).unflatten(1, (-1, PER_WORD))[..., NIBBLES]
            return eight.flatten(1)[:, cut].t().contiguous()

        scales = read(source, f"{name}.scales", torch.float32, (slice(None), part.span)).t().contiguous()
        return CodedWeight(rows("qweight"), scales, group, rows("qzeros"))

    def _gemv(self, source: WeightSource, part: Part) -> CodedWeight:
        name = part.module
        check_dims(source, f"{name}.qweight", (part.rows, -(-part.columns // PER_WORD)), "AWQ (GEMV)")
        _, words = check_dims(source, f"{name}.qzeros", (part.rows, None), "AWQ (GEMV)")
        check_dims(source, f"{name}.scales", (part.rows, words * PER_WORD), "AWQ (GEMV)")
        if not isinstance(self._group, int):
            raise ModelError("AWQ in the GEMV layout needs `group_size` in the checkpoint's settings")
        group = part.columns if self._group <= 0 else min(self._group, part.columns)
        groups = -(-part.columns // group)
        if groups > words * PER_WORD:
            raise ModelError(
                f"Tensor {name}.scales has room for {words * PER_WORD} groups, the settings of AWQ say {groups}"
            )
        codes = unpack(read(source, f"{name}.qweight", torch.int32, (part.span,)), 4, part.columns)
        zeros = unpack(read(source, f"{name}.qzeros", torch.int32, (part.span,)), 4, groups)
        scales = read(source, f"{name}.scales", torch.float32, (part.span, slice(0, groups)))
        return CodedWeight(codes, scales, group, zeros)
