"""Error feedback: its factors and codes against the formulas written out, what it gains, and where it is left alone."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kernels.given import Given
from tests.kernels.native_levels import libraries, open_level
from tests.kernels.test_rotation import transform
from tgi.kernels.formats import CODE_FORMATS
from tgi.kernels.inputs import Inputs, inputs_of
from tgi.kernels.native import loading
from tgi.kernels.native.library import Arena, Feedback, Library, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.loading import feedback_factors, load_layers
from tgi.kernels.program import Embed, Linear, Logits, Program
from tgi.kernels.weight import Weight
from tgi.quant.rounding import best_scales, by_column, cost, kept_scales, nearest, round_to_codes, with_feedback

NAMES = ("int8", "int6", "int5", "iq4_nl")
ROTATED = {name: replace(CODE_FORMATS[name], rotated=True, feedback=True) for name in NAMES}
COLUMNS = [128, 576, 300, 100]


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


def uneven(columns: int, seed: int = 1) -> torch.Tensor:
    """Mean squares of inputs as models have them: a few channels are a hundred times as large as the others."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.rand(columns, generator=generator) + 0.1
    squares[:: max(1, columns // 7)] *= 1e4
    return squares


def gptq_factor(importance: torch.Tensor) -> np.ndarray:
    """The upper Cholesky factor of H^-1 over all columns, by numpy; H is that of rotated inputs within their blocks."""
    moment = np.zeros((len(importance), len(importance)))
    for begin in range(0, len(importance), 128):
        part = importance[begin : begin + 128].double()
        matrix = transform(len(part))
        moment[begin : begin + len(part), begin : begin + len(part)] = (matrix.T @ torch.diag(part) @ matrix).numpy()
    return np.linalg.cholesky(np.linalg.inv(moment)).T  # inverse = U^T U


@pytest.mark.parametrize("columns", COLUMNS)
def test_factors_are_those_of_the_inverse_moment(library: Library, columns: int) -> None:
    inputs = inputs_of(uneven(columns))
    assert inputs is not None
    upper = gptq_factor(inputs.importance)
    wanted = np.triu(upper / np.diag(upper)[:, None], 1)
    for found in (inputs.factors(), feedback_factors(Pool(library, 2), inputs.importance)):
        assert found.shape == (-(-columns // 128), 128, 128)
        whole = torch.block_diag(*found)
        assert not whole[columns:].any() and not whole[:, columns:].any()
        np.testing.assert_allclose(whole[:columns, :columns].numpy(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ROTATED)
@pytest.mark.parametrize("columns", [128, 100])
def test_codes_follow_the_formula(name: str, columns: int) -> None:
    """Column by column: e = (w - q) / U_kk, then w_j -= e U_kj for all later j."""
    format, inputs = ROTATED[name], inputs_of(uneven(columns))
    assert inputs is not None
    weight = torch.randn((4, columns))
    scales = by_column(kept_scales(best_scales(weight, format), format), format, columns)
    upper, rest = gptq_factor(inputs.importance), weight.double().numpy().copy()
    wanted = np.zeros_like(rest)
    for k in range(columns):
        scale = scales[:, k].double().numpy()
        wanted[:, k] = nearest(torch.tensor(rest[:, k] / scale).float(), format).numpy()
        error = (rest[:, k] - wanted[:, k] * scale) / upper[k, k]
        rest -= np.outer(error, np.concatenate((np.zeros(k), upper[k, k:])))
    found = with_feedback(weight, scales, format, inputs).numpy()
    assert (found == wanted).mean() > 0.97


def pack(library: Library, name: str, weight: torch.Tensor, inputs: Inputs | None, threads: int = 2):
    pool = Pool(library, threads)
    layer = PackedLinear(pool, Arena(library), name, weight.shape[1], len(weight), rotated=True)
    if inputs is None:
        layer.pack(weight)
        return layer, None
    factors = feedback_factors(pool, inputs.importance)
    feedback = Feedback(factors.data_ptr(), inputs.importance.data_ptr())
    layer.pack(weight[:21], 0, feedback)  # the second piece begins within a panel
    layer.pack(weight[21:], 21, feedback)
    return layer, feedback


@pytest.mark.parametrize("name", ROTATED)
@pytest.mark.parametrize("columns", COLUMNS)
def test_native_packing_feeds_back_as_defined(library: Library, name: str, columns: int) -> None:
    weight, inputs = torch.randn((43, columns)), inputs_of(uneven(columns))
    assert inputs is not None
    layer, feedback = pack(library, name, weight, inputs)
    found = layer.rows(torch.arange(43))
    defined = round_to_codes(weight, ROTATED[name], inputs).dequantise()
    # One weight that lies between two codes changes all later ones of its block.
    assert ((found - defined).abs() < 1e-4).float().mean() > 0.6
    weighed = [((one - weight).square() * inputs.importance).sum().item() for one in (found, defined)]
    assert weighed[0] == pytest.approx(weighed[1], rel=0.02)
    assert feedback is not None and feedback.rounded_error == pytest.approx(weighed[0], rel=1e-3)
    plain, _ = pack(library, name, weight, None)
    without = ((plain.rows(torch.arange(43)) - weight).square() * inputs.importance).sum().item()
    assert feedback.plain_error == pytest.approx(without, rel=1e-3)
    assert torch.equal(pack(library, name, weight, inputs, threads=1)[0].rows(torch.arange(43)), found)


def test_the_reported_cost_is_that_of_the_outputs() -> None:
    """Of rotated errors, what inputs with that diagonal make of them, in expectation."""
    inputs, errors = Inputs(torch.tensor([4.0, 1.0] * 64)), torch.randn((3, 128))
    moment = transform(128) @ torch.diag(inputs.importance.double()) @ transform(128)
    wanted = torch.einsum("ri,ij,rj->", errors.double(), moment, errors.double())
    assert cost(errors, inputs).item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("name", ROTATED)
def test_outputs_are_nearer_with_feedback(library: Library, name: str) -> None:
    generator = torch.Generator().manual_seed(4)
    squares = uneven(512)
    x = torch.randn((400, 512), generator=generator) * squares.sqrt()
    weight = torch.randn((64, 512), generator=generator) / squares.sqrt().clamp(min=1)
    inputs = inputs_of(x[:200].square().mean(0))
    wanted, errors = x[200:] @ weight.T, []
    for known in (inputs, None):
        layer, _ = pack(library, name, weight, known)
        errors.append((x[200:] @ layer.rows(torch.arange(64)).T - wanted).square().mean().item())
    assert errors[0] < 0.6 * errors[1]


def test_inputs_that_say_nothing() -> None:
    for nothing in (torch.zeros(8), torch.full((8,), torch.inf), torch.tensor([1.0, torch.nan])):
        assert inputs_of(nothing) is None
    found = inputs_of(torch.tensor([1.0, 3.0]))
    assert found is not None and found.importance.tolist() == pytest.approx([1.02, 3.02])


TABLE = Weight(("table",), (40,), 128, role="table")
UP, HEAD = Weight(("up",), (48,), 128, bias=True), Weight(("head",), (40,), 48, role="head")
UNUSED = Weight(("unused",), (16,), 128)


class Reader(Given):
    """Formats with feedback, and in rotated form."""

    def format_of(self, weight: Weight):
        format = super().format_of(weight)
        return None if format is None else replace(format, feedback=True)


def program(*more: Linear) -> Program:
    return Program(
        values={"x": 128, "y": 48, "z": 16},
        ops=(Embed("x", TABLE), Linear("y", "x", UP), *more),
        result="y",
        logits=Logits(HEAD),
        ropes=(),
        cache=(),
        max_positions=16,
    )


def reader(**changed: torch.Tensor) -> Reader:
    generator = torch.Generator().manual_seed(2)
    tensors = {
        f"{weight.names[0]}.weight": torch.randn((weight.rows, weight.columns), generator=generator)
        for weight in (TABLE, UP, HEAD, UNUSED)
    }
    tensors["up.bias"] = torch.randn(48, generator=generator)
    return Reader(tensors | changed, quantize="iq4_nl", rotated=True, calibration=list(range(40)))


def load(library: Library, weights: Reader, *more: Linear):
    return load_layers(Pool(library, 2), Arena(library), program(*more), weights)


def test_a_walk_shows_each_matrix_its_inputs(library: Library) -> None:
    """The first 16 tokens, as many as there are positions, of the table; then what the rounded layer makes of them."""
    weights = reader()
    layers = load(library, weights)
    x = weights.tensors["table.weight"][:16]
    for weight, inputs in ((UP, x), (HEAD, layers.of[UP](x))):
        expected, _ = pack(
            library, "iq4_nl", weights.tensors[f"{weight.names[0]}.weight"], inputs_of(inputs.square().mean(0))
        )
        ids = torch.arange(weight.rows)
        assert ((layers.of[weight].rows(ids) - expected.rows(ids)).abs() < 1e-4).float().mean() > 0.9


def test_matrices_that_no_text_reaches_are_rounded_plainly_and_named(library: Library, caplog) -> None:
    weights = reader(**{"table.weight": torch.full((40, 128), torch.nan)})
    with caplog.at_level(logging.WARNING):
        layers = load(library, weights)
    assert "2 matrices are rounded without error feedback, since the calibration text shows no inputs" in caplog.text
    plain, _ = pack(library, "iq4_nl", weights.tensors["up.weight"], None)
    assert torch.equal(layers.of[UP].rows(torch.arange(48)), plain.rows(torch.arange(48)))


def test_feedback_that_makes_it_worse_is_left_out_and_named(library: Library, caplog, monkeypatch) -> None:
    def harmful(pool: Pool, importance: torch.Tensor) -> torch.Tensor:
        good = feedback_factors(pool, importance)
        return -good if len(importance) == 128 else good

    monkeypatch.setattr(loading, "feedback_factors", harmful)
    squares = uneven(128).sqrt()
    weights = reader(**{"table.weight": torch.randn((40, 128)) * squares})
    with caplog.at_level(logging.WARNING):
        layers = load(library, weights)
    assert "1 matrices are rounded without error feedback, since feedback made" in caplog.text
    assert "larger: up" in caplog.text
    plain, _ = pack(library, "iq4_nl", weights.tensors["up.weight"], None)
    assert torch.equal(layers.of[UP].rows(torch.arange(48)), plain.rows(torch.arange(48)))
