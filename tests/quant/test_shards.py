"""A rank's share of a matrix: the right rows and columns, and nothing else is read."""

from __future__ import annotations

import pytest
import torch

from tgi.kernels.weight import Weight
from tgi.quant.formats.base import Buffer, Shard
from tgi.quant.formats.plain import Plain

COLUMNS = 24


class Source:
    """Tensors by name that count what is read of them."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors, self.read_numbers = tensors, 0

    def has(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        into.copy_(self.tensors[name][index])
        self.read_numbers += into.numel()


def stored(weight: Weight) -> tuple[Source, torch.Tensor]:
    """A checkpoint of this weight, and the whole matrix."""
    source = Source({name: torch.randn(shape) for name, shape in weight.stored_shapes()})
    return source, matrix(weight, source, Shard())


def matrix(weight: Weight, source: Source, shard: Shard) -> torch.Tensor:
    parts = {first: piece.clone() for first, piece in Plain().pieces(weight, source, Buffer(torch.float32), shard)}
    assert list(parts) == sorted(parts)
    ends = [0, *torch.tensor([len(piece) for piece in parts.values()]).cumsum(0).tolist()]
    assert list(parts) == ends[:-1], "rows are numbered without gaps within the share"
    return torch.cat(list(parts.values()))


WEIGHTS = {
    "one": Weight(("w",), (16,), COLUMNS, split="rows"),
    "q, k, v": Weight(("q", "k", "v"), (16, 8, 8), COLUMNS, split="rows"),
    "stored stacked": Weight(("qkv",), (16, 8, 8), COLUMNS, split="rows"),
    "stored stacked and transposed": Weight(("qkv",), (16, 8, 8), COLUMNS, transposed=True, split="rows"),
    "gate and up": Weight(("gate", "up"), (12, 12), COLUMNS, transposed=True, split="rows"),
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", WEIGHTS)
def test_rows_of_each_part(name: str, ranks: int) -> None:
    weight = WEIGHTS[name]
    source, whole = stored(weight)
    parts = whole.split(weight.parts)
    for rank in range(ranks):
        source.read_numbers = 0
        share = matrix(weight, source, Shard(rank, ranks))
        assert torch.equal(share, torch.cat([part.chunk(ranks)[rank] for part in parts]))
        assert source.read_numbers == whole.numel() // ranks


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_columns(ranks: int, transposed: bool) -> None:
    weight = Weight(("w",), (10,), COLUMNS, transposed=transposed, split="columns")
    source, whole = stored(weight)
    for rank in range(ranks):
        source.read_numbers = 0
        assert torch.equal(matrix(weight, source, Shard(rank, ranks)), whole.chunk(ranks, 1)[rank])
        assert source.read_numbers == whole.numel() // ranks


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_heads_that_are_stored_one_after_another_stay_whole(ranks: int) -> None:
    """q, k, v of head 0, then of head 1 ...: a rank has all three of its heads."""
    heads, dim = 6, 4
    weight = Weight(("qkv",), (heads * dim,) * 3, COLUMNS, groups=heads, split="rows")
    source, whole = stored(weight)
    for rank in range(ranks):
        mine = slice(rank * heads // ranks, (rank + 1) * heads // ranks)
        wanted = torch.cat([part.unflatten(0, (heads, dim))[mine].flatten(0, 1) for part in whole.chunk(3)])
        assert torch.equal(matrix(weight, source, Shard(rank, ranks)), wanted)


def test_what_nobody_shares_is_read_whole() -> None:
    weight = Weight(("table",), (10,), COLUMNS)
    source, whole = stored(weight)
    assert torch.equal(matrix(weight, source, Shard(1, 2)), whole)
