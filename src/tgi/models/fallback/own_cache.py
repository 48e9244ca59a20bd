"""A class that keeps a cache of its own: one for each sequence, and padded batches of those that get their next token.

Sequences are told apart by their first block, which no two of them share as long as prefixes are not shared; what is
kept of a sequence is let go once any of its blocks is another's, and its cache when it has not run for some steps: the
engine does not say that it has ended. A batch stays joined from step to step while it is the same sequences, and is
joined anew when one comes or goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tgi.kernels.outline import Outline
from tgi.kernels.types import KVCache, Paging
from tgi.models.fallback.batch_cache import join, part
from tgi.models.fallback.encoder_decoder import EncoderDecoder, padded
from tgi.models.fallback.module import Divided
from tgi.models.fallback.paged import weight_bytes
from tgi.models.fallback.source import outline_of

IDLE_STEPS = 8
"""Steps without a sequence after which its cache goes; if it comes back it is computed from its first token."""
NEAR = 64
"""Tokens that a sequence of a padded batch may always have more than another; beyond that twice as many."""


@dataclass(frozen=True, slots=True)
class Way:
    """How much of a class's own cache can be relied on."""

    together: Literal["padded", "equal"] | None = "padded"
    """Which sequences get their next token together: any, padded; those of one length; none."""
    continued: bool = True
    """It takes several tokens behind those it holds; else they are computed again from the first."""
    cached: bool = True
    """It can be used at all; else every step computes the sequence from its first token."""
    told: bool = False
    """A sequence alone is told its positions; else its class finds them."""

    def __str__(self) -> str:
        if not self.cached:
            return "without a cache, every sequence anew in each step"
        batch = {
            "padded": "in a padded batch",
            "equal": "in batches of sequences of one length",
            None: "one sequence after the other",
        }[self.together]
        return f"with its own cache, {batch}" + ("" if self.continued else ", chunks of prompts from the first token")


WAYS = (
    Way(),
    Way(continued=False),
    Way(told=True),
    Way(continued=False, told=True),
    Way("equal"),
    Way("equal", continued=False),
    Way(None),
    Way(None, continued=False),
    Way(None, cached=False),
)
"""The fastest first."""


@dataclass(slots=True)
class _Kept:
    """One sequence."""

    tokens: list[int]
    blocks: set[int]
    cache: Any = None
    """None while it is in a joined batch, or cannot be continued."""
    encoded: torch.Tensor | None = None
    """[1, tokens of the input, n], of a model with an encoder."""
    last_step: int = 0

    def near(self, other: _Kept) -> bool:
        """Whether padding one of them to the other's length wastes little."""
        pairs = [(len(self.tokens), len(other.tokens))]
        if self.encoded is not None and other.encoded is not None:
            pairs.append((self.encoded.shape[1], other.encoded.shape[1]))
        return all(max(pair) <= 2 * min(pair) + NEAR for pair in pairs)


@dataclass(slots=True)
class _Joined:
    """The caches of several sequences as one."""

    keys: list[int]
    cache: Any
    more: dict[str, torch.Tensor]
    """What the body reads of an encoder."""


@dataclass(slots=True)
class _Chunk:
    key: int
    start: int
    ids: list[int]


