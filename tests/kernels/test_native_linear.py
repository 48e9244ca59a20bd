"""Native linear layers against a float64 formula over the very weights and activations they multiply.

Tolerances: float formats differ from float64 by rounding of float32 sums; the integer dot products of codes
are exact, so only the sum over groups rounds.
"""

from __future__ import annotations

import math
from ctypes import byref

import pytest
import torch

from tests.kernels.native_levels import ROUNDING_LEVELS, libraries, open_level
from tgi.kernels.formats import CODE_FORMATS, CODE_PANELS
from tgi.kernels.native.library import Arena, Library, LinearShape, Pool
from tgi.kernels.native.linear import FORMATS, Apart, PackedLinear
from tgi.kernels.rotation import rotate

TOLERANCE = 3e-6
CODES = {format.name: format for format in CODE_FORMATS.values()}
PLAIN = {name: format.bits for name, format in CODES.items() if format.scales == 1}
"""Formats with one scale a group and zero points, and their bits."""


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


def stored_as(format: str) -> torch.dtype:
    """The dtype of weights that are packed into `format`."""
    return torch.float32 if format in CODES else getattr(torch, format)


def make(library: Library, format: str, weight: torch.Tensor, threads: int = 2, **options) -> PackedLinear:
    pool = Pool(library, threads)
    layer = PackedLinear(pool, Arena(library), format, weight.shape[1], weight.shape[0], **options)
    layer.pack(weight)
    return layer


def quantise_activations(x: torch.Tensor, group: int) -> torch.Tensor:
    """What the kernels make of activations: round(x / scale) * scale, scale = max |x| / 127 by row and group."""
    width = x.shape[1]
    group = group or -(-width // 16) * 16
    padded = torch.nn.functional.pad(x, (0, -width % group)).unflatten(1, (-1, group))
    peak = padded.abs().amax(-1, keepdim=True)
    inverse = torch.where(peak > 0, torch.full_like(peak, 127.0) / peak, 0.0)
    codes = (padded * inverse).round().clamp(-127, 127)
    return (codes.double() * (peak / 127.0).double()).flatten(1)[:, :width]


def round_without_outliers(x: torch.Tensor, part: int) -> torch.Tensor:
    """The same for layers whose scales lie apart: what is more than twice as large as the others of a part stays. Parts
    are of 32 columns at least."""
    width, part = x.shape[1], max(part, 32)
    parts = torch.nn.functional.pad(x, (0, -width % part)).unflatten(1, (-1, part))
    best = parts.abs().topk(2, -1)
    at, far = best.indices[..., :1], best.values[..., :1] > 2 * best.values[..., 1:]
    kept = torch.where(far, parts.gather(-1, at), 0)
    outliers = torch.zeros_like(parts).scatter(-1, at, kept).flatten(1)[:, :width]
    return quantise_activations(x - outliers, part) + outliers.double()


def expected(layer: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    weight = layer.rows(torch.arange(layer.out_features)).double()
    if layer.format in CODES and layer.activations == "int8":
        rounding = quantise_activations if layer.apart is None else round_without_outliers
        exact = rounding(rotate(x) if layer.rotated else x, layer.group)
        weight = rotate(weight) if layer.rotated else weight
    elif layer.format == "bfloat16" and layer.pool.library.level in ROUNDING_LEVELS:
        exact = x.bfloat16().double()  # both factors are
    else:
        exact = x.double()
    return exact @ weight.T


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9)).item()


SHAPES = [(64, 48), (576, 960), (100, 33), (1, 1), (129, 16), (320, 17)]


KINDS = [(format, "int8") for format in FORMATS] + [(format, "float32") for format in CODES]
"""Formats of weights, and what those of codes round activations to."""


@pytest.mark.parametrize(("format", "activations"), KINDS)
@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_every_number_of_rows_agrees_with_the_formula(library, format, activations, width, height):
    generator = torch.Generator().manual_seed(width * 1000 + height)
    weight = torch.randn((height, width), generator=generator).to(stored_as(format))
    layer = make(library, format, weight, activations=activations)
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 64):
        x = torch.randn((rows, width), generator=generator)
        assert relative_error(layer(x), expected(layer, x)) < TOLERANCE, rows


def test_formats_are_the_librarys(library):
    names = {*FORMATS, *CODE_PANELS}
    numbers = [library.call.tgi_format(format.encode()) for format in names]
    assert sorted(numbers) == list(range(len(names)))
    assert library.call.tgi_format(b"int7") == -1


