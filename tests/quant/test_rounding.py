"""Rounding on the fly: the definition in torch against the native kernels and a search by brute force."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.native_levels import libraries, open_level
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS
from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.quant.rounding import round_to_codes


def weights(rows: int, columns: int) -> torch.Tensor:
    """Normal numbers, a row of zeros, one with an outlier, one of the other sign, one that is tiny."""
    weight = torch.randn((rows, columns))
    weight[1] = 0
    weight[2, columns // 3] = 40
    weight[3] = weight[3].abs()
    weight[4] *= 1e-20
    return weight


@pytest.mark.parametrize("level", libraries())
@pytest.mark.parametrize("columns", [16, 100, 128, 300])
@pytest.mark.parametrize("name", CODE_FORMATS)
def test_native_packing_rounds_as_defined(level: str, name: str, columns: int) -> None:
    """The same weights to the last bit, but where two scales are as good as each other to float32's last bits."""
    library, weight = open_level(level), weights(480, columns)
    layer = PackedLinear(Pool(library, 2), Arena(library), name, columns, 480)
    layer.pack(weight)
    native = layer.rows(torch.arange(480))
    defined = round_to_codes(weight, CODE_FORMATS[name]).dequantise()
    same = (native == defined).float().mean().item()
    assert same > 0.97, f"{same:.1%} of the weights are equal"
    errors = [(one - weight).square().sum().item() for one in (native, defined)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert not native[1].any() and not defined[1].any()


@pytest.mark.parametrize("level", libraries())
@pytest.mark.parametrize("name", CODE_FORMATS)
def test_codes_pack_to_what_they_say(level: str, name: str) -> None:
    library, coded = open_level(level), round_to_codes(weights(40, 300), CODE_FORMATS[name])
    layer = PackedLinear(Pool(library, 2), Arena(library), name, 300, 40)
    layer.pack_codes(coded.codes, coded.scales)
    assert torch.equal(layer.rows(torch.arange(40)), coded.dequantise())


@pytest.mark.parametrize("name", CODE_FORMATS)
def test_no_plain_scale_is_better(name: str) -> None:
    format = CODE_FORMATS[name]
    weight = torch.randn((64, format.columns))
    values = torch.tensor(format.book or range(format.lowest, format.highest + 1))
    found = (round_to_codes(weight, format).dequantise() - weight).square().sum(1)
    peak = weight.abs().amax(1, keepdim=True)
    for share in torch.linspace(0.7, 1.0, 13):
        scale = share * peak / format.highest
        plain = values[((weight / scale).unsqueeze(-1) - values).abs().argmin(-1)] * scale
        worse = (plain - weight).square().sum(1) * 1.03 < found
        assert worse.float().mean() < 0.1


def test_every_part_of_a_coded_weight() -> None:
    """Zero points, minimums, a codebook and an order of columns, against a loop over elements."""
    rows, columns, group = 3, 10, 4
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    scales, zeros, mins = torch.rand(rows, 3), torch.randint(0, 16, (rows, 3)), torch.randn(rows, 3)
    codebook, order = torch.randn(16), torch.randperm(columns)
    for book in (None, codebook):
        for place in (None, order):
            for low in (None, mins):
                found = CodedWeight(codes, scales, group, zeros, low, book, place).dequantise()
                for r in range(rows):
                    for c in range(columns):
                        g, code = c // group, codes[r, c].item()
                        value = float(code) if book is None else book[code].item()
                        wanted = (value - zeros[r, g].item()) * scales[r, g].item()
                        wanted += 0.0 if low is None else low[r, g].item()
                        at = c if place is None else place[c].item()
                        assert found[r, at].item() == pytest.approx(wanted, rel=1e-5, abs=1e-5)
