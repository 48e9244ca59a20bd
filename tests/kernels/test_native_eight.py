"""Layers of 8-bit floats (e4m3) in native panels, against a float64 formula over what torch says they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels.native_levels import ROUNDING_LEVELS, libraries, open_level
from tests.kernels.test_native_linear import TOLERANCE, relative_error
from tests.kernels.test_native_loading import Stored
from tgi.kernels.coded import CodedWeight
from tgi.kernels.inputs import Inputs
from tgi.kernels.native.library import Arena, Library, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.loading import load_layer
from tgi.kernels.weight import Weight

ROWS = 43
BOOK = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
GROUPS = (1 << 20, 128, 32)
"""Columns that share a scale: all of a row, as in blocks of 128 x 128, the fewest."""


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


def make(columns: int, group: int) -> CodedWeight:
    generator = torch.Generator().manual_seed(columns + group)
    codes = torch.randint(0, 256, (ROWS, columns), generator=generator, dtype=torch.uint8)
    codes[(codes & 127) == 127] = 1  # no numbers
    codes[:, : columns // 2] &= 0x87  # and many that are smaller than all others
    scales = torch.rand((ROWS, -(-columns // group)), generator=generator)
    return CodedWeight(codes, scales, min(group, columns), codebook=BOOK)


def load(library: Library, coded: CodedWeight, dtype: torch.dtype = torch.bfloat16) -> PackedLinear:
    class Reader(Stored):
        keeps_codes = True

        def pieces(
            self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
        ) -> Iterator[tuple[int, CodedWeight]]:
            yield 0, self.coded.rows(0, 21)
            yield 21, self.coded.rows(21, ROWS)

    reader = Reader(coded, None)
    reader.dtype = dtype
    return load_layer(
        Pool(library, 2), Arena(library), Weight(("layers.0.mlp.up",), (ROWS,), coded.codes.shape[1]), reader
    )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("columns", [320, 100])
def test_layers_agree_with_the_formula(library: Library, columns: int, group: int) -> None:
    coded = make(columns, group)
    layer = load(library, coded)
    weight = coded.dequantise()
    assert layer.format == "e4m3"
    assert torch.equal(layer.rows(torch.arange(ROWS)), weight)
    for rows in (1, 2, 3, 5, 8, 9, 16, 17, 33, 64):
        x = torch.randn((rows, columns))
        used = x.bfloat16() if library.level in ROUNDING_LEVELS else x
        assert relative_error(layer(x), used.double() @ weight.double().T) < TOLERANCE, rows


def test_every_code_is_multiplied_as_torch_says(library: Library) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(2, 1)
    codes[(codes & 127) == 127] = 0
    layer = load(library, CodedWeight(codes.repeat(ROWS, 1)[:ROWS], torch.ones(ROWS, 1), 256, codebook=BOOK))
    for rows in (1, 16, 40):  # of the unit matrix: a product is one weight
        found = torch.cat([layer(part) for part in torch.eye(256).split(rows)])
        assert torch.equal(found.T, layer.rows(torch.arange(ROWS)))
        assert torch.equal(found[:, 0], BOOK[codes[0].int()])


@pytest.mark.parametrize("group", GROUPS)
def test_a_row_has_the_same_bits_alone_and_among_others(library: Library, group: int) -> None:
    layer = load(library, make(320, group))
    x = torch.randn((70, 320))
    together = layer(x)
    for rows in (slice(0, 1), slice(3, 8), slice(9, 25), slice(69, 70)):
        assert torch.equal(layer(x[rows]), together[rows])


def test_memory_is_what_codes_and_scales_take(library: Library) -> None:
    assert load(library, make(4096, 1 << 20)).bytes == 48 * (4096 + 4)
    assert load(library, make(4096, 128)).bytes == 48 * (4096 + 4 * 32)


def test_what_is_no_number_makes_a_layer_of_floats(library: Library) -> None:
    coded = make(64, 1 << 20)
    coded.codes[30, 3] = 255
    layer = load(library, coded)
    assert layer.format == "bfloat16"
    assert layer.rows(torch.arange(ROWS)).isnan().nonzero().tolist() == [[30, 3]]


def test_float32_is_served_in_float32(library: Library) -> None:
    coded = make(64, 1 << 20)
    assert load(library, coded, torch.float32).format == "float32"
