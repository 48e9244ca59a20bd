"""`Stream`: runs a program once over a text, matrix by matrix, each of them rounded when its inputs are there.

The text runs through twice in one batch: through what has been rounded so far, and through the original. So a matrix is
rounded knowing what it will get, and what it should give. Of the weights only one matrix is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch

from tgi.kernels.program import Attention, Experts, HeadLinear, Linear, Program, StoreKV
from tgi.kernels.reference import ops
from tgi.kernels.reference.backend import ReferenceBackend
from tgi.kernels.reference.step import RUN, Matrix, ReferenceStep, State
from tgi.kernels.types import CacheShape, KVCache, Paging, WeightReader
from tgi.kernels.weight import Weight

CPU = torch.device("cpu")
SMALLEST_ROW = 0.1
"""Of the median of the mean squares of rows: those that are smaller count as if they were not."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a matrix gets. Rows are multiplied with the square roots of what their errors count, see `counts`."""

    rounded: torch.Tensor  # [rows, columns] float32: behind matrices that are rounded
    original: torch.Tensor | None = None  # [rows, columns]: behind those of the original; None: not known
    missing: torch.Tensor | None = None  # [rows, outputs]: what the sum that the outputs are added to should have more


Round: TypeAlias = Callable[[Weight, torch.Tensor, Inputs], torch.Tensor]
"""Given a matrix [rows, columns] float32, gives what it is rounded to, or the same where it stays."""


class Unread:
    """Stands in for a matrix: reads it when it is used, and forgets it."""

    def __init__(self, weight: Weight, weights: WeightReader, round: Round) -> None:
        self.weight, self._weights, self._round = weight, weights, round

    def read(self) -> torch.Tensor:
        """[rows, columns] float32"""
        return read_matrix(self.weight, self._weights)

    def bias(self) -> torch.Tensor | None:
        bias = self._weights.bias(self.weight)
        return None if bias is None else bias.float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return ops.linear(x, self._round(self.weight, self.read(), Inputs(x)), self.bias())

    def pairs(self, x: torch.Tensor, sums: torch.Tensor | None) -> torch.Tensor:
        """x [2 n, columns]: n rows behind rounded matrices, then the same behind the original's.

        sums [2 n, rows]: what the result is added to, if it is.
        """
        matrix, bias, (rounded, original) = self.read(), self.bias(), x.chunk(2)
        y = ops.linear(original, matrix, bias)
        if sums is None:
            inputs = Inputs(rounded, original)
        else:
            behind_rounded, behind_original = sums.chunk(2)
            roots = counts(behind_original + y).sqrt_().unsqueeze(1)
            inputs = Inputs(rounded * roots, original * roots, (behind_original - behind_rounded) * roots)
        matrix = self._round(self.weight, matrix, inputs)
        return torch.cat((ops.linear(rounded, matrix, bias), y))

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        found = torch.zeros((len(ids), self.weight.columns))
        for first, piece in self._weights.pieces(self.weight, rounded=False):
            assert isinstance(piece, torch.Tensor), "checkpoints in codes are refused"
            here = (ids >= first) & (ids < first + len(piece))
            found[here] = piece[ids[here] - first].float()
        return found


class Stream(ReferenceStep):
    """A step in float32 over matrices that are read on the way."""

    def __init__(self, program: Program, weights: WeightReader, round: Round, block_size: int) -> None:
        self._unread = {weight: Unread(weight, weights, round) for weight in program.weights()}
        stand_ins: dict[Weight, Matrix] = self._unread  # type: ignore[assignment]
        super().__init__(program, weights, block_size, CPU, stand_ins)
        self._vectors = {vector: values.float() for vector, values in self._vectors.items()}
        self.paired = not any(isinstance(op, Experts | HeadLinear) for op in program.ops)
        """Experts choose rows: those of the two runs would not go together."""
        self._last = {name: number for number, op in enumerate(program.ops) for name in _values(op)}

    def run(self, state: State, done: Callable[[int], None]) -> None:
        """All operations, without the head. done: hears how many are."""
        for number, op in enumerate(self.program.ops):
            if isinstance(op, Linear) and self.paired:
                sums = state.values[op.out] if op.add else None
                y = self._unread[op.weight].pairs(state.values[op.x], sums)
                state.values[op.out] = y if sums is None else sums + y
            else:
                RUN[type(op)](self, state, op)
            for name in [name for name in state.values if self._last[name] <= number]:
                del state.values[name]
            done(number + 1)


