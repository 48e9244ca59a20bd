"""A class that keeps a cache of its own: one for each sequence, and a padded batch of those that get their next token.

Sequences are told apart by their first block, which no two of them share as long as prefixes are not shared; what is
kept of a sequence is let go once any of its blocks is another's. The batch stays joined from step to step while it is
the same sequences, and is joined anew when one comes or goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tgi.kernels.outline import Outline
from tgi.kernels.types import KVCache, Paging
from tgi.models.fallback.batch_cache import join, part
from tgi.models.fallback.module import Divided
from tgi.models.fallback.paged import weight_bytes
from tgi.models.fallback.source import outline_of


@dataclass(frozen=True, slots=True)
class Way:
    """How much of a class's own cache can be relied on."""

    batched: bool = True
    """Single next tokens of several sequences go through it as one padded batch; else one by one."""
    continued: bool = True
    """It takes several tokens behind those it holds; else they are computed again from the first."""
    cached: bool = True
    """It can be used at all; else every step computes the sequence from its first token."""

    def __str__(self) -> str:
        if not self.cached:
            return "without a cache, every sequence anew in each step"
        batch = "in a padded batch" if self.batched else "one sequence after the other"
        return f"with its own cache, {batch}" + ("" if self.continued else ", chunks of prompts from the first token")


WAYS = (Way(), Way(continued=False), Way(batched=False), Way(batched=False, continued=False), Way(cached=False))
"""The fastest first."""


@dataclass(slots=True)
class _Kept:
    """One sequence."""

    tokens: list[int]
    blocks: set[int]
    cache: Any = None
    """None while it is in the joined batch, or cannot be continued."""


@dataclass(slots=True)
class _Joined:
    keys: list[int] = field(default_factory=list)
    cache: Any = None


class OwnCacheStep:
    """See `CompiledStep`. Nothing of it lies in the engine's cache, but its blocks tell how much may be kept."""

    shares_blocks = False

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, way: Way) -> None:
        self.model, self.device, self.dtype, self.way = model, device, dtype, way
        self.program: Outline = outline_of(model, model.config)
        self._divided = Divided(model)
        self._kept: dict[int, _Kept] = {}
        self._joined = _Joined()

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.model)

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        raise AssertionError("there is no encoder")

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        pieces = token_ids.split(paging.query_lens)
        tables = paging.block_tables.tolist()
        chunks: list[tuple[int, int, list[int]]] = []  # (key, start, ids)
        for ids, table, context in zip(pieces, tables, paging.context_lens, strict=True):
            blocks = table[: -(-context // cache.block_size)]
            start = context - len(ids)
            self._let_go(blocks, start)
            chunks.append((blocks[0], start, ids.tolist()))
        batch = [at for at, chunk in enumerate(chunks) if self._joins(*chunk)]
        rows: dict[int, torch.Tensor] = {}
        if len(batch) > 1:
            keys = [chunks[at][0] for at in batch]
            hidden = self._next_of_all(keys, [chunks[at][2][0] for at in batch])
            rows = dict(zip(batch, hidden, strict=True))
        for at, chunk in enumerate(chunks):
            if at not in rows:
                rows[at] = self._alone(*chunk)
        for (key, _, _), table, context in zip(chunks, tables, paging.context_lens, strict=True):
            self._kept[key].blocks = set(table[: -(-context // cache.block_size)])
        return torch.cat([rows[at] for at in range(len(chunks))])

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return self._divided.head(hidden)

    def profile(self) -> dict[str, float]:
        return {}

    def _let_go(self, blocks: list[int], start: int) -> None:
        """Forget sequences that had one of these blocks, but the one that goes on."""
        mine = blocks[0]
        taken = set(blocks)
        for key, kept in list(self._kept.items()):
            if (key != mine and kept.blocks & taken) or (key == mine and start == 0):
                if key in self._joined.keys:
                    self._take_apart()
                del self._kept[key]

    def _joins(self, key: int, start: int, ids: list[int]) -> bool:
        """Whether a chunk is the next token of a sequence that can be in the batch."""
        kept = self._kept.get(key)
        ready = kept is not None and len(kept.tokens) == start and (kept.cache is not None or key in self._joined.keys)
        return self.way.batched and self.way.cached and len(ids) == 1 and ready

    def _next_of_all(self, keys: list[int], tokens: list[int]) -> list[torch.Tensor]:
        """The next token of several sequences -> [1, n] for each."""
        if keys != self._joined.keys:
            self._take_apart()
            self._joined = _Joined(keys, join([self._kept[key].cache for key in keys]))
            for key in keys:
                self._kept[key].cache = None
        # Caches grow in place: of a step that fails nothing is kept, and its sequences are computed anew.
        joined, self._joined = self._joined, _Joined()
        lengths = [len(self._kept[key].tokens) for key in keys]
        longest = max(lengths) + 1
        mask = torch.tensor([[0] * (longest - 1 - length) + [1] * (length + 1) for length in lengths])
        positions = torch.tensor(lengths)[:, None]
        ids = torch.tensor(tokens)[:, None]
        device = self.device
        hidden, joined.cache = self._divided.body(
            ids.to(device), positions.to(device), mask=mask.to(device), cache=joined.cache, use_cache=True
        )
        self._joined = joined
        for key, token in zip(keys, tokens, strict=True):
            self._kept[key].tokens.append(token)
        return list(hidden)

    def _take_apart(self) -> None:
        """Give each sequence of the batch its own cache back."""
        joined, self._joined = self._joined, _Joined()
        for row, key in enumerate(joined.keys):
            kept = self._kept[key]
            kept.cache = part(joined.cache, row, len(kept.tokens))

    def _alone(self, key: int, start: int, ids: list[int]) -> torch.Tensor:
        """A chunk of one sequence -> [tokens, n]."""
        if key in self._joined.keys:
            self._take_apart()
        kept = self._kept.get(key) or _Kept([], set())
        self._kept[key] = kept
        can = self.way.cached and (self.way.continued or len(ids) == 1 or start == 0)
        goes_on = can and len(kept.tokens) == start and (kept.cache is not None or start == 0)
        before, kept.cache = kept.cache if goes_on else None, None  # see `_next_of_all`
        tokens = kept.tokens[:start] + ids
        skipped = 0 if goes_on else start
        # Without positions: a sequence alone has those that its class gives it.
        hidden, cache = self._divided.body(
            torch.tensor([ids if goes_on else tokens], device=self.device), cache=before, use_cache=self.way.cached
        )
        kept.tokens = tokens
        kept.cache = cache if self.way.cached else None
        return hidden[0, skipped:]
