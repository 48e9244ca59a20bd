"""`walk`: loads a program by running it once over a text, so that each matrix is rounded knowing what inputs it gets.

Matrix by matrix as a step reads them: the inputs of a matrix are there before it is read, and its outputs come from
what it was rounded to. So beside the packed weights only a piece of one matrix and the rows of the text are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.inputs import Inputs, inputs_of
from tgi.kernels.program import Program
from tgi.kernels.reference.step import Matrix, ReferenceStep
from tgi.kernels.types import Backend, CacheShape, EncoderKeys, Paging, WeightReader
from tgi.kernels.weight import Weight


class Loaded(Protocol):
    """A matrix in place, of either backend."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, columns] -> [tokens, rows] of the same dtype, with the bias."""
        ...

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `ids` [count] of a table, [count, columns]."""
        ...


Load: TypeAlias = Callable[[Weight, Inputs | None], Loaded]
"""Loads a matrix, given what is known of its inputs."""

CPU = torch.device("cpu")


class LoadedLater:
    """Stands in for a matrix until it is first multiplied, or looked up where that is its role; then loads it."""

    def __init__(self, weight: Weight, weights: WeightReader, load: Load) -> None:
        self._weight, self._weights, self._load = weight, weights, load
        self._matrix: Loaded | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.loaded_for(x)(x)

    def loaded_for(self, x: torch.Tensor) -> Loaded:
        """The matrix, loaded for inputs like x [tokens, columns] if it was not yet."""
        if self._matrix is None:
            self._matrix = self._load(self._weight, inputs_of(x.square().mean(0)))
        return self._matrix

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        if self._matrix is None and self._weight.role == "table":
            self._matrix = self._load(self._weight, None)
        return self._stored_rows(ids) if self._matrix is None else self._matrix.rows(ids).float()

    def _stored_rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Of a head, whose inputs come last."""
        found = torch.zeros((len(ids), self._weight.columns))
        for first, piece in self._weights.pieces(self._weight, rounded=False):
            rows = piece.dequantise() if isinstance(piece, CodedWeight) else piece
            here = (ids >= first) & (ids < first + len(rows))
            found[here] = rows[ids[here] - first].float()
        return found


class Walk(ReferenceStep):
    """A step in float32 over matrices that are loaded on the way."""

    def __init__(
        self, program: Program, weights: WeightReader, matrices: dict[Weight, Matrix], block_size: int
    ) -> None:
        super().__init__(program, weights, block_size, CPU, matrices)
        self._vectors = {vector: values.float() for vector, values in self._vectors.items()}


def walk(program: Program, weights: WeightReader, load: Load, backend: Backend) -> None:
    """Run the program over `weights.calibration`; each matrix that it multiplies with is given to `load`.

    backend: the reference's on a CPU, for its cache.
    """
    matrices = {weight: LoadedLater(weight, weights, load) for weight in program.weights()}
    step = Walk(program, weights, matrices, backend.block_size)  # type: ignore[arg-type]  # they stand in
    most = (
        program.max_positions if program.encoder is None else min(program.max_positions, program.encoder.max_positions)
    )
    ids = torch.tensor(weights.calibration)[:most]
    paging = one_sequence(len(ids), backend.block_size)
    blocks = paging.block_tables.shape[1]
    shape = CacheShape(program.cache, torch.float32, program.states)
    cache = backend.allocate_cache(shape, 2 * blocks, 1)
    with torch.inference_mode():
        if program.encoder is not None:
            given = one_sequence(len(ids), backend.block_size, blocks)
            step.encode(ids % program.input_vocab_size, given, cache)
            paging.encoder = EncoderKeys(given.block_tables, given.context_lens, given.contexts)
        hidden = step.forward(ids, paging, cache)
        matrices[program.logits.weight].loaded_for(hidden)


def one_sequence(tokens: int, block_size: int, first_block: int = 0) -> Paging:
    """A prompt of `tokens` tokens alone in a cache, in blocks from `first_block` on."""
    positions = torch.arange(tokens)
    return Paging(
        positions=positions,
        slots=positions + first_block * block_size,
        block_tables=(first_block + torch.arange(-(-tokens // block_size))).unsqueeze(0),
        query_lens=[tokens],
        context_lens=[tokens],
        query_starts=torch.tensor([0, tokens]),
        contexts=torch.tensor([tokens]),
        state_reads=torch.tensor([-1]),
        state_writes=torch.tensor([0]),
    )
