"""Masks of the rows of a step: computed by a thread while the forward pass runs, applied by the sampler.

Owns the state of each constrained sequence, which can be made again from a `Draw`.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from tgi.engine.grammar.state import WORD, GrammarState, allow
from tgi.engine.grammar.store import Grammars, deep_threads
from tgi.engine.plan import Chunk, Draw, Plan, Sampled
from tgi.kernels.types import Masks, Vocabulary

logger = logging.getLogger("tgi.engine")


@dataclass(slots=True)
class RowMasks:
    """What rows of logits may become."""

    rows: list[int]
    bits: Masks
    """[len(rows), words]: tokens that may be chosen."""
    errors: dict[int, str] = field(default_factory=dict)
    """Row -> why its sequence cannot go on."""

    def allows(self, index: int, token: int) -> bool:
        """Whether the token may be chosen in row `self.rows[index]`."""
        return bool(self.bits[index, token // WORD] >> np.uint32(token % WORD) & np.uint32(1))

    def apply(self, logits: torch.Tensor, rows: list[int], vocabulary: Vocabulary) -> None:
        """-inf in place to what is banned; `logits` [len(rows), vocabulary] are these rows of the step."""
        mine = {row: index for index, row in enumerate(self.rows)}
        masked = [at for at, row in enumerate(rows) if row in mine]
        if masked:
            vocabulary.mask(logits, masked, self.bits[[mine[rows[at]] for at in masked]])


class Constraints:
    """Between the grammars and the runner."""

    def __init__(self, grammars: Grammars) -> None:
        self.grammars = grammars
        self._states: dict[int, GrammarState] = {}
        self._thread = None

    def start(self, plan: Plan) -> Future[RowMasks] | None:
        """The masks of a step's rows, to be had when the forward pass is done; None: no row has one."""
        if not any(chunk.draw is not None and chunk.draw.grammar is not None for chunk in plan.chunks):
            return None
        if self._thread is None:
            self._thread = deep_threads(1, "masks")
        return self._thread.submit(self._compute, plan)

    def advance(self, plan: Plan, sampled: Sampled) -> None:
        """Take note of the tokens that were chosen: what they force, and which answers they complete."""
        for number, chunk in enumerate(plan.chunks):
            draw, tokens = chunk.draw, sampled.tokens[number]
            if draw is None or draw.grammar is None or not tokens:
                continue
            state = self._state(draw)
            state.follow([*_generated(draw), *(token.id for token in tokens)])
            if state.complete:
                sampled.complete.append(number)
            elif (error := state.error) is not None:
                sampled.errors[number] = error
            elif drafts := state.drafts:
                sampled.drafts[number] = drafts

    def forget(self, sequence_ids: list[int]) -> None:
        """Drop the states of these sequences."""
        for sequence_id in sequence_ids:
            self._states.pop(sequence_id, None)

    def _compute(self, plan: Plan) -> RowMasks:
        chunks: list[tuple[int, Chunk, Draw]] = []
        row = 0
        for chunk in plan.chunks:
            if chunk.draw is not None and chunk.draw.grammar is not None:
                chunks.append((row, chunk, chunk.draw))
            row += chunk.logit_rows
        rows = [row + index for row, chunk, _ in chunks for index in range(chunk.logit_rows)]
        masks = RowMasks(rows, np.zeros((len(rows), -(-self.grammars.width // WORD)), np.uint32))
        at = 0
        for row, chunk, draw in chunks:
            error = self._fill(chunk, draw, masks.bits[at : at + chunk.logit_rows])
            if error is not None:
                masks.errors |= dict.fromkeys(range(row, row + chunk.logit_rows), error)
            at += chunk.logit_rows
        return masks

    def _fill(self, chunk: Chunk, draw: Draw, masks: Masks) -> str | None:
        """Set the bits of a chunk's rows, from none; gives why its sequence cannot go on."""
        state = self._state(draw)
        state.follow(_generated(draw))
        forced = state.forced
        drafts = chunk.token_ids[-chunk.num_draft :] if chunk.num_draft else []
        peeked = 0
        for index, mask in enumerate(masks):
            if index < len(forced):
                allow(mask, forced[index])
                continue
            if index > len(forced):
                fits = state.peek(drafts[index - 1 : index])
                peeked += fits
                if not fits:  # this row, and those after it, will not be reached
                    break
            state.fill(mask)
        state.forget(peeked)
        return state.error

    def _state(self, draw: Draw) -> GrammarState:
        state = self._states.get(draw.sequence_id)
        if state is None:
            assert draw.grammar is not None
            compiled = self.grammars.want(draw.grammar)
            if compiled is None:
                raise LookupError("the grammar of a running sequence is not compiled")
            state = GrammarState(compiled.copy(), self.grammars.rules)
            self._states[draw.sequence_id] = state
        return state


def _generated(draw: Draw) -> list[int]:
    return draw.token_ids[draw.num_prompt :]
