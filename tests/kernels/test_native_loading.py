"""Codes of a stored format in native layers: kept exactly, or refused by name; nothing of them is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.native.library import Arena, Pool, load
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.loading import load_layer
from tgi.kernels.weight import Vector, Weight
from tgi.quant.rounding import round_to_codes

ROWS, COLUMNS = 40, 256
BOOK = torch.linspace(-1, 1, 16)
WEIGHT = Weight(("layers.0.mlp.up",), (ROWS,), COLUMNS)


class Stored:
    """A `WeightReader` of one coded matrix, in two pieces."""

    dtype, activations, calibration, keeps_codes = torch.bfloat16, "int8", (), False

    def __init__(self, coded: CodedWeight, format: CodeFormat | None) -> None:
        self.coded, self.format = coded, format

    def format_of(self, weight: Weight) -> CodeFormat | None:
        return self.format

    def pieces(
        self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
    ) -> Iterator[tuple[int, CodedWeight]]:
        yield 0, self.coded.rows(0, 24)
        yield 24, self.coded.rows(24, ROWS)

    def bias(self, weight: Weight) -> None:
        return None

    def vector(self, vector: Vector) -> torch.Tensor:
        raise NotImplementedError


def packed(coded: CodedWeight, format: CodeFormat | None) -> PackedLinear:
    library = load()
    return load_layer(Pool(library, 1), Arena(library), WEIGHT, Stored(coded, format))


def coded(name: str, group: int = 128, *, zeros: bool = True) -> CodedWeight:
    format = CODE_FORMATS[name]
    groups = COLUMNS // group
    codes = torch.randint(0, 1 << format.bits, (ROWS, COLUMNS), dtype=torch.uint8)
    points = torch.randint(0, 1 << format.bits, (ROWS, groups)) if zeros else torch.full((ROWS, groups), format.zero)
    return CodedWeight(codes, torch.rand((ROWS, groups)).half().float(), group, points)


@pytest.mark.parametrize("name", ["int8", "int6", "int4"])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("zeros", [True, False])
def test_groups_and_zero_points_are_kept(name: str, group: int, zeros: bool) -> None:
    given = coded(name, group, zeros=zeros)
    assert torch.equal(packed(given, CODE_FORMATS[name]).rows(torch.arange(ROWS)), given.dequantise())


@pytest.mark.parametrize("name", CODE_FORMATS)
@pytest.mark.parametrize("rotated", [False, True])
def test_what_rounding_gives_is_kept(name: str, rotated: bool) -> None:
    given = round_to_codes(torch.randn((ROWS, COLUMNS)), replace(CODE_FORMATS[name], rotated=rotated))
    found = packed(given, CODE_FORMATS[name]).rows(torch.arange(ROWS))
    torch.testing.assert_close(found, given.dequantise(), rtol=1e-5, atol=1e-6)


def kept(coded: CodedWeight) -> PackedLinear:
    library, stored = load(), Stored(coded, None)
    stored.keeps_codes, stored.activations = True, "float32"
    return load_layer(Pool(library, 1), Arena(library), WEIGHT, stored)


@pytest.mark.parametrize("name", ["int8", "int6", "int4"])
@pytest.mark.parametrize("group", [16, 32, 128, 256])
def test_codes_of_a_checkpoint_are_kept_as_they_are(name: str, group: int) -> None:
    given = coded(name, group)
    layer = kept(given)
    assert (layer.format, layer.activations) == (name, "float32")
    assert torch.equal(layer.rows(torch.arange(ROWS)), given.dequantise())
    x = torch.randn((5, COLUMNS))
    torch.testing.assert_close(layer(x), x @ given.dequantise().T, rtol=1e-4, atol=1e-3)


def test_what_later_rows_need_is_kept_too() -> None:
    """Pieces of different forms: more bits, zero points of their own, minimums, scales that float16 has no room for."""
    given = coded("int4", 64, zeros=False)
    assert given.zeros is not None
    large, points, huge = given.codes.clone(), given.zeros.clone(), given.scales.clone()
    large[30:] |= 128
    points[30:] = torch.randint(0, 16, points[30:].shape)
    huge[30:] *= 2.0**20
    for other, format, tolerance in (
        (replace(given, codes=large), "int8", 0),
        (replace(given, zeros=points), "int4", 0),
        (replace(given, codes=large, zeros=points), "int8", 0),
        (replace(given, zeros=torch.where(points != 8, points + 0.5, 8)), "int4", 0.01),
        (replace(given, scales=huge), "int4", 0),
        (replace(given, order=torch.randperm(COLUMNS)), "int4", 0),
    ):
        layer = kept(other)
        assert layer.format == format
        assert (layer.rows(torch.arange(ROWS)) - other.dequantise()).abs().max() <= tolerance


class Pieces(Stored):
    """Pieces of other matrices than the first one's."""

    keeps_codes = True

    def pieces(
        self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
    ) -> Iterator[tuple[int, CodedWeight]]:
        yield 0, self.coded.rows(0, 24)
        yield 24, coded("int4", 64).rows(24, ROWS)