def stream(
    program: Program, weights: WeightReader, texts: Sequence[Sequence[int]], round: Round, done: Callable[[int], None]
) -> None:
    """Run a decoder's program over texts of token ids; `round` gets each matrix that it meets, the head apart."""
    backend = ReferenceBackend(CPU)
    step = Stream(program, weights, round, backend.block_size)
    every = [*texts, *texts] if step.paired else list(texts)
    paging, blocks = whole_texts([len(text) for text in every], backend.block_size)
    ids = torch.tensor([token for text in every for token in text])
    with torch.inference_mode():
        state = step.begin(ids, paging, make_cache(program, backend, blocks, len(every)))
        step.run(state, done)


def counts(sums: torch.Tensor) -> torch.Tensor:
    """What an error of each row counts, [rows], 1 on average; sums [rows, width]: what errors are added to.

    Norms follow, which divide a row by its size. The mean squares of first tokens are up to 25,000 times as large as
    others' in SmolLM2-135M, and would decide alone what the least error is.
    """
    sizes = sums.square().mean(1)
    found = 1 / sizes.clamp(min=max(SMALLEST_ROW * float(sizes.median()), torch.finfo(sizes.dtype).tiny))
    return found / found.mean()


def read_matrix(weight: Weight, weights: WeightReader) -> torch.Tensor:
    """[rows, columns] float32"""
    matrix = torch.empty((weight.rows, weight.columns))
    for first, piece in weights.pieces(weight, rounded=False):
        assert isinstance(piece, torch.Tensor), "checkpoints in codes are refused"
        matrix[first : first + len(piece)] = piece.float()
    return matrix


def whole_texts(lengths: Sequence[int], block_size: int) -> tuple[Paging, int]:
    """Whole prompts of these lengths side by side, and the blocks that they need."""
    blocks = [-(-length // block_size) for length in lengths]
    first = [0, *accumulate(blocks)]
    positions = torch.cat([torch.arange(length) for length in lengths])
    starts = torch.cat([torch.full((length,), first[i] * block_size) for i, length in enumerate(lengths)])
    tables = torch.zeros((len(lengths), max(blocks)), dtype=torch.int64)
    for number, count in enumerate(blocks):
        tables[number, :count] = first[number] + torch.arange(count)
    paging = Paging(
        positions=positions,
        slots=positions + starts,
        block_tables=tables,
        query_lens=list(lengths),
        context_lens=list(lengths),
        query_starts=torch.tensor([0, *accumulate(lengths)]),
        contexts=torch.tensor(list(lengths)),
        state_reads=torch.full((len(lengths),), -1),
        state_writes=torch.arange(len(lengths)),
    )
    return paging, first[-1]


def make_cache(program: Program, backend: ReferenceBackend, blocks: int, sequences: int) -> KVCache:
    """A cache of one layer for all, where each layer's keys are used up before the next one's are written."""
    shape = CacheShape(program.cache, torch.float32, program.states)
    if len(set(program.cache)) != 1 or not _layer_by_layer(program):
        return backend.allocate_cache(shape, blocks, sequences)
    one = backend.allocate_cache(CacheShape(program.cache[:1], torch.float32, program.states), blocks, sequences)
    count = len(program.cache)
    return KVCache(shape, blocks, one.block_size, one.keys * count, one.values * count, one.states)


def _layer_by_layer(program: Program) -> bool:
    stored = None
    for op in program.ops:
        if isinstance(op, StoreKV):
            stored = op.layer
        elif isinstance(op, Attention) and op.layer != stored:
            return False
    return True


def _values(op: object) -> list[str]:
    """Names of the values of an operation."""
    names = (getattr(op, field, None) for field in ("out", "x", "router", "other"))
    return [name for name in names if isinstance(name, str)]