class OwnCacheStep:
    """See `CompiledStep`. Nothing of it lies in the engine's cache, but its blocks tell how much may be kept."""

    shares_blocks = False

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, way: Way) -> None:
        self.model, self.device, self.dtype, self.way = model, device, dtype, way
        self.program: Outline = outline_of(model, model.config)
        self._divided = Divided(model) if self.program.encoder is None else EncoderDecoder(model)
        self._kept: dict[int, _Kept] = {}
        self._joined: list[_Joined] = []
        self._step = 0
        self.never: list[int] = []
        """Tokens that get a logit of minus infinity."""

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.model)

    @property
    def hidden_size(self) -> int:
        return self.program.hidden_size if isinstance(self._divided, Divided) and self._divided.split else 0

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        assert isinstance(self._divided, EncoderDecoder)
        for ids, blocks in zip(token_ids.split(paging.query_lens), _blocks(paging, cache.block_size), strict=True):
            self._let_go(set(blocks))
            encoded = self._divided.encode(ids[None])
            self._kept[blocks[0]] = _Kept([], set(blocks), encoded=encoded, last_step=self._step)

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        self._step += 1
        chunks = self._chunks(token_ids, paging, cache.block_size)
        rows: dict[int, torch.Tensor] = {}
        for group in self._groups([chunk for chunk in chunks if self._joins(chunk)]):
            if len(group) > 1:
                rows |= self._next_of_all(group)
        for chunk in chunks:
            if chunk.key not in rows:
                rows[chunk.key] = self._alone(chunk)
        self._drop_idle()
        return torch.cat([rows[chunk.key] for chunk in chunks])

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        logits = self._divided.head(hidden)
        if self.never:
            logits[:, self.never] = -torch.inf
        return logits

    def profile(self) -> dict[str, float]:
        return {}

    def _chunks(self, token_ids: torch.Tensor, paging: Paging, block_size: int) -> list[_Chunk]:
        """What to compute; sequences whose blocks others have now are forgotten."""
        own = _blocks(paging, block_size)
        inputs = [[]] * len(own) if paging.encoder is None else _blocks(paging.encoder, block_size)
        chunks: list[_Chunk] = []
        for ids, blocks, given, context in zip(
            token_ids.split(paging.query_lens), own, inputs, paging.context_lens, strict=True
        ):
            chunk = _Chunk((given or blocks)[0], context - len(ids), ids.tolist())
            self._let_go({*given, *blocks}, but=chunk.key)
            if chunk.start == 0:
                self._begin(chunk.key)
            kept = self._kept.setdefault(chunk.key, _Kept([], set()))
            kept.blocks, kept.last_step = {*given, *blocks}, self._step
            chunks.append(chunk)
        return chunks

    def _begin(self, key: int) -> None:
        """A sequence is computed from its first token; the encoder's result stays."""
        if kept := self._kept.get(key):
            self._take_apart(key)
            kept.tokens, kept.cache = [], None

    def _let_go(self, taken: set[int], but: int | None = None) -> None:
        """Forget sequences that had one of these blocks, but the one that goes on."""
        for key, kept in list(self._kept.items()):
            if key != but and kept.blocks & taken:
                self._take_apart(key)
                del self._kept[key]

    def _drop_idle(self) -> None:
        """Drop the caches of sequences that have not run for some steps."""
        idle = {key for key, kept in self._kept.items() if self._step - kept.last_step >= IDLE_STEPS}
        self._joined = [joined for joined in self._joined if not idle.issuperset(joined.keys)]
        for key in idle:
            self._take_apart(key)
            self._kept[key].cache = None

    def _joins(self, chunk: _Chunk) -> bool:
        """Whether a chunk is the next token of a sequence that can be in a batch."""
        kept = self._kept[chunk.key]
        ready = len(kept.tokens) == chunk.start and (kept.cache is not None or self._joined_with(chunk.key) is not None)
        return self.way.together is not None and len(chunk.ids) == 1 and ready

    def _groups(self, chunks: list[_Chunk]) -> list[list[_Chunk]]:
        """Those that go through the model together, in an order that stays while they go on together."""
        groups: list[list[_Chunk]] = []
        for chunk in sorted(chunks, key=lambda chunk: (-chunk.start, chunk.key)):
            mine = (group for group in groups if self._together(group[0], chunk))
            if (group := next(mine, None)) is not None:
                group.append(chunk)
            else:
                groups.append([chunk])
        return groups

    def _together(self, one: _Chunk, other: _Chunk) -> bool:
        equal = one.start == other.start or self.way.together == "padded"
        return equal and self._kept[one.key].near(self._kept[other.key])

    def _next_of_all(self, chunks: list[_Chunk]) -> dict[int, torch.Tensor]:
        """The next token of several sequences -> [1, n] for each."""
        keys = [chunk.key for chunk in chunks]
        kept = [self._kept[key] for key in keys]
        joined = next((joined for joined in self._joined if joined.keys == keys), None) or self._join(keys)
        # Caches grow in place: of a step that fails nothing is kept, and its sequences are computed anew.
        self._joined = [one for one in self._joined if one is not joined]
        lengths = [len(one.tokens) for one in kept]
        longest = max(lengths) + 1
        mask = [[0] * (longest - 1 - length) + [1] * (length + 1) for length in lengths]
        hidden, joined.cache = self._divided.body(
            self._tensor([chunk.ids for chunk in chunks]),
            self._tensor(lengths)[:, None],
            mask=self._tensor(mask),
            cache=joined.cache,
            use_cache=True,
            **joined.more,
        )
        self._joined.append(joined)
        for one, chunk in zip(kept, chunks, strict=True):
            one.tokens += chunk.ids
        return dict(zip(keys, hidden, strict=True))

    def _join(self, keys: list[int]) -> _Joined:
        for key in keys:
            self._take_apart(key)
        kept = [self._kept[key] for key in keys]
        joined = _Joined(keys, join([one.cache for one in kept]), padded([one.encoded for one in kept]))
        for one in kept:
            one.cache = None
        return joined

    def _joined_with(self, key: int) -> _Joined | None:
        return next((joined for joined in self._joined if key in joined.keys), None)

    def _take_apart(self, key: int) -> None:
        """Give each sequence of the batch that this one is in its own cache back."""
        joined = self._joined_with(key)
        if joined is None:
            return
        self._joined.remove(joined)
        for row, key in enumerate(joined.keys):
            kept = self._kept[key]
            length = 0 if kept.encoded is None else kept.encoded.shape[1]
            kept.cache = part(joined.cache, row, len(kept.tokens), length)

    def _alone(self, chunk: _Chunk) -> torch.Tensor:
        """A chunk of one sequence -> [tokens, n]."""
        self._take_apart(chunk.key)
        kept, start, ids = self._kept[chunk.key], chunk.start, chunk.ids
        can = self.way.cached and (self.way.continued or len(ids) == 1 or start == 0)
        goes_on = can and len(kept.tokens) == start and (kept.cache is not None or start == 0)
        before, kept.cache = kept.cache if goes_on else None, None  # see `_next_of_all`
        tokens = kept.tokens[:start] + ids
        given = ids if goes_on else tokens
        positions = self._tensor([[*range(len(tokens) - len(given), len(tokens))]])
        hidden, cache = self._divided.body(
            self._tensor([given]),
            positions if self.way.told else None,
            cache=before,
            use_cache=self.way.cached,
            **padded([kept.encoded]),
        )
        kept.tokens = tokens
        kept.cache = cache if self.way.cached else None
        return hidden[0, 0 if goes_on else start :]

    def _tensor(self, numbers: list[int] | list[list[int]]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.device)


def _blocks(where: Any, block_size: int) -> list[list[int]]:
    """The blocks of each sequence, of a `Paging` or of `EncoderKeys`."""
    lens = where.context_lens if isinstance(where, Paging) else where.lens
    tables = where.block_tables.tolist()
    return [table[: -(-length // block_size)] for table, length in zip(tables, lens, strict=True)]