@pytest.mark.parametrize("format", ["int2", "int3"])
def test_nothing_is_rounded_to_panels_of_checkpoints(library, format):
    arena = Arena(library)
    with pytest.raises(AssertionError, match="nothing is rounded"):
        PackedLinear(Pool(library, 1), arena, format, 64, 16)
    shape = LinearShape(library.call.tgi_format(format.encode()), 64, 16, 64, False, 3, False)
    assert not library.call.tgi_linear_create(arena.handle, byref(shape))


@pytest.mark.parametrize("format", ["float32", "bfloat16", "float16"])
def test_float_weights_are_kept_exactly(library, format):
    weight = torch.randn((37, 50)).to(getattr(torch, format))
    layer = make(library, format, weight)
    assert torch.equal(layer.rows(torch.arange(37)), weight.float())


def with_strangers(weight: torch.Tensor, generator: torch.Generator, share: float) -> torch.Tensor:
    """bfloat16 weights, some of which are far from all others, and in the first row an infinity and no number."""
    strange = torch.tensor([0.0, -0.0, 2.0**-120, -(2.0**-90), 2.0**-30, 2.0**20, -(2.0**30)])
    chosen = strange[torch.randint(0, len(strange), weight.shape, generator=generator)]
    weight = torch.where(torch.rand(weight.shape, generator=generator) < share, chosen, weight).bfloat16()
    if share:
        weight[0, -1], weight[0, 0] = torch.inf, torch.nan
    return weight


@pytest.mark.parametrize("share", [0.0, 0.002])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (576, 200), (8, 1), (72, 33), (2048, 64)])
def test_narrow_bfloat16_loses_nothing(library, width, height, share):
    """12 bits a weight, and the same bits in every result as with 16."""
    generator = torch.Generator().manual_seed(width + height)
    plain = torch.randn((height, width), generator=generator)
    weight = with_strangers(plain, generator, share)
    wide, narrow = (make(library, "bfloat16", weight) for _ in range(2))
    narrow.finish()
    tables = 64 * -(-height // 16)
    assert narrow.bytes <= wide.bytes * 0.75 + tables
    ids = torch.randperm(height, generator=generator)
    assert torch.equal(narrow.rows(ids).view(torch.int32), weight[ids].float().view(torch.int32))
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 33, 64):
        x = torch.randn((rows, width), generator=generator)
        torch.testing.assert_close(narrow(x), wide(x), rtol=0, atol=0, equal_nan=True, msg=f"{rows} rows")


