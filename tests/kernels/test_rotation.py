"""Rotated layers: the transform against its formula, native layers against float64, slices of coded weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.kernels.native_levels import libraries, open_level
from tests.kernels.test_native_linear import expected, make, relative_error
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS
from tgi.kernels.native.library import Arena, Library, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.reference.ops import round_activations
from tgi.kernels.rotation import block_lengths, rotate
from tgi.quant.rounding import round_to_codes

TOLERANCE = 3e-6
WIDTHS = [128, 576, 300, 129, 100, 17, 1]


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


def transform(columns: int) -> torch.Tensor:
    """[columns, columns] in float64: entry i, j of a block is (-1)^(bits that i and j share) / sqrt(length)."""
    blocks = []
    for length in [128] * (columns // 128) + [1 << bit for bit in range(6, -1, -1) if columns % 128 >> bit & 1]:
        signs = [[(-1.0) ** (i & j).bit_count() for j in range(length)] for i in range(length)]
        blocks.append(torch.tensor(signs, dtype=torch.float64) / length**0.5)
    return torch.block_diag(*blocks)


@pytest.mark.parametrize("columns", WIDTHS)
def test_rotation_is_the_formula_and_its_own_inverse(columns: int) -> None:
    rows = torch.randn((5, columns))
    assert sum(block_lengths(columns)) == columns
    torch.testing.assert_close(rotate(rows), (rows.double() @ transform(columns)).float())
    torch.testing.assert_close(rotate(rotate(rows)), rows)


@pytest.mark.parametrize("name", CODE_FORMATS)
@pytest.mark.parametrize("columns", WIDTHS)
def test_packing_rotates_first(library: Library, name: str, columns: int) -> None:
    """A table gives back what the codes of the rotated matrix say, but where two scales are as good as each other."""
    weight = torch.randn((33, columns))
    turned = (weight.double() @ transform(columns)).float()
    found = make(library, name, weight, rotated=True).rows(torch.arange(33))
    wanted = make(library, name, turned).rows(torch.arange(33)).double() @ transform(columns)
    coded = round_to_codes(weight, replace(CODE_FORMATS[name], rotated=True)).dequantise()
    for one in (found, coded):
        assert ((one - wanted).abs() < 1e-4).float().mean() > 0.85


@pytest.mark.parametrize("name", CODE_FORMATS)
@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize("columns", WIDTHS)
def test_rotated_layers_agree_with_the_formula(library: Library, name: str, activations: str, columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    weight = torch.randn((43, columns), generator=generator)
    layer = make(library, name, weight, activations=activations, rotated=True)
    for rows in (1, 2, 3, 5, 8, 16, 17, 40):
        x = torch.randn((rows, columns), generator=generator)
        if activations == "int8":
            # An activation may lie so near the middle of two codes that float64 rounds it to the other one.
            differ = (layer(x) - expected(layer, x)).abs().amax(1) > TOLERANCE * expected(layer, x).abs().max()
            assert differ.float().mean() <= 0.2 and relative_error(layer(x), expected(layer, x)) < 0.01, rows
        else:
            assert relative_error(layer(x), expected(layer, x)) < TOLERANCE, rows


@pytest.mark.parametrize("name", CODE_FORMATS)
def test_a_row_has_the_same_bits_in_any_batch_and_with_any_threads(library: Library, name: str) -> None:
    weight, x = torch.randn((560, 320)), torch.randn((70, 320))
    for activations in ("int8", "float32"):
        layers = [make(library, name, weight, threads, activations=activations, rotated=True) for threads in (1, 2, 3)]
        whole = layers[0](x)
        for layer in layers:
            for rows in (1, 2, 3, 5, 8, 11, 16, 23, 70):
                assert torch.equal(torch.cat([layer(part) for part in x.split(rows)]), whole), rows


def test_large_channels_do_not_spoil_rotated_int8(library: Library) -> None:
    """Three channels a hundred times as large as the others: rounding costs a tenth of what it does unrotated."""
    weight, x = torch.randn((64, 512)), torch.randn((32, 512))
    x[:, [3, 200, 430]] *= 100
    weight[:, [3, 200, 430]] /= 30
    wanted = x.double() @ weight.double().T
    plain, rotated = (make(library, "int8", weight, rotated=rotated)(x) - wanted for rotated in (False, True))
    assert rotated.square().sum() < 0.1 * plain.square().sum()


def test_a_row_that_is_not_finite_stays_alone(library: Library) -> None:
    for activations in ("int8", "float32"):
        layer = make(library, "iq4_nl", torch.randn((32, 200)), activations=activations, rotated=True)
        x = torch.randn((6, 200))
        clean = layer(x)
        x[2, 9] = torch.nan
        found = layer(x)
        assert not torch.isfinite(found[2]).any()
        assert torch.equal(found[[0, 1, 3, 4, 5]], clean[[0, 1, 3, 4, 5]])


def load(library: Library, coded: CodedWeight, name: str, columns: int) -> PackedLinear:
    layer = PackedLinear(Pool(library, 2), Arena(library), name, columns, len(coded.codes), rotated=coded.rotated)
    layer.pack_codes(coded.codes, coded.scales, coded.zeros)
    return layer


@pytest.mark.parametrize("name", CODE_FORMATS)
@pytest.mark.parametrize("columns", [256, 300, 576])
def test_codes_of_a_rotated_matrix_and_its_slices(library: Library, name: str, columns: int) -> None:
    """A slice of rows is that of the matrix; partial products of slices of columns add up to the whole product."""
    coded = round_to_codes(torch.randn((48, columns)), replace(CODE_FORMATS[name], rotated=True))
    whole, x = coded.dequantise(), torch.randn((4, columns))
    torch.testing.assert_close(load(library, coded, name, columns).rows(torch.arange(48)), whole, rtol=1e-5, atol=1e-5)
    part = load(library, coded.rows(16, 40), name, columns)
    torch.testing.assert_close(part.rows(torch.arange(24)), whole[16:40], rtol=1e-5, atol=1e-5)
    products = torch.zeros((4, 48))
    for begin in range(0, columns, 128):
        end = min(begin + 128, columns)
        cut = coded.columns(begin, end)
        torch.testing.assert_close(cut.dequantise(), whole[:, begin:end])
        products += load(library, cut, name, end - begin)(x[:, begin:end])
    torch.testing.assert_close(products, load(library, coded, name, columns)(x), rtol=1e-4, atol=1e-3)


def test_columns_are_cut_at_whole_blocks_only() -> None:
    coded = round_to_codes(torch.randn((16, 300)), replace(CODE_FORMATS["iq4_nl"], rotated=True))
    for begin, end in ((0, 64), (64, 300), (128, 200), (0, 299)):
        with pytest.raises(ValueError, match="whole groups and blocks"):
            coded.columns(begin, end)
    with pytest.raises(ValueError, match="another order"):
        replace(coded, order=torch.arange(300)).columns(0, 128)


@pytest.mark.parametrize("columns", [256, 100])
def test_the_reference_rounds_activations_in_rotated_form(columns: int) -> None:
    x, matrix = torch.randn((7, columns)), transform(columns)
    turned = x.double() @ matrix
    scale = torch.stack([part.abs().amax(1) for part in turned.split(128, 1)], 1) / 127
    scale = scale.repeat_interleave(128, 1)[:, :columns]
    wanted = ((turned / scale).round() * scale) @ matrix
    error = round_activations(x, 128, rotated=True) - wanted
    assert error.abs().mean() < 1e-3 * wanted.abs().mean()
