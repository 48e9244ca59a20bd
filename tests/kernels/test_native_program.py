"""Operations of the native list, one or a few at a time, against the torch reference; steps of several slices."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from tests.kernels.given import Given
from tests.kernels.native_levels import libraries, open_level
from tests.models.driver import make_paging
from tgi.kernels.formats import CODE_FORMATS
from tgi.kernels.native.library import Arena, Library, Pool
from tgi.kernels.native.step import NativeStep
from tgi.kernels.native.structs import CODES, AnyOp
from tgi.kernels.program import (
    Activate,
    Add,
    Clamp,
    Embed,
    Experts,
    Gate,
    HeadLinear,
    LayerNorm,
    Linear,
    Logits,
    Op,
    Program,
    RmsNorm,
    Rotary,
    Scale,
    SoftCap,
)
from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.reference import ops as reference
from tgi.kernels.reference.recurrent import StateRows, convolve, delta_rule, scan
from tgi.kernels.reference.rope import Angles
from tgi.kernels.reference.routing import route
from tgi.kernels.rope_spec import RopeSpec
from tgi.kernels.types import CacheShape, KVCache
from tgi.kernels.weight import Vector, Weight

ROWS = 5
WIDTHS = [1, 15, 16, 33, 64, 576]


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


class Run:
    """A program whose first operation loads `x` [rows, width] into value "x", as rows of an embedding."""

    def __init__(
        self,
        library: Library,
        x: torch.Tensor,
        threads: int = 2,
        dtype: torch.dtype = torch.float32,
        quantize: str | None = None,
        **tensors: torch.Tensor,
    ) -> None:
        self.dtype, self.quantize = dtype, quantize
        self.pool, self.arena, self.rows = Pool(library, threads), Arena(library), len(x)
        self.table = Weight(("x",), (len(x),), x.shape[1], role="head")
        self.values = {"x": x.shape[1]}
        self.tensors = {name.replace("_", "."): tensor for name, tensor in tensors.items()} | {"x.weight": x}

    def __call__(self, result: str, *ops: Op, rope: RopeSpec | None = None, **values: int) -> torch.Tensor:
        """values: widths of other values than x."""
        step = self.step(result, *ops, rope=rope, **values)
        paging = make_paging([list(range(-(-self.rows // 32)))], [0], [self.rows], 32)
        return step.forward(torch.arange(self.rows), paging, None)

    def step(self, result: str, *ops: Op, rope: RopeSpec | None = None, **values: int) -> NativeStep:
        program = Program(
            values=self.values | values,
            ops=(Embed("x", self.table), *ops),
            result=result,
            logits=Logits(self.table),
            ropes=() if rope is None else (rope,),
            cache=(),
            max_positions=4096,
        )
        return NativeStep(self.pool, self.arena, program, Given(self.tensors, self.dtype, self.quantize))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_norms(library, width):
    x, scale, bias = 3 * torch.randn((ROWS, width)) + 1, torch.randn(width), torch.randn(width)
    run = Run(library, x, scale=scale, bias=bias)
    weight, shift = Vector(("scale",), width), Vector(("bias",), width)
    close(run("y", RmsNorm("y", "x", weight, 1e-5, width), y=width), reference.rms_norm(x, scale, 1e-5))
    close(run("y", RmsNorm("y", "x", Vector(("scale",), width, 1.0), 1e-5, width), y=width),
          reference.rms_norm(x, scale + 1, 1e-5))  # fmt: skip
    close(run("y", RmsNorm("y", "x", None, 1e-5, width), y=width), reference.rms_norm(x, None, 1e-5))
    close(
        run("y", LayerNorm("y", "x", weight, shift, 1e-5, width), y=width), reference.layer_norm(x, scale, bias, 1e-5)
    )
    close(run("y", LayerNorm("y", "x", weight, None, 1e-5, width), y=width), reference.layer_norm(x, scale, None, 1e-5))
    close(run("y", LayerNorm("y", "x", None, None, 1e-5, width), y=width), reference.layer_norm(x, None, None, 1e-5))


def test_norm_of_each_head(library):
    x, scale = torch.randn((ROWS, 7 + 3 * 20)), torch.randn(20)
    found = Run(library, x, scale=scale)("x", RmsNorm("x", "x", Vector(("scale",), 20), 1e-6, 20, heads=3, offset=7))
    wanted = x.clone()
    wanted[:, 7:] = reference.rms_norm(x[:, 7:].unflatten(1, (3, 20)), scale, 1e-6).flatten(1)
    close(found, wanted)


@pytest.mark.parametrize("each", [False, True])
def test_norms_of_heads(library, each):
    """With weights that the heads share, and with weights of their own."""
    heads, size = 3, 20
    x, scale, bias = torch.randn((ROWS, 7 + heads * size)), torch.randn(heads * size), torch.randn(heads * size)
    run = Run(library, x, scale=scale, bias=bias)
    count = heads * size if each else size
    run.tensors |= {"scale": scale[:count], "bias": bias[:count]}
    weight, shift = Vector(("scale",), count), Vector(("bias",), count)
    shape = (heads, size) if each else (size,)
    parts = x[:, 7:].unflatten(1, (heads, size))
    rms = run("x", RmsNorm("x", "x", weight, 1e-6, size, heads, 7, each))
    layer = run("x", LayerNorm("x", "x", weight, shift, 1e-6, size, heads, 7, each))
    for found, wanted in (
        (rms, torch.nn.functional.rms_norm(parts, (size,), None, 1e-6) * scale[:count].view(shape)),
        (layer, (parts - parts.mean(-1, keepdim=True)) / (parts.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
         * scale[:count].view(shape) + bias[:count].view(shape)),
    ):  # fmt: skip
        close(found[:, :7], x[:, :7])
        torch.testing.assert_close(found[:, 7:], wanted.flatten(1), rtol=1e-5, atol=1e-5)


def test_xielu(library):
    x, numbers = 3 * torch.randn((ROWS, 37)), torch.tensor([0.7, -0.4, 0.5, -1e-6])
    x[0, :2] = torch.tensor([0.0, -1e-8])
    names = tuple(f"number{at}" for at in range(4))
    run = Run(library, x, **{name: numbers[at] for at, name in enumerate(names)})
    close(run("y", Activate("y", "x", "xielu", Vector(names, 4)), y=37), reference.xielu(x, numbers))


def test_clamp(library):
    x = 3 * torch.randn((ROWS, 37))
    x[1, 5] = torch.nan
    found = Run(library, x)("x", Clamp("x", 1.5))
    torch.testing.assert_close(found, x.clamp(-1.5, 1.5), rtol=0, atol=0, equal_nan=True)


def test_rows_of_positions_begin_further_down(library):
    run = Run(library, torch.randn((16, 16)), positions_weight=torch.randn((6, 16)))
    positions = Weight(("positions",), (6,), 16, role="table")
    step = run.step("x", Embed("x", positions, by_position=True, first=2))
    found = step.forward(torch.tensor([9, 9]), make_paging([[0]], [2], [2], 32), None)
    assert torch.equal(found, run.tensors["positions.weight"][4:6])
    with pytest.raises(IndexError, match="beyond its embedding table"):
        step.forward(torch.tensor([0, 0]), make_paging([[0]], [3], [2], 32), None)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(reference.ACTIVATIONS))
def test_activations(library, name, width):
    x = 4 * torch.randn((ROWS, 2 * width))
    x[0, 0], x[1, 0] = 60.0, -60.0
    run = Run(library, x)
    close(run("plain", Activate("plain", "x", name), plain=2 * width), reference.ACTIVATIONS[name](x))
    gated = run("gated", Gate("gated", "x", name), gated=width)
    torch.testing.assert_close(gated, reference.gated(reference.ACTIVATIONS[name], x), rtol=3e-6, atol=1e-5)


def rotate(run: Run, op: Rotary, half: int) -> tuple[torch.Tensor, Angles]:
    """What a rotation by a rope of `half` pairs gives, and the angles it used."""
    step = run.step("x", op, rope=RopeSpec("default", 100.0, 2 * half))
    paging = make_paging([list(range(-(-run.rows // 32)))], [0], [run.rows], 32)
    found = step.forward(torch.arange(run.rows), paging, None)
    cos, sin = step._tables[0]
    return found, (cos[: run.rows], sin[: run.rows])


@pytest.mark.parametrize("half", [1, 5, 16, 32])
def test_rotary(library, half):
    heads, head_dim, positions = 3, 64, 40
    x = torch.randn((positions, heads * head_dim + 9))
    found, angles = rotate(Run(library, x), Rotary("x", heads, head_dim, offset=9), half)
    wanted = x.clone()
    wanted[:, 9:] = reference.rotary(x[:, 9:].unflatten(1, (heads, head_dim)), *angles).flatten(1)
    assert angles[0].shape == (positions, half) and not torch.equal(wanted, x)
    close(found, wanted)


def test_rotary_of_adjacent_pairs(library):
    x = torch.randn((ROWS, 8))
    found, (cos, sin) = rotate(Run(library, x), Rotary("x", 1, 8, adjacent=True), 3)
    pairs = torch.view_as_complex(x[:, :6].unflatten(1, (3, 2)))
    turned = torch.view_as_real(pairs * torch.complex(cos, sin))
    close(found, torch.cat((turned.flatten(1), x[:, 6:]), 1))
    close(found, reference.rotary(x[:, None], cos, sin, adjacent=True)[:, 0])


def test_sums_scales_and_caps(library):
    x = torch.randn((ROWS, 37))
    found = Run(library, x)("x", Scale("x", 3.0), SoftCap("x", 2.0), Add("x", "x"))
    close(found, 4 * (3 * x / 2).tanh())


@pytest.mark.parametrize("rows", [1, 6, 700, 1100])
def test_a_feed_forward_layer_over_slices_and_threads(library, rows):
    """700 and 1,100 rows take two and three passes over the list."""
    width, inner = 48, 80
    x, up, down = torch.randn((rows, width)), torch.randn((2 * inner, width)) / 7, torch.randn((width, inner)) / 9
    widen, narrow = Weight(("up",), (inner, inner), width), Weight(("down",), (width,), inner)
    ops = (Linear("up", "x", widen), Gate("inner", "up", "silu"), Linear("x", "inner", narrow, add=True))
    results = [
        Run(library, x, threads, up_weight=up, down_weight=down)("x", *ops, up=2 * inner, inner=inner)
        for threads in (1, 2, 3)
    ]
    silu = torch.nn.functional.silu
    torch.testing.assert_close(
        results[0], x + (silu(x @ up[:inner].T) * (x @ up[inner:].T)) @ down.T, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


ROUTES = {
    "softmax": {"normalise": True},
    "shared": {"normalise": False, "shared": True},
    "groups": {"normalise": True, "groups": 3, "top_groups": 2, "group_best": 2, "scale": 1.7},
    "corrected": {"normalise": True, "scores": "sigmoid", "correction": Vector(("correction",), 6, exact=True)},
    "corrected groups": {"normalise": True, "scores": "sigmoid", "correction": Vector(("correction",), 6, exact=True),
                         "groups": 3, "top_groups": 2, "group_best": 1},
    "weighed inputs": {"normalise": False, "scores": "sigmoid", "weigh_inputs": True},
    "limited": {"normalise": True, "limit": 0.5},
    "sparsemixer": {"normalise": False, "scores": "sparsemixer", "jitter": 0.4},
}  # fmt: skip


def expert_weights(count: int, shared: bool, width: int, inner: int) -> tuple[dict[str, torch.Tensor], Any, Any]:
    tensors, sizes = {}, [inner] * count + [inner + 24] * shared
    for expert, size in enumerate(sizes):
        tensors[f"up{expert}_weight"] = torch.randn((2 * size, width)) / 7
        tensors[f"down{expert}_weight"] = torch.randn((width, size)) / 6
    up = tuple(Weight((f"up{e}",), (size, size), width) for e, size in enumerate(sizes))
    down = tuple(Weight((f"down{e}",), (width,), size) for e, size in enumerate(sizes))
    return tensors, up, down


def naive_experts(op: Experts, x: torch.Tensor, logits: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    ids, weights = route(op, logits, tensors["correction"] if op.correction else None)
    assert set(ids.flatten().tolist()) == set(range(len(op.up)))
    wanted = torch.zeros_like(x)
    for row in range(len(x)):
        for expert, weight in zip(ids[row].tolist(), weights[row], strict=True):
            given = x[row] * weight if op.weigh_inputs else x[row]
            inner = reference.gated(torch.nn.functional.silu, tensors[f"up{expert}_weight"] @ given, op.limit)
            wanted[row] += (1 if op.weigh_inputs else weight) * (tensors[f"down{expert}_weight"] @ inner)
    return wanted


@pytest.mark.parametrize(
    ("kind", "quantize"),
    [
        *((kind, None) for kind in ROUTES),
        *product(("shared", "limited"), ("int8", "int4")),
    ],  # choosing knows no formats
)
def test_experts(library, kind, quantize):
    """Against the formula; and a row has the same bits alone, in any batch and with any number of threads."""
    rows, width, count, options = 300, 48, 6, ROUTES[kind]
    shared = bool(options.get("shared"))
    tensors, up, down = expert_weights(count, shared, width, 40)
    x, matrix = torch.randn((rows, width)), 2 * torch.randn((count + shared, width)) / width**0.5
    tensors |= {"router_weight": matrix, "correction": torch.randn(count) / 8}
    op = Experts("y", "x", "router", up, down, 2, "silu", **options)
    ops = (Linear("router", "x", Weight(("router",), (len(matrix),), width, role="table")), op)

    def run(given: torch.Tensor, threads: int) -> torch.Tensor:
        return Run(library, given, threads, quantize=quantize, **tensors)("y", *ops, router=len(matrix), y=width)

    found = run(x, 2)
    assert torch.equal(found, run(x, 3)) and torch.equal(found, run(x, 1))
    assert torch.equal(found[7:8], run(x[7:8], 2)) and torch.equal(found[100:117], run(x[100:117], 3))
    if quantize is None:
        torch.testing.assert_close(found, naive_experts(op, x, x @ matrix.T, tensors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_matrices_of_heads(library, quantize):
    """Head by head, each followed by another part of x; the same bits with any number of threads and rows."""
    rows, heads, width, out, tail = 70, 5, 20, 24, 6
    x = torch.randn((rows, 3 + heads * (width + tail)))
    tensors = {f"head{h}_weight": torch.randn((out, width)) / 4 for h in range(heads)}
    weights = tuple(Weight((f"head{h}",), (out,), width) for h in range(heads))
    op = HeadLinear("y", "x", weights, width, 3 + heads * width, tail)

    def run(given: torch.Tensor, threads: int) -> torch.Tensor:
        return Run(library, given, threads, quantize=quantize, **tensors)("y", op, y=heads * op.width)

    found = run(x, 2)
    assert torch.equal(found, run(x, 3)) and torch.equal(found[4:5], run(x[4:5], 2))
    if quantize is None:
        own, rest = x[:, : heads * width].unflatten(1, (heads, -1)), x[:, 3 + heads * width :].unflatten(1, (heads, -1))
        stacked = torch.stack([tensors[f"head{h}_weight"] for h in range(heads)])
        wanted = torch.cat((torch.einsum("rhi,hoi->rho", own, stacked), rest), dim=-1).flatten(1)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


SIZES = {
    Convolve: {"taps": 4 * 21, "shift": 21},
    Scan: {"decay": 6, "shift": 6, "skip": 6},
    DeltaRule: {"decay": 6, "shift": 6},
}
CONVOLVE = Convolve("y", "x", Vector(("taps",), 4 * 21), Vector(("shift",), 21), 4, 0, 5, 3, "silu")
SCAN = Scan(
    "y", "x", "x", Vector(("decay",), 6), Vector(("shift",), 6), Vector(("skip",), 6), 6, 5, 18, 2, 0, 5, 1, 0.1
)
DELTA = DeltaRule("y", "x", "x", Vector(("decay",), 6), Vector(("shift",), 6), 6, 3, 9, 19, 0, 5, 2)


@pytest.mark.parametrize(
    ("op", "width", "out", "size"), [(CONVOLVE, 24, 21, 63), (SCAN, 102, 30, 540), (DELTA, 168, 114, 1026)]
)
def test_layers_with_states(library, op, width, out, size):
    """As the reference has them, in several slices and over states that others read; the same bits in chunks."""
    lens, tensors = [300, 1, 40], {name: torch.randn(size) for name, size in SIZES[type(op)].items()}
    x, slots = torch.randn((sum(lens), width)), torch.randn((8, 5 + size))

    def native(rows: slice, lens: list[int], reads: list[int], writes: list[int], states: torch.Tensor) -> torch.Tensor:
        run = Run(library, x[rows], 3)
        run.tensors |= tensors
        program = replace(run.step("y", op, y=out).program, states=(5 + size,))
        step = NativeStep(run.pool, run.arena, program, Given(run.tensors, run.dtype, None))
        tables = [[number] for number in range(len(lens))]
        paging = make_paging(tables, [0] * len(lens), lens, 512, (reads, writes))
        cache = KVCache(CacheShape((), torch.float32, program.states), 1, 32, [], [], [states])
        return step.forward(torch.arange(sum(lens)), paging, cache)

    found = slots.clone()
    got = native(slice(None), lens, [-1, 0, 0], [2, 3, 4], found)
    wanted = slots.clone()
    rows = StateRows(wanted, [-1, 0, 0], [2, 3, 4], lens)
    decay, shift, skip = (tensors.get(name) for name in ("decay", "shift", "skip"))
    if isinstance(op, Convolve):
        expected = convolve(op, x[:, 3:24], tensors["taps"].view(-1, 4), shift, rows)
    elif isinstance(op, Scan):
        expected = scan(op, x, x[:, 1:7] + shift, decay, skip, rows)
    else:
        expected = delta_rule(op, x, x[:, 2:14], decay, shift, rows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    chunked = slots.clone()
    parts = [native(slice(0, 70), [70], [-1], [5], chunked), native(slice(70, 300), [230], [5], [2], chunked)]
    assert torch.equal(torch.cat(parts), got[:300]) and torch.equal(chunked[2, 5:], found[2, 5:])


def test_equal_logits_choose_the_lower_number(library):
    width, count = 16, 4
    tensors = {"router_weight": torch.zeros((count, width))}
    for expert in range(count):
        tensors[f"up{expert}_weight"] = torch.cat((torch.ones((1, width)), torch.ones((1, width))))
        tensors[f"down{expert}_weight"] = torch.full((width, 1), 10.0**expert)
    up = tuple(Weight((f"up{e}",), (1, 1), width) for e in range(count))
    down = tuple(Weight((f"down{e}",), (width,), 1) for e in range(count))
    ops = (
        Linear("router", "x", Weight(("router",), (count,), width, role="table")),
        Experts("y", "x", "router", up, down, 2, "relu", True),
    )
    found = Run(library, torch.ones((1, width)), **tensors)("y", *ops, router=count, y=width)
    close(found, torch.full((1, width), (0.5 + 5.0) * width**2))


def test_structures_are_as_large_as_the_librarys(library):
    """A field added on one side only is found before it shifts the others."""
    for number, structure in enumerate(CODES.values()):
        assert library.call.tgi_op_bytes(number) == ctypes.sizeof(structure), structure.__name__
    assert library.call.tgi_op_bytes(len(CODES)) == ctypes.sizeof(AnyOp)
    assert library.call.tgi_op_bytes(len(CODES) + 1) == 0


FORMATS = ("float32", "float16", "bfloat16", *CODE_FORMATS)


@pytest.mark.parametrize("id", [-1, 8, 15, 16, 1 << 31, (1 << 32) + 1, -(1 << 40), 30_000_000, (1 << 63) - 1])
def test_nothing_is_read_beyond_a_table(library, id):
    """8 rows are padded to 16; 2**32 + 1 is row 1 where only 32 bits are looked at. The reference refuses alike."""
    weight, ids, fine = torch.randn((8, 32)), torch.tensor([1, 0, id, 2]), torch.tensor([7, 0, 7, 1])
    with pytest.raises(IndexError):
        reference.embedding(ids, weight)
    paging = make_paging([[0]], [0], [4], 32)
    for format in FORMATS:
        coded = format in CODE_FORMATS
        dtype = torch.float32 if coded else getattr(torch, format)
        run = Run(library, weight, dtype=dtype, quantize=format if coded else None)
        step = run.step("x")
        table = step._layers[run.table]
        assert table.format == format
        with pytest.raises(IndexError, match="8 rows"):
            table.rows(ids)
        with pytest.raises(IndexError, match="beyond its embedding table"):
            step.forward(ids, paging, None)
        assert torch.equal(step.forward(fine, paging, None), table.rows(fine))
        # The kernel itself is bounded, whoever calls it.
        out = torch.full((4, 32), torch.nan)
        library.call.tgi_linear_rows(run.pool.handle, table.handle, ids.data_ptr(), 4, out.data_ptr())
        assert not out[2].any() and torch.equal(out[[0, 1, 3]], table.rows(ids[[0, 1, 3]]))


def test_positions_are_bounded_as_ids_are(library):
    """Learned positions are a table too."""
    run = Run(library, torch.randn((16, 16)), positions_weight=torch.randn((4, 16)))
    positions = Weight(("positions",), (4,), 16, role="table")
    step = run.step("x", Embed("x", positions, by_position=True))
    assert len(step.forward(torch.tensor([9, 9]), make_paging([[0]], [2], [2], 32), None)) == 2
    with pytest.raises(IndexError, match="beyond its embedding table"):
        step.forward(torch.tensor([0, 0]), make_paging([[0]], [3], [2], 32), None)
