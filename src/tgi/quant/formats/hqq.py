"""HQQ: codes of 1, 2, 4 or 8 bits with float zero points, groups along the rows (Badri and Shaji 2023; axis 1).

Tensors of a module, as the library serialises it: W_q, scale and zero [N K / group, 1], and one number each for nbits,
group_size, axis and more. A matrix is cut into rows of a group each; a byte holds the codes of rows that lie an
equal part of all rows apart, the first in the upper bits.
"""

from __future__ import annotations

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.modules import ByModule, Part, check_dims, read, read_number, whole_tensors

BITS = (1, 2, 4, 8)
FACTS = (
    *("axis", "channel_wise", "compute_dtype", "device", "encoded_state_dict", "group_size", "nbits", "offload_meta"),
    *("optimize", "packing", "quant_scale", "quant_zero", "round_zero", "shape", "stores_quant_config"),
    *("unpack_view_dtype", "view_as_float"),
)


class Hqq(ByModule):
    """See `StoredFormat`."""

    name = "hqq"
    ignored: tuple[str, ...] = (rf".*\.({'|'.join(FACTS)})",)

    def stores(self, source: WeightSource, module: str) -> bool:
        return whole_tensors(source, module, ("W_q", "scale", "zero"), self.name)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        name = part.module
        bits, group = self._fact(source, name, "nbits"), self._fact(source, name, "group_size")
        if bits not in BITS or self._fact(source, name, "axis") != 1:
            raise ModelError(
                f"Module {name} is stored as HQQ of {bits} bits or along axis 0: only 1, 2, 4, 8 along axis 1 are read"
            )
        if group < 1 or part.columns % group:
            raise ModelError(f"Module {name} has groups of {group}, which do not divide its {part.columns} columns")
        per_row, per_byte = part.columns // group, 8 // bits
        count = part.rows * per_row
        check_dims(source, f"{name}.W_q", (-(-count // per_byte), group), "HQQ")
        check_dims(source, f"{name}.scale", (count, 1), "HQQ")
        check_dims(source, f"{name}.zero", (count, 1), "HQQ")
        step = -(-count // per_byte)
        rows = torch.arange(part.begin * per_row, part.end * per_row)
        packed = read(source, f"{name}.W_q", torch.uint8)[rows % step]
        shift = (8 - bits * (1 + rows // step)).to(torch.uint8).unsqueeze(1)
        codes = (packed >> shift) & ((1 << bits) - 1)
        size, span = part.end - part.begin, (slice(part.begin * per_row, part.end * per_row),)
        scales = read(source, f"{name}.scale", torch.float32, span).view(size, per_row)
        zeros = read(source, f"{name}.zero", torch.float32, span).view(size, per_row)
        return CodedWeight(codes.view(size, part.columns), scales, group, zeros)

    @staticmethod
    def _fact(source: WeightSource, module: str, fact: str) -> int:
        return int(read_number(source, f"{module}.{fact}", torch.int64, "HQQ"))