def test_codes_that_no_layer_holds_are_dequantised() -> None:
    given = coded("int4", 64)
    odd = CodedWeight(given.codes, torch.rand((ROWS, 11)), 24, torch.full((ROWS, 11), 8))
    for other in (
        odd,
        replace(given, codebook=torch.randn(256), zeros=None),
        replace(given, codebook=torch.full((16,), torch.inf), zeros=None),
        replace(given, codebook=torch.arange(16.0)),
    ):
        layer = kept(other)
        assert layer.format == "bfloat16"
        torch.testing.assert_close(
            layer.rows(torch.arange(ROWS)), other.dequantise().bfloat16().float(), equal_nan=True
        )
    library = load()
    for other in (
        coded("int4", COLUMNS),  # one scale a row
        replace(given, order=torch.randperm(COLUMNS)),
        replace(given, codebook=BOOK, zeros=None),
    ):
        assert load_layer(Pool(library, 1), Arena(library), WEIGHT, Pieces(other, None)).format == "bfloat16"


def test_with_float32_only_what_is_exact_is_kept() -> None:
    library, given = load(), coded("int4", 64)
    scales = torch.rand_like(given.scales)
    for other, format in (
        (replace(given, scales=scales), "int4"),
        (replace(given, codebook=BOOK, zeros=None), "float32"),
    ):
        stored = Stored(other, None)
        stored.keeps_codes, stored.dtype = True, torch.float32
        layer = load_layer(Pool(library, 1), Arena(library), WEIGHT, stored)
        assert layer.format == format
        assert torch.equal(layer.rows(torch.arange(ROWS)), other.dequantise())


def test_codes_of_a_matrix_that_is_to_be_floats_are_dequantised() -> None:
    given = coded("int4", 64)
    found = packed(given, None).rows(torch.arange(ROWS))
    assert torch.equal(found, given.dequantise().bfloat16().float())


WRONG = {
    "minimums": replace(coded("int4"), mins=torch.rand((ROWS, 2))),
    "columns in another order": replace(coded("int4"), order=torch.randperm(COLUMNS)),
    "a codebook other than": replace(coded("int4"), codebook=BOOK, zeros=None),
    "no whole numbers": replace(coded("int4"), zeros=torch.full((ROWS, 2), 7.5)),
    "from 0 to 255": replace(coded("int8"), zeros=torch.full((ROWS, 2), -3)),
    "codes beyond 4 bits": coded("int8"),
    "groups of 8 columns": coded("int4", 8),
    "without zero points": replace(coded("int4"), zeros=None),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_layer_cannot_hold_is_refused_by_name(what: str) -> None:
    with pytest.raises(ModelError, match=rf"layers\.0\.mlp\.up is stored with .*{what}"):
        packed(WRONG[what], CODE_FORMATS["int8" if "255" in what else "int4"])


TABLE = round_to_codes(torch.randn((ROWS, COLUMNS)), CODE_FORMATS["iq4_nl"])
WRONG_TABLES = {
    "groups of 128 columns in iq4_nl": replace(TABLE, scales=TABLE.scales[:, :2], group=128),
    "zero points beside a codebook": replace(TABLE, zeros=torch.zeros((ROWS, 4))),
    "a codebook other than that of iq4_nl": replace(TABLE, codebook=BOOK),
    "codes without the values of iq4_nl": replace(TABLE, codebook=None, zeros=torch.full((ROWS, 4), 8)),
}


@pytest.mark.parametrize("what", WRONG_TABLES)
def test_tables_too(what: str) -> None:
    with pytest.raises(ModelError, match=what):
        packed(WRONG_TABLES[what], CODE_FORMATS["iq4_nl"])


def test_zero_points_that_begin_in_a_later_piece_are_kept() -> None:
    given = coded("int4", zeros=False)
    given.zeros[30:] = 3
    assert torch.equal(packed(given, CODE_FORMATS["int4"]).rows(torch.arange(ROWS)), given.dequantise())


def test_rows_of_another_group_than_the_first_are_refused() -> None:
    class Mixed(Stored):
        def pieces(
            self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
        ) -> Iterator[tuple[int, CodedWeight]]:
            yield 0, coded("int4", 128)
            yield 0, coded("int4", 64)

    library = load()
    with pytest.raises(ModelError, match="rows of different forms"):
        load_layer(Pool(library, 1), Arena(library), WEIGHT, Mixed(coded("int4"), CODE_FORMATS["int4"]))
