"""Codes of checkpoints in native layers, against a float64 formula over their weights and the rounded activations.

Integer dot products are exact, so only sums over groups round; books that are not made of whole numbers and float16
scales are compared by what the layer says its weights are, which is close to what the codes say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import numpy as np
import pytest
import torch

from tests.kernels.native_levels import libraries, open_level
from tests.kernels.test_native_linear import TOLERANCE, relative_error, round_without_outliers
from tests.kernels.test_native_loading import Stored
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_PANELS, IQ4_NL
from tgi.kernels.inputs import Inputs
from tgi.kernels.native.book import book_of
from tgi.kernels.native.library import Arena, Library, Pool
from tgi.kernels.native.library import load as load_library
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.loading import load_layer
from tgi.kernels.weight import Weight
from tgi.quant.formats.ggml import READERS, decode

Pieces = Iterator[tuple[int, CodedWeight]]
ROWS = 43
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
NF4 = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302)
NF4 += (0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)  # Dettmers et al. 2023, appendix E
FP4 = (0.0, 0.005208333, 0.6666667, 1.0, 0.33333334, 0.5, 0.16666667, 0.25)
FP4 += tuple(-value for value in FP4)


@dataclass(frozen=True)
class Kind:
    """What some stored format has."""

    bits: int
    group: int
    zeros: str = ""
    minimums: bool = False
    book: tuple[float, ...] = ()
    order: bool = False
    steps: bool = False
    """Scales and minimums are whole numbers times a float16 for each 256 columns."""
    nibbles: bool = False
    """Those are from 0 to 15, and from -15 to 0."""

    def make(self, columns: int, seed: int = 0) -> CodedWeight:
        generator = torch.Generator().manual_seed(seed)
        groups = -(-columns // self.group)
        codes = torch.randint(0, 1 << self.bits, (ROWS, columns), generator=generator, dtype=torch.uint8)
        scales = (torch.rand((ROWS, groups), generator=generator) * 0.1).half().float()
        minimums = -torch.rand((ROWS, groups), generator=generator)
        steps, of_steps = {}, min(self.group, 256)
        if self.steps:
            step = (torch.rand((ROWS, -(-columns // 256)), generator=generator) * 0.01).half().float()
            each = step.repeat_interleave(256 // of_steps, 1)[:, :groups]
            least, most, deepest = (0, 16, 16) if self.nibbles else (-128, 128, 64)
            scales = each * torch.randint(least, most, scales.shape, generator=generator)
            minimums = each * -torch.randint(0, deepest, scales.shape, generator=generator)
            steps = {"steps": step, "min_steps": step if self.minimums else None}
        zeros = {
            "": None,
            "same": torch.full((ROWS, groups), 1 << (self.bits - 1)),
            "own": torch.randint(0, 1 << self.bits, (ROWS, groups), generator=generator),
            "float": torch.rand((ROWS, groups), generator=generator) * (1 << self.bits),
        }[self.zeros]
        return CodedWeight(
            codes,
            scales,
            self.group,
            zeros,
            minimums if self.minimums else None,
            torch.tensor(self.book, dtype=torch.float32) if self.book else None,
            torch.randperm(columns, generator=generator) if self.order else None,
            **steps,
        )


KINDS = {
    "Q4_0": Kind(4, 32, "same"),
    "Q4_1, Q4_K": Kind(4, 32, minimums=True),
    "Q5_0": Kind(5, 32, "same"),
    "Q5_1, Q5_K": Kind(5, 32, minimums=True),
    "Q6_K": Kind(6, 16, "same"),
    "2 bits with minimums": Kind(2, 16, minimums=True),
    "Q2_K of nibbles": Kind(2, 16, minimums=True, steps=True, nibbles=True),
    "Q3_K of whole numbers": Kind(3, 16, "same", steps=True),
    "Q8_0": Kind(8, 32, "same"),
    "Q4_K of whole numbers": Kind(4, 32, minimums=True, steps=True),
    "Q5_K of whole numbers": Kind(5, 32, minimums=True, steps=True),
    "Q6_K of whole numbers": Kind(6, 16, "same", steps=True),
    "IQ4_XS of whole numbers": Kind(4, 32, book=IQ4_NL, steps=True),
    "IQ4_NL": Kind(4, 32, book=IQ4_NL),
    "MXFP4": Kind(4, 32, book=E2M1),
    "NVFP4": Kind(4, 16, book=E2M1),
    "GPTQ": Kind(4, 128, "own"),
    "GPTQ, act-order, 3 bits": Kind(3, 64, "own", order=True),
    "GPTQ, 3 bits": Kind(3, 128, "own"),
    "GPTQ, 2 bits": Kind(2, 128, "own"),
    "GPTQ, act-order, 2 bits": Kind(2, 32, "same", order=True),
    "2 bits, one group": Kind(2, 1 << 20, "own"),
    "GPTQ, 8 bits, one group": Kind(8, 1 << 20, "own"),
    "HQQ": Kind(4, 64, "float"),
    "HQQ, 2 bits": Kind(2, 16, "float"),
    "nf4": Kind(4, 64, book=NF4),
    "fp4": Kind(4, 64, book=FP4),
    "a book, minimums and order": Kind(4, 32, minimums=True, book=NF4, order=True),
    "5 bits in groups of 16": Kind(5, 16, "own"),
    "3 bits in groups of 48": Kind(3, 48, minimums=True),
    "groups of 96": Kind(4, 96, "own"),
    "groups of 256": Kind(8, 256, "same", order=True),
}


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]


def load(library: Library, coded: CodedWeight, activations: str = "int8", rows: int = ROWS) -> PackedLinear:
    class Reader(Stored):
        keeps_codes = True

        def pieces(self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None) -> Pieces:
            yield 0, self.coded.rows(0, 21)
            yield 21, self.coded.rows(21, rows)

    reader = Reader(coded, None)
    reader.activations = activations
    weight = Weight(("layers.0.mlp.up",), (rows,), coded.codes.shape[1])
    return load_layer(Pool(library, 2), Arena(library), weight, reader)


def product(layer: PackedLinear, coded: CodedWeight, x: torch.Tensor) -> torch.Tensor:
    """x times the weights as the layer has them, in float64, with activations as it rounds them."""
    weight = layer.rows(torch.arange(layer.out_features)).double()
    order = torch.arange(weight.shape[1]) if coded.order is None else coded.order
    used = round_without_outliers(x[:, order], layer.group) if layer.activations == "int8" else x[:, order].double()
    return used @ weight[:, order].T


@pytest.mark.parametrize("columns", [320, 100])
def test_layers_agree_with_the_formula(library: Library, kind: Kind, columns: int) -> None:
    coded = kind.make(columns)
    layer = load(library, coded)
    wanted = coded.dequantise()
    found = layer.rows(torch.arange(ROWS))
    loss = 0.005 if kind.book in (NF4, FP4) else 2e-3 if kind.zeros == "float" or kind.minimums else 5e-4
    assert layer.format != "bfloat16"
    assert (found - wanted).abs().max() <= loss * wanted.abs().max()
    generator = torch.Generator().manual_seed(columns)
    for rows in (1, 2, 3, 5, 8, 9, 16, 17, 33, 64):
        x = torch.randn((rows, columns), generator=generator)
        assert relative_error(layer(x), product(layer, coded, x)) < TOLERANCE, rows


def test_unrounded_activations_agree_too(library: Library, kind: Kind) -> None:
    coded = kind.make(160)
    layer = load(library, coded, "float32")
    for rows in (1, 6, 20):
        x = torch.randn((rows, 160))
        assert relative_error(layer(x), product(layer, coded, x)) < TOLERANCE, rows


def test_a_large_channel_does_not_spoil_the_others(library: Library, kind: Kind) -> None:
    coded = kind.make(256)
    layer = load(library, coded)
    x = torch.randn((9, 256))
    x[:, 77] *= 300
    wanted = x @ layer.rows(torch.arange(ROWS)).T
    error = (layer(x) - wanted).square().mean().sqrt()
    assert error < 0.02 * (wanted - torch.outer(x[:, 77], layer.rows(torch.arange(ROWS))[:, 77])).square().mean().sqrt()


@pytest.mark.parametrize("poison", [float("nan"), -float("inf")])
def test_a_row_that_is_not_finite_stays_so_and_alone(library: Library, kind: Kind, poison: float) -> None:
    coded = kind.make(320)
    layer = load(library, coded)
    x = torch.randn((6, 320))
    clean = layer(x)
    x[2, 9] = poison
    found = layer(x)
    assert not torch.isfinite(found[2]).any()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(found[others], clean[others])


@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_a_row_has_the_same_bits_alone_and_among_others(library: Library, kind: Kind, activations: str) -> None:
    coded = kind.make(320)
    layer = load(library, coded, activations)
    x = torch.randn((70, 320))
    together = layer(x)
    for rows in (slice(0, 1), slice(3, 8), slice(9, 25), slice(69, 70)):
        assert torch.equal(layer(x[rows]), together[rows])


def test_memory_is_what_codes_and_scales_take(kind: Kind) -> None:
    columns = 4096
    layer = load(load_library(), kind.make(columns))
    bits = CODE_PANELS[layer.format].bits
    assert bits == (4 if kind.book else 6 if (kind.bits, kind.group) == (5, 16) else kind.bits)
    each = (4 if kind.nibbles else 8) + 16 * kind.group / 256 if kind.steps else 16
    apart = layer.apart
    assert apart is not None
    assert apart.zero_bits == (0 if kind.zeros != "own" else 4 if kind.bits <= 4 else 8)
    numbers = each + each * apart.minimums + apart.zero_bits
    group = min(kind.group, columns)
    assert layer.bytes * 8 / 48 / columns <= bits + numbers / group + 0.01


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.steps], indirect=True)
def test_whole_scales_lose_nothing(library: Library, kind: Kind) -> None:
    coded = kind.make(320)
    assert torch.equal(load(library, coded).rows(torch.arange(ROWS)), coded.dequantise())


@pytest.mark.parametrize(
    ("kind", "halves"), [("Q2_K", (81, 83)), ("Q3_K", (109,)), ("Q4_K", (1, 3)), ("Q5_K", (1, 3)), ("Q6_K", (209,))]
)
def test_k_quants_keep_the_bits_and_the_size_of_their_file(
    library: Library, kind: str, halves: tuple[int, ...]
) -> None:
    """halves: the upper bytes of the float16 numbers of a block."""
    columns, (size, _) = 2048, READERS[kind]
    raw = np.random.default_rng(5).integers(0, 256, (48, columns // 256, size), dtype=np.uint8)
    raw[..., halves] &= 0xBF  # finite
    raw = raw.reshape(48, -1)
    coded = decode(kind, torch.from_numpy(raw))
    assert isinstance(coded, CodedWeight)
    layer = load(library, coded, rows=48)
    expected = torch.from_numpy(gguf.dequantize(raw, gguf.GGMLQuantizationType[kind]))
    assert torch.equal(layer.rows(torch.arange(48)), expected)
    assert layer.bytes <= 1.05 * raw.size


@pytest.mark.parametrize(
    ("one", "other", "format", "loss"),
    [
        ("Q4_K of whole numbers", "Q6_K of whole numbers", "int6", 1e-3),
        ("Q2_K of nibbles", "Q3_K of whole numbers", "int3", 1e-3),
        ("Q2_K of nibbles", "Q4_K of whole numbers", "int4", 0),
        ("Q3_K of whole numbers", "Q5_0", "int6", 1e-3),
        ("GPTQ, 2 bits", "Q8_0", "int8", 1e-3),
    ],
)
def test_rows_of_two_types_share_a_layer(library: Library, one: str, other: str, format: str, loss: float) -> None:
    """As in files that mix Q4_K and Q6_K, whose matrices are stacked."""
    first, second = KINDS[one].make(320), KINDS[other].make(320, seed=1)

    class Reader(Stored):
        keeps_codes = True

        def pieces(self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None) -> Pieces:
            yield 0, first.rows(0, 21)
            yield 21, second.rows(21, ROWS)

    weight = Weight(("layers.0.self_attn.q",), (ROWS,), 320)
    layer = load_layer(Pool(library, 2), Arena(library), weight, Reader(first, None))
    wanted = torch.cat((first.dequantise()[:21], second.dequantise()[21:]))
    found = layer.rows(torch.arange(ROWS))
    assert layer.format == format
    assert (found - wanted).abs().max() <= loss * wanted.abs().max()
    x = torch.randn((20, 320))
    assert relative_error(layer(x), product(layer, first, x)) < TOLERANCE


def test_books_of_whole_numbers_are_exact() -> None:
    for book in (IQ4_NL, E2M1, tuple(range(16))):
        found = book_of(torch.tensor([float(value) for value in book]))
        assert found is not None and found.exact
        assert [found.factor * (value - 128) for value in found.values] == pytest.approx(list(book), abs=1e-12)


@pytest.mark.parametrize(("book", "most"), [(NF4, 0.0025), (FP4, 0.0015)])
def test_other_books_are_close(book: tuple[float, ...], most: float) -> None:
    found = book_of(torch.tensor(book))
    assert found is not None and not found.exact
    values = torch.tensor([found.factor * (value - 128) for value in found.values])
    assert (values - torch.tensor(book)).square().mean().sqrt() < most


def test_what_has_no_numbers_is_no_book() -> None:
    assert book_of(torch.tensor([0.0, torch.nan])) is None
    assert book_of(torch.zeros(256)) is None
