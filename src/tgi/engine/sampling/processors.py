"""Penalties, logit bias and the ban on ending early: what changes single logits of a row.

Each touches only the ids it is about, gathered over all rows of a step, so that the cost does not
grow with the vocabulary. The running counts grow with the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tgi.engine.plan import Draw, has_penalty


class Counts:
    """Distinct ids of one sequence and how often each was generated (0: only in the prompt).

    `ids` and `times` are views of buffers that double when full.
    """

    def __init__(self, draw: Draw, vocab_size: int) -> None:
        # Only the repetition penalty looks at the prompt.
        prompt = draw.token_ids[: draw.num_prompt] if draw.sampling.repetition_penalty != 1.0 else []
        distinct = np.unique(np.array(prompt, dtype=np.int64))
        distinct = distinct[distinct < vocab_size]  # a head may have fewer rows than the embedding
        self._ids = distinct
        self._times = np.zeros(len(distinct), dtype=np.float32)
        self._slots = {token: slot for slot, token in enumerate(distinct.tolist())}
        self._known = draw.num_prompt

    def update(self, draw: Draw) -> None:
        """Count the tokens generated since the last call."""
        for token in draw.token_ids[self._known :]:
            slot = self._slots.setdefault(token, len(self._slots))
            if slot == len(self._ids):
                room = max(64, slot)
                self._ids = np.concatenate([self._ids, np.zeros(room, dtype=np.int64)])
                self._times = np.concatenate([self._times, np.zeros(room, dtype=np.float32)])
            self._ids[slot] = token
            self._times[slot] += 1.0
        self._known = len(draw.token_ids)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return self._ids[: len(self._slots)]

    @property
    def times(self) -> npt.NDArray[np.float32]:
        return self._times[: len(self._slots)]


@dataclass(slots=True)
class SamplerState:
    """What the sampler remembers of a sequence; all of it can be computed again from a draw."""

    counts: Counts | None
    bias_ids: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32]
    banned: npt.NDArray[np.int64]
    """End-of-sequence ids, as long as `min_new_tokens` is not reached."""

    @classmethod
    def of(cls, draw: Draw, vocab_size: int) -> SamplerState:
        """Made from the prompt; generated tokens are still to be counted."""
        sampling = draw.sampling
        return cls(
            counts=Counts(draw, vocab_size) if has_penalty(sampling) else None,
            bias_ids=np.fromiter(sampling.logit_bias.keys(), dtype=np.int64),
            bias=np.fromiter(sampling.logit_bias.values(), dtype=np.float32),
            banned=np.array([token for token in sampling.eos_token_ids if token < vocab_size], dtype=np.int64),
        )


def apply_penalties(logits: Tensor, rows: Iterable[tuple[int, Draw, SamplerState]]) -> None:
    """Repetition, then frequency and presence penalty, in place.

    Repetition (Keskar et al., CTRL, 2019) over prompt and output: positive logits are divided,
    others multiplied. Frequency and presence (OpenAI): logit -= frequency * times + presence * (times > 0),
    over generated tokens alone.
    """
    chosen = [(row, draw.sampling, state.counts) for row, draw, state in rows if state.counts is not None]
    lengths = [len(counts.ids) for _, _, counts in chosen]
    if not sum(lengths):
        return

    def each(values: list[float], dtype: type[np.generic]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, dtype=dtype), lengths)).to(logits.device)

    row = each([row for row, _, _ in chosen], np.int64)
    repetition = each([sampling.repetition_penalty for _, sampling, _ in chosen], np.float32)
    frequency = each([sampling.frequency_penalty for _, sampling, _ in chosen], np.float32)
    presence = each([sampling.presence_penalty for _, sampling, _ in chosen], np.float32)
    ids = torch.from_numpy(np.concatenate([counts.ids for _, _, counts in chosen])).to(logits.device)
    times = torch.from_numpy(np.concatenate([counts.times for _, _, counts in chosen])).to(logits.device)
    values = logits[row, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[row, ids] = values - frequency * times - presence * (times > 0)


def apply_bias(logits: Tensor, rows: Iterable[tuple[int, Draw, SamplerState]]) -> None:
    """Add `logit_bias`, then -inf to end-of-sequence ids before `min_new_tokens`, in place."""
    row_parts, id_parts, value_parts = [], [], []
    for row, draw, state in rows:
        banned = state.banned if draw.num_generated < draw.sampling.min_new_tokens else state.banned[:0]
        row_parts.append(np.full(len(state.bias_ids) + len(banned), row, dtype=np.int64))
        id_parts += [state.bias_ids, banned]
        value_parts += [state.bias, np.full(len(banned), -np.inf, dtype=np.float32)]
    if not sum(map(len, row_parts)):
        return
    row_index, ids, values = (
        torch.from_numpy(np.concatenate(parts)).to(logits.device) for parts in (row_parts, id_parts, value_parts)
    )
    logits.index_put_((row_index, ids), values, accumulate=True)
