"""Executes one plan on this rank's device: tensors, forward pass, logits, tokens.

Owns nothing but references to the compiled step, cache and sampler.
"""

from __future__ import annotations

import time

import torch

from tgi.engine import batch as batches
from tgi.engine.grammar.masks import Constraints
from tgi.engine.plan import Chunk, Draw, Plan, Sampled
from tgi.engine.pooling import NOT_FINITE, pool
from tgi.engine.sampler import Sampler, prompt_logprobs
from tgi.kernels.types import CompiledStep, KVCache
from tgi.messages import PromptLogprobs, Token

LOGPROB_ROWS = 128
"""Prompt rows whose logits exist at once: memory does not grow with the prompt."""


class Runner:
    """Forward pass and sampling of a plan.

    Few operations on tensors, and few looks at them: right after a forward pass, which has pushed all else out of the
    caches, each takes 10 to 20 us.
    """

    def __init__(
        self,
        step: CompiledStep,
        cache: KVCache,
        sampler: Sampler,
        block_size: int,
        device: torch.device,
        constraints: Constraints | None = None,
    ) -> None:
        self.step = step
        self.cache = cache
        self.sampler = sampler
        self.constraints = constraints
        self.block_size = block_size
        self.device = device
        self._synchronize = torch.cuda.synchronize if device.type == "cuda" else None
        self._out = self._rows = torch.empty((0, sampler.vocab_size))
        self._num_rows = 0

    @torch.inference_mode()
    def execute(self, plan: Plan) -> Sampled:
        """Run every chunk; tokens for those that reach the end of what is known."""
        began = time.perf_counter()
        masks = self.constraints.start(plan) if self.constraints else None
        batch = batches.build(plan, self.block_size, self.device)
        if batch.encoder is not None:
            self.step.encode(batch.encoder.token_ids, batch.encoder.paging, self.cache)
        hidden = self.step.forward(batch.token_ids, batch.paging, self.cache)  # [tokens, dim]
        draws = _draws(plan)
        logits = None
        if draws:
            rows = hidden if batch.logit_rows is None else hidden[batch.logit_rows]
            logits = self._logits(rows, len(draws))  # [rows, vocab] float32
        if self._synchronize:
            self._synchronize(self.device)  # else the forward pass would be booked as sampling
        forwarded = time.perf_counter()

        sampled = Sampled(tokens=[[] for _ in plan.chunks])
        self.sampler.forget(plan.ended)
        if logits is not None:
            _accept(plan, self.sampler.sample(logits, draws, masks and masks.result()), sampled)
        if self.constraints is not None:
            self.constraints.forget(plan.ended)
            if masks is not None:
                self.constraints.advance(plan, sampled)
        for number, chunk in enumerate(plan.chunks):
            if chunk.prompt_targets:
                sampled.prompt[number] = self._prompt_logprobs(hidden, batch.first_rows[number], chunk)
            if chunk.pool is not None:
                first = batch.first_rows[number]
                vector = pool(hidden[first : first + len(chunk.token_ids)], chunk.pool)
                if vector is None:
                    sampled.errors[number] = NOT_FINITE
                else:
                    sampled.pooled[number] = vector
        sampled.forward_s = forwarded - began
        sampled.sample_s = time.perf_counter() - forwarded
        return sampled

    def _logits(self, hidden: torch.Tensor, count: int) -> torch.Tensor:
        """Of `count` hidden states; valid until the next call.

        Megabytes fetched anew in each step would be cleared by the system each time.
        """
        if count != self._num_rows:
            if len(self._out) < count and self.device.type == "cpu":
                self._out = torch.empty((count, self.sampler.vocab_size))
            self._num_rows, self._rows = count, self._out[:count]
        return self.step.logits(hidden, self._rows)

    def _prompt_logprobs(self, hidden: torch.Tensor, first_row: int, chunk: Chunk) -> PromptLogprobs:
        """Log-probabilities of the prompt tokens that this chunk's rows predict."""
        count = len(chunk.prompt_targets)
        pieces = PromptLogprobs([])
        for offset in range(0, count, LOGPROB_ROWS):
            targets = list(chunk.prompt_targets[offset : offset + LOGPROB_ROWS])
            first = first_row + offset
            logits = self._logits(hidden[first : first + len(targets)], len(targets))
            logprobs, top = prompt_logprobs(self.sampler.vocabulary, logits, targets, chunk.prompt_alternatives)
            pieces.logprobs.extend(logprobs)
            pieces.top.extend(top)
        return pieces


def _draws(plan: Plan) -> list[Draw]:
    """One for each row of logits: what follows a chunk, after each of its drafts."""
    draws = []
    for chunk in plan.chunks:
        if (draw := chunk.draw) is None:
            continue
        draws.append(draw)
        if chunk.num_draft:
            drafts = chunk.token_ids[-chunk.num_draft :]
            draws += [draw.after(drafts[:count]) for count in range(1, len(drafts) + 1)]
    return draws


def _accept(plan: Plan, results: list[Token | str], sampled: Sampled) -> None:
    """Keep each result as long as the drafts before it are what was chosen.

    The random number of a position depends on seed and position alone, so the tokens are those that decoding one by
    one gives. A failed row fails its sequence if that row would have been reached.
    """
    row = 0
    for number, chunk in enumerate(plan.chunks):
        if chunk.draw is None:
            continue
        if not chunk.num_draft:  # without the loop: this is done for every stream in every step
            result, row = results[row], row + 1
            if isinstance(result, Token):
                sampled.tokens[number].append(result)
            else:
                sampled.errors[number] = result
            continue
        drafts = chunk.token_ids[-chunk.num_draft :]
        for result, draft in zip(results[row : row + chunk.logit_rows], [*drafts, None], strict=True):
            if not isinstance(result, Token):
                sampled.errors[number] = result
                break
            sampled.tokens[number].append(result)
            if result.id != draft:
                break
        row += chunk.logit_rows
