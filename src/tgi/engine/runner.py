"""Executes one plan on this rank's device: tensors, forward pass, logits, tokens.

Owns nothing but references to the compiled step, cache and sampler.
"""

from __future__ import annotations

import time

import torch

from tgi.engine import batch as batches
from tgi.engine.plan import Chunk, Plan, Sampled
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
        self, step: CompiledStep, cache: KVCache, sampler: Sampler, block_size: int, device: torch.device
    ) -> None:
        self.step = step
        self.cache = cache
        self.sampler = sampler
        self.block_size = block_size
        self.device = device
        self._synchronize = torch.cuda.synchronize if device.type == "cuda" else None
        self._out = self._rows = torch.empty((0, sampler.vocab_size))
        self._num_rows = 0

    @torch.inference_mode()
    def execute(self, plan: Plan) -> Sampled:
        """Run every chunk; tokens for those that reach the end of what is known."""
        began = time.perf_counter()
        batch = batches.build(plan, self.block_size, self.device)
        hidden = self.step.forward(batch.token_ids, batch.paging, self.cache)  # [tokens, dim]
        sampling = [number for number, chunk in enumerate(plan.chunks) if chunk.samples]
        logits = None
        if sampling:
            rows = hidden if batch.sample_rows is None else hidden[batch.sample_rows]
            logits = self._logits(rows, len(sampling))  # [rows, vocab] float32
        if self._synchronize:
            self._synchronize(self.device)  # else the forward pass would be booked as sampling
        forwarded = time.perf_counter()

        sampled = Sampled(tokens=[None] * len(plan.chunks))
        if logits is not None:
            self._sample(logits, plan, sampling, sampled)
        for number, chunk in enumerate(plan.chunks):
            if chunk.wants_prompt_logprobs:
                sampled.prompt[number] = self._prompt_logprobs(hidden, batch.first_rows[number], chunk)
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

    def _sample(self, logits: torch.Tensor, plan: Plan, sampling: list[int], sampled: Sampled) -> None:
        results = self.sampler.sample(logits, [plan.chunks[number].sequence for number in sampling])
        for number, result in zip(sampling, results, strict=True):
            if isinstance(result, Token):
                sampled.tokens[number] = result
            else:
                sampled.errors[number] = result

    def _prompt_logprobs(self, hidden: torch.Tensor, first_row: int, chunk: Chunk) -> PromptLogprobs:
        """Log-probabilities of the prompt tokens that this chunk's rows predict."""
        sequence = chunk.sequence
        count = min(chunk.end, sequence.num_prompt - 1) - chunk.start
        pieces = PromptLogprobs([])
        for offset in range(0, count, LOGPROB_ROWS):
            rows = min(LOGPROB_ROWS, count - offset)
            targets = sequence.token_ids[chunk.start + offset + 1 : chunk.start + offset + rows + 1]
            logits = self._logits(hidden[first_row + offset : first_row + offset + rows], rows)
            logprobs, top = prompt_logprobs(self.sampler.vocabulary, logits, targets, sequence.sampling.prompt_logprobs)
            pieces.logprobs.extend(logprobs)
            pieces.top.extend(top)
        return pieces
