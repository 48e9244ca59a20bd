"""GPTQ, AWQ and their layouts: against the formulas written out, what they gain, readers of published layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tgi.errors import ModelError
from tgi.quant.making.awq import column_scales
from tgi.quant.making.gptq import Rounded, corrected, damped, gptq, nearest
from tgi.quant.making.grid import Grid, Steps, best_steps
from tgi.quant.making.layouts import awq_layout, gptq_layout


def given(rows: int = 24, columns: int = 160, count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, and inputs [count, columns] that go together, a few of them large."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn((columns // 4, columns), generator=generator)
    x = torch.randn((count, columns // 4), generator=generator) @ mixed / columns**0.5
    x += 0.2 * torch.randn(x.shape, generator=generator)
    x[:, :: max(1, columns // 5)] *= 20
    return torch.randn((rows, columns), generator=generator), x


def moment(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def naive(weight: torch.Tensor, x: torch.Tensor, grid: Grid, order: list[int]) -> np.ndarray:
    """Optimal brain quantisation, a column at a time: the inverse of what is left is updated after each."""
    hessian, importance = damped(moment(x), 0.01), moment(x).diagonal()
    inverse = np.linalg.inv(hessian.numpy())
    rest, found = weight.double().numpy().copy(), np.zeros(weight.shape)
    size = grid.columns(len(order))
    for number, k in enumerate(order):
        if number % size == 0:
            now = torch.from_numpy(rest[:, order[number : number + size]]).float()
            steps = best_steps(now, grid, importance[order[number : number + size]])
        column = torch.from_numpy(rest[:, k]).float()
        found[:, k] = steps.weights(steps.codes(column, grid.most)).numpy()
        error = (rest[:, k] - found[:, k]) / inverse[k, k]
        rest -= np.outer(error, inverse[k])
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        inverse[k, k] = 1  # no longer used
    return found


@pytest.mark.parametrize("group", [32, 96, -1])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_is_optimal_brain_quantisation(group: int, act_order: bool) -> None:
    weight, x = given(8, 160)
    grid, hessian = Grid(4, group), moment(x)
    large = hessian.diagonal().numpy()
    size = 160 if act_order else grid.columns(160)
    groups = [sorted(range(first, min(first + size, 160)), key=lambda k: -large[k]) for first in range(0, 160, size)]
    groups.sort(key=lambda group: (len(group) < size, -large[group].mean()))
    order = [k for group in groups for k in group]
    expected = naive(weight, x, grid, order)
    found = gptq(weight, hessian, grid, act_order=act_order)
    equal = np.abs(found.weights().numpy() - expected) < 1e-5
    assert equal.mean() > 0.98, "one weight between two codes changes those after it"
    assert (torch.bincount(found.of_column) <= grid.columns(160)).all() and len(found.scales[0]) == grid.groups(160)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_outputs_are_nearer_than_with_the_nearest_codes(bits: int, symmetric: bool) -> None:
    weight, x = given()
    grid = Grid(bits, 32, symmetric, least_zero=1)

    def error(rounded: Rounded) -> float:
        return float(((rounded.weights() - weight) @ x.T).square().mean())

    plain = error(nearest(weight, grid))
    assert error(gptq(weight, moment(x), grid)) < 0.7 * plain
    assert error(gptq(weight, moment(x), grid, act_order=True)) < 0.7 * plain


def test_best_steps_are_the_best_of_the_candidates() -> None:
    """Against each range tried by hand; a heavy column decides where errors are weighed."""
    values, grid = torch.randn((5, 64)), Grid(4, 64)
    values[:, 3] *= 8
    found = best_steps(values, grid)
    error = (found.weights(found.codes(values, 15)) - values).square().sum(1)
    for part in np.linspace(0.55, 1, 24):
        scale = ((values.amax(1) - values.amin(1)) * part / 15).half().float()
        zero = (-values.amin(1) * part / scale).round().clamp(0, 15)
        steps = Steps(scale, zero)
        assert (error <= (steps.weights(steps.codes(values, 15)) - values).square().sum(1) + 1e-5).all()
    importance = torch.ones(64)
    importance[3] = 1e6
    weighed = best_steps(values, grid, importance)
    assert ((weighed.weights(weighed.codes(values, 15)) - values)[:, 3].abs() <= weighed.scale * 0.51).all()


def test_groups_of_zeros_and_inputs_that_are_none() -> None:
    weight, x = given(8, 64)
    weight[:, :32] = 0
    x[:, 40:50] = 0
    rounded = gptq(weight, moment(x), Grid(4, 32))
    assert not rounded.weights()[:, :32].any() and torch.isfinite(rounded.weights()).all()
    with pytest.raises(ModelError, match="no numbers"):
        gptq(weight, moment(x) * torch.nan, Grid(4, 32))


def test_correction_is_the_least_squares_solution() -> None:
    """Ridge regression towards the matrix itself, by numpy."""
    weight, x = given(6, 40)
    difference = torch.randn((len(x), 6))
    found = corrected(weight, difference.T @ x / len(x), moment(x), 0.01).double().numpy()
    wide, ridge = x.double().numpy(), (damped(moment(x), 0.01) - moment(x).double()).diagonal().numpy() * len(x)
    system = np.vstack((wide, np.diag(np.sqrt(ridge))))
    target = np.vstack((difference.double().numpy(), np.zeros((40, 6))))
    expected = weight.double().numpy() + np.linalg.lstsq(system, target, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_column_scales_save_the_columns_that_matter() -> None:
    weight, x = given(64, 128)
    grid = Grid(4, 32)

    def error(scales: torch.Tensor) -> float:
        found = nearest(weight * scales, grid).weights() / scales
        return float(((found - weight) @ x.T).square().mean())

    scales = column_scales(weight, moment(x), x.abs().mean(0), grid)
    assert error(scales) < 0.8 * error(torch.ones(128))
    shared = torch.arange(128) // 2
    pairs = column_scales(weight, moment(x), x.abs().mean(0), grid, shared)
    assert torch.equal(pairs[::2], pairs[1::2]) and error(pairs) < error(torch.ones(128))


def words(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().view(np.uint32).astype(np.uint64)


def read_gptq(tensors: dict[str, torch.Tensor], bits: int) -> np.ndarray:
    """By the published layout: bit by bit down the columns of qweight and along the rows of qzeros."""

    def codes(packed: np.ndarray, count: int) -> np.ndarray:  # [words, n] -> [count, n]
        each = (packed[:, None] >> np.arange(32, dtype=np.uint64)[:, None]) & np.uint64(1)
        each = each.reshape(-1, packed.shape[1])[: count * bits].reshape(count, bits, -1)
        return (each * (1 << np.arange(bits, dtype=np.uint64))[:, None]).sum(1).astype(np.int64)

    of_column, scales = tensors["g_idx"].numpy(), tensors["scales"].float().numpy()
    zeros = codes(words(tensors["qzeros"]).T, scales.shape[1]).T + 1
    return ((codes(words(tensors["qweight"]), len(of_column)) - zeros[of_column]) * scales[of_column]).T


def read_awq(tensors: dict[str, torch.Tensor], group: int) -> np.ndarray:
    """By the published layout: nibbles 0 4 1 5 2 6 3 7 of a word are rows 0 to 7."""

    def codes(packed: np.ndarray) -> np.ndarray:
        parts = [packed >> np.uint64(4 * nibble) & np.uint64(15) for nibble in (0, 4, 1, 5, 2, 6, 3, 7)]
        return np.stack(parts, -1).reshape(len(packed), -1).astype(np.int64)

    zeros, scales = codes(words(tensors["qzeros"])), tensors["scales"].float().numpy()
    return ((codes(words(tensors["qweight"])) - zeros.repeat(group, 0)) * scales.repeat(group, 0)).T


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_files_of_gptq(bits: int, act_order: bool) -> None:
    weight, x = given(32, 160)
    rounded = gptq(weight, moment(x), Grid(bits, 64, least_zero=1), act_order=act_order)
    layout = gptq_layout(bits, 64)
    tensors = layout.tensors(rounded)
    assert tensors["qweight"].shape == (160 * bits // 32, 32) and tensors["qzeros"].shape == (3, bits)
    np.testing.assert_array_equal(read_gptq(tensors, bits).astype(np.float32), rounded.weights().numpy())
    assert torch.equal(layout.weights(tensors, 160), rounded.weights())


def test_files_of_awq() -> None:
    weight, x = given(32, 128)
    rounded = gptq(weight, moment(x), Grid(4, 32))
    layout = awq_layout()
    tensors = layout.tensors(rounded)
    assert tensors["qweight"].shape == (128, 4) and tensors["qzeros"].shape == (4, 4)
    np.testing.assert_array_equal(read_awq(tensors, 32).astype(np.float32), rounded.weights().numpy())
    assert torch.equal(layout.weights(tensors, 128), rounded.weights())


def test_rows_of_a_rounded_matrix_are_those_of_the_whole() -> None:
    rounded = nearest(torch.randn((32, 64)), Grid(4, 32, least_zero=1))
    rows = torch.arange(0, 32, 2)
    assert torch.equal(rounded.rows_of(rows).weights(), rounded.weights()[rows])