def test_narrow_layers_have_a_bias_and_take_less_memory(library):
    pool, arena = Pool(library, 2), Arena(library)
    weight, bias = torch.randn((560, 320)).bfloat16(), torch.randn(560)
    layer = PackedLinear(pool, arena, "bfloat16", 320, 560, bias=True)
    layer.pack(weight)
    layer.set_bias(bias)
    before = arena.used
    layer.finish()
    assert arena.used < 0.78 * before
    for rows in (1, 40):
        x = torch.randn((rows, 320)).bfloat16().float()
        torch.testing.assert_close(layer(x), x @ weight.float().T + bias, rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_12_bits_keep_16(library):
    generator = torch.Generator().manual_seed(5)
    bits = torch.randint(0, 1 << 15, (64, 64), generator=generator, dtype=torch.int16)  # all exponents alike
    weight = bits.view(torch.bfloat16)
    weight = torch.where(weight.isfinite() & (weight < 1e30), weight, torch.ones_like(weight))
    layer = make(library, "bfloat16", weight)
    before = layer.bytes
    layer.finish()
    assert layer.bytes == before
    assert torch.equal(layer.rows(torch.arange(64)), weight.float())


def test_strided_weights_and_parts(library):
    stored = torch.randn((24, 40))  # as GPT-2 stores them: [in, out]
    pool = Pool(library, 2)
    layer = PackedLinear(pool, Arena(library), "bfloat16", 24, 40)
    layer.pack(stored.t()[:7])
    layer.pack(stored.t()[7:], first=7)
    assert torch.equal(layer.rows(torch.arange(40)), stored.t().bfloat16().float())


def test_bias_is_added(library):
    weight, bias = torch.randn((20, 32)), torch.randn(20)
    pool = Pool(library, 1)
    layer = PackedLinear(pool, Arena(library), "float32", 32, 20, bias=True)
    layer.pack(weight)
    layer.set_bias(bias[:5])
    layer.set_bias(bias[5:], first=5)
    x = torch.randn((3, 32))
    torch.testing.assert_close(layer(x), x @ weight.T + bias)


@pytest.mark.parametrize(("format", "activations"), KINDS)
def test_a_row_has_the_same_bits_in_any_batch_and_with_any_threads(library, format, activations):
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn((560, 320), generator=generator)
    x = torch.randn((70, 320), generator=generator)
    reference = None
    for threads in (1, 2, 3, 4):
        layer = make(library, format, weight.to(stored_as(format)), threads, activations=activations)
        whole = layer(x)
        reference = whole if reference is None else reference
        assert torch.equal(whole, reference)
        for rows in (1, 2, 3, 5, 6, 8, 11, 16, 23):
            assert torch.equal(torch.cat([layer(part) for part in x.split(rows)]), reference), rows


@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize("format", PLAIN)
@pytest.mark.parametrize("group", [32, 64, 128, 0])
@pytest.mark.parametrize("width", [256, 176])
def test_groups(library, format, group, activations, width):
    """The last group of 176 columns is shorter: 16, or 48 of them."""
    weight = torch.randn((50, width))
    layer = make(library, format, weight, group=group, activations=activations)
    for rows in (1, 9, 70):
        x = torch.randn((rows, width))
        assert relative_error(layer(x), expected(layer, x)) < TOLERANCE


@pytest.mark.parametrize(("format", "bits"), PLAIN.items())
@pytest.mark.parametrize("group", [32, 96, 128])
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_codes_with_zero_points_of_a_checkpoint(library, format, bits, group, activations):
    rows, width = 43, 256
    generator = torch.Generator().manual_seed(group)
    codes = torch.randint(0, 1 << bits, (rows, width), generator=generator)
    groups = -(-width // group)
    zeros = torch.randint(0, 1 << bits, (rows, groups), generator=generator)
    scales = torch.rand((rows, groups), generator=generator).half()  # as GPTQ and AWQ store them
    apart = Apart(group, zero_bits=4 if bits == 4 else 8)
    options = {"group": math.gcd(group, 128), "activations": activations, "apart": apart}
    layer = PackedLinear(Pool(library, 2), Arena(library), format, width, rows, **options)
    layer.pack_codes(codes[:10], scales[:10], zeros[:10])
    layer.pack_codes(codes[10:], scales[10:], zeros[10:], first=10)
    per_column = [one.repeat_interleave(group, 1)[:, :width] for one in (zeros, scales.float())]
    weight = (codes - per_column[0]) * per_column[1]
    assert torch.equal(layer.rows(torch.arange(rows)), weight)
    for count in (1, 6, 20):
        x = torch.randn((count, width), generator=generator)
        assert relative_error(layer(x), expected(layer, x)) < TOLERANCE


@pytest.mark.parametrize(("format", "levels"), [("int8", 127), ("int6", 32), ("int5", 16), ("int4", 8)])
def test_the_searched_scale_is_at_least_as_good_as_the_plain_one(library, format, levels):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((64, 256), generator=generator)
    layer = make(library, format, weight, group=128)
    grouped = weight.unflatten(1, (-1, 128))
    scale = grouped.abs().amax(-1, keepdim=True) / levels
    plain = ((grouped / scale).round().clamp(-levels, levels - 1) * scale).flatten(1)
    searched = layer.rows(torch.arange(64))
    assert (searched - weight).square().sum() < (plain - weight).square().sum()


@pytest.mark.parametrize(
    ("format", "tolerance"), [("int8", 0.012), ("int6", 0.026), ("int5", 0.05), ("int4", 0.1), ("iq4_nl", 0.09)]
)
def test_rounded_layers_are_close_to_the_original(library, format, tolerance):
    """Root mean square over that of the result, for normally distributed weights and activations."""
    generator = torch.Generator().manual_seed(5)
    weight, x = torch.randn((96, 512), generator=generator), torch.randn((8, 512), generator=generator)
    layer = make(library, format, weight)
    wanted = (x @ weight.T).double()
    error = (layer(x).double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < tolerance


@pytest.mark.parametrize(("format", "activations"), KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_stays_so_and_alone(library, format, activations, poison):
    weight = torch.randn((32, 64)).to(stored_as(format))
    layer = make(library, format, weight, activations=activations)
    x = torch.randn((6, 64))
    clean = layer(x)
    x[2, 9] = poison
    found = layer(x)
    assert not torch.isfinite(found[2]).any()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(found[others], clean[others])


def test_zeros_give_zeros(library):
    for format in FORMATS:
        layer = make(library, format, torch.zeros((16, 64)).to(stored_as(format)))
        assert torch.equal(layer(torch.zeros((3, 64))), torch.zeros((3, 16)))


@pytest.mark.parametrize("format", CODES)
@pytest.mark.parametrize("width", [128, 576, 896, 100])
def test_a_row_takes_its_codes_and_a_word_for_each_128(library, format, width):
    layer = make(library, format, torch.zeros((32, width)))
    unit = 32 if format == "int5" else 16
    padded = -(-width // unit) * unit
    assert layer.bytes == 32 * (padded * CODES[format].bits // 8 + 4 * -(-width // 128))
    assert layer.bytes == CODES[format].packed_bytes(32, width)
