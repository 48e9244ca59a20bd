"""Reading matrices for the reference backend: dequantised, rounded as the native kernels would round them."""

from __future__ import annotations

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.inputs import Inputs
from tgi.kernels.program import Program
from tgi.kernels.reference.step import Matrix
from tgi.kernels.reference.walk import Loaded, walk
from tgi.kernels.types import Backend, WeightReader
from tgi.kernels.weight import Weight


def load_matrices(
    program: Program, weights: WeightReader, device: torch.device, on_cpu: Backend
) -> dict[Weight, Matrix]:
    """Every matrix of the program; with a text to calibrate on, in the order in which it runs over that.

    on_cpu: the reference backend of a CPU.
    """
    matrices: dict[Weight, Matrix] = {}

    def load(weight: Weight, inputs: Inputs | None) -> Loaded:
        matrices[weight] = load_matrix(weight, weights, device, inputs)
        return InFloat32(matrices[weight])

    if weights.calibration:
        walk(program, weights, load, on_cpu)
    for weight in program.weights():
        if weight not in matrices:
            matrices[weight] = load_matrix(weight, weights, device)
    return matrices


class InFloat32:
    """A matrix for a walk on the CPU."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._matrix.weight
        return self._matrix(x.to(weight)).to(x)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        return self._matrix.rows(ids.to(self._matrix.weight.device)).float().cpu()


def load_matrix(weight: Weight, weights: WeightReader, device: torch.device, inputs: Inputs | None = None) -> Matrix:
    """Read a matrix piece by piece, dequantised to the serving dtype. inputs: which rounding may make use of."""
    matrix = torch.empty((weight.rows, weight.columns), dtype=weights.dtype, device=device)
    for first, piece in weights.pieces(weight, inputs=inputs):
        values = piece.dequantise() if isinstance(piece, CodedWeight) else piece
        matrix[first : first + len(values)].copy_(values)
    bias = weights.bias(weight)
    format = weights.format_of(weight)
    bias = None if bias is None else bias.to(device)
    if format is None or weights.activations != "int8":
        return Matrix(matrix, bias)
    return Matrix(matrix, bias, format.group, format.rotated)
