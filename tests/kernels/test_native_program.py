"""Operations of the native list, one or a few at a time, against the torch reference; steps of several slices."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.native_levels import libraries, open_level
from tests.models.driver import make_paging
from tgi.kernels import reference
from tgi.kernels.native.library import Arena, Library, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.program import NativeProgram
from tgi.kernels.program import ACTIVATIONS, Code, Program

ROWS = 5
WIDTHS = [1, 15, 16, 33, 64, 576]


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


class Run:
    """A program whose first operation loads `x` [rows, width] into buffer 0, as rows of an embedding."""

    def __init__(self, library: Library, x: torch.Tensor, threads: int = 2, head_dim: int = 8) -> None:
        self.pool, self.x = Pool(library, threads), x
        table = PackedLinear(self.pool, Arena(library), "float32", x.shape[1], len(x))
        table.pack(x)
        self.program = Program(heads=1, kv_heads=1, head_dim=head_dim)
        self.program.buffer(x.shape[1])
        self.program.add(Code.EMBED, 0, weight=table)

    def __call__(self, result: int, tables=()) -> torch.Tensor:
        self.program.result = result
        paging = make_paging([list(range(-(-len(self.x) // 32)))], [0], [len(self.x)], 32)
        return NativeProgram(self.pool, self.program)(torch.arange(len(self.x)), paging, None, tables)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_norms(library, width):
    x, scale, bias = 3 * torch.randn((ROWS, width)) + 1, torch.randn(width), torch.randn(width)
    run = Run(library, x)
    out = run.program.buffer(width)
    run.program.rms_norm(out, 0, scale, 1e-5)
    close(run(out), reference.rms_norm(x, scale, 1e-5))
    run.program.layer_norm(out, 0, scale, bias, 1e-5)
    close(run(out), reference.layer_norm(x, scale, bias, 1e-5))
    run.program.layer_norm(out, 0, scale, None, 1e-5)
    close(run(out), reference.layer_norm(x, scale, None, 1e-5))


def test_norm_of_each_head(library):
    x, scale = torch.randn((ROWS, 7 + 3 * 20)), torch.randn(20)
    run = Run(library, x)
    run.program.rms_norm(0, 0, scale, 1e-6, heads=3, width=20, offset=7)
    wanted = x.clone()
    wanted[:, 7:] = reference.rms_norm(x[:, 7:].unflatten(1, (3, 20)), scale, 1e-6).flatten(1)
    close(run(0), wanted)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(library, name, width):
    x = 4 * torch.randn((ROWS, 2 * width))
    x[0, 0], x[1, 0] = 60.0, -60.0
    run = Run(library, x)
    plain, gated = run.program.buffer(2 * width), run.program.buffer(width)
    run.program.add(Code.ACTIVATION, plain, 0, width=2 * width, a=ACTIVATIONS[name])
    run.program.add(Code.GATED, gated, 0, width=width, a=ACTIVATIONS[name])
    close(run(plain), reference.ACTIVATIONS[name](x))
    torch.testing.assert_close(run(gated), reference.gated(reference.ACTIVATIONS[name], x), rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("half", [1, 5, 16, 32])
def test_rotary(library, half):
    heads, head_dim, positions = 3, 64, 40
    x = torch.randn((positions, heads * head_dim + 9))
    angles = torch.rand((positions, half)) * 6
    cos, sin = angles.cos(), angles.sin()
    run = Run(library, x, head_dim=head_dim)
    run.program.rotary(0, heads, offset=9)
    wanted = x.clone()
    wanted[:, 9:] = reference.rotary(x[:, 9:].unflatten(1, (heads, head_dim)), cos, sin).flatten(1)
    close(run(0, [(cos, sin)]), wanted)


def test_rotary_of_adjacent_pairs(library):
    x, angles = torch.randn((ROWS, 8)), torch.rand((ROWS, 3)) * 6
    run = Run(library, x)
    run.program.rotary(0, 1, adjacent=True)
    turned = torch.view_as_real(
        torch.view_as_complex(x[:, :6].unflatten(1, (3, 2))) * torch.polar(angles * 0 + 1, angles)
    )
    close(run(0, [(angles.cos(), angles.sin())]), torch.cat((turned.flatten(1), x[:, 6:]), 1))


def test_sums_scales_and_caps(library):
    x = torch.randn((ROWS, 37))
    run = Run(library, x)
    run.program.add(Code.SCALE, 0, width=37, x=3.0)
    run.program.add(Code.SOFT_CAP, 0, width=37, x=2.0)
    run.program.add(Code.ADD, 0, 0, width=37)
    close(run(0), 4 * (3 * x / 2).tanh())


@pytest.mark.parametrize("rows", [1, 6, 700, 1100])
def test_a_feed_forward_layer_over_slices_and_threads(library, rows):
    """700 and 1,100 rows take two and three passes over the list."""
    width, inner = 48, 80
    x, up, down = torch.randn((rows, width)), torch.randn((2 * inner, width)) / 7, torch.randn((width, inner)) / 9
    results = []
    for threads in (1, 2, 3):
        run = Run(library, x, threads)
        arena = Arena(library)
        layers = [PackedLinear(run.pool, arena, "float32", w.shape[1], w.shape[0]) for w in (up, down)]
        for layer, weight in zip(layers, (up, down), strict=True):
            layer.pack(weight)
        wide, narrow = run.program.buffer(2 * inner), run.program.buffer(inner)
        run.program.linear(wide, 0, layers[0])
        run.program.add(Code.GATED, narrow, wide, width=inner, a=ACTIVATIONS["silu"])
        run.program.linear(0, narrow, layers[1], add=True)
        results.append(run(0))
    silu = torch.nn.functional.silu
    torch.testing.assert_close(
        results[0], x + (silu(x @ up[:inner].T) * (x @ up[inner:].T)) @ down.T, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


FORMATS = ("float32", "float16", "bfloat16", "int8", "int6", "int4")


@pytest.mark.parametrize("id", [-1, 8, 15, 16, 1 << 31, (1 << 32) + 1, -(1 << 40), 30_000_000, (1 << 63) - 1])
def test_nothing_is_read_beyond_a_table(library, id):
    """8 rows are padded to 16; 2**32 + 1 is row 1 where only 32 bits are looked at. The reference refuses alike."""
    pool, arena = Pool(library, 2), Arena(library)
    weight, ids = torch.randn((8, 32)), torch.tensor([1, 0, id, 2])
    with pytest.raises(IndexError):
        reference.embedding(ids, weight)
    for format in FORMATS:
        table = PackedLinear(pool, arena, format, 32, 8)
        table.pack(weight)
        table.finish()
        with pytest.raises(IndexError, match="8 rows"):
            table.rows(ids)
        program = Program(heads=1, kv_heads=1, head_dim=8)
        program.add(Code.EMBED, program.buffer(32), weight=table)
        run = NativeProgram(pool, program)
        paging = make_paging([[0]], [0], [4], 32)
        with pytest.raises(IndexError, match="beyond its embedding table"):
            run(ids, paging, None)
        assert torch.equal(run(torch.tensor([7, 0, 7, 1]), paging, None), table.rows(torch.tensor([7, 0, 7, 1])))
        # The kernel itself is bounded, whoever calls it.
        out = torch.full((4, 32), torch.nan)
        library.call.tgi_linear_rows(pool.handle, table.handle, ids.data_ptr(), 4, out.data_ptr())
        assert not out[2].any() and torch.equal(out[[0, 1, 3]], table.rows(ids[[0, 1, 3]]))


def test_positions_are_bounded_as_ids_are(library):
    """Learned positions are a table too."""
    pool, table = Pool(library, 1), PackedLinear(Pool(library, 1), Arena(library), "float32", 16, 4)
    table.pack(torch.randn((4, 16)))
    program = Program(heads=1, kv_heads=1, head_dim=8)
    program.add(Code.EMBED, program.buffer(16), a=1, weight=table)
    run = NativeProgram(pool, program)
    assert len(run(torch.tensor([9, 9]), make_paging([[0]], [2], [2], 32), None)) == 2
    with pytest.raises(IndexError, match="beyond its embedding table"):
        run(torch.tensor([0, 0]), make_paging([[0]], [3], [2], 32), None)
