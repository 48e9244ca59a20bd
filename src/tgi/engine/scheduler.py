"""Who runs in the next step: the only place that decides on admission, chunks and preemption.

Owns the queue, the running set and the blocks. Called by `core`: `add`, `abort`, then
schedule / run / commit. Imports no torch.

There are no phases. A step gives every running sequence its next tokens, decodes first, then
unfinished prompts, then admits from the queue while tokens, blocks and batch slots last:

    token budget  | d d d d d | prompt chunk of a running one | newly admitted ... |

Prompts that arrive while others stream get only as much of a step as `pace` allows: a long one is computed in
small chunks, and nobody's next token waits for all of it.

Admission is optimistic: a sequence gets blocks for what it has, not for what it may generate. When
blocks run out the youngest running sequence is preempted: its blocks are freed and it is computed
again later (what the prefix cache still holds is not). The oldest always advances, and every
request fits the cache alone, so no set of requests can deadlock.
"""

from __future__ import annotations

import math
import time
from collections import deque

from tgi.engine.blocks import BlockPool
from tgi.engine.pace import SETTLED_TOKENS, Pace, Share
from tgi.engine.plan import Chunk, Plan, Sampled
from tgi.engine.sequence import Sequence
from tgi.messages import FinishReason, GenerateRequest, PromptLogprobs, Token, TokenEvent


class Scheduler:
    """Continuous batching over a block pool."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        max_step_tokens: int,
        max_batch_size: int,
        max_total_tokens: int,
        prefix_caching: bool = True,
    ) -> None:
        self.blocks = blocks
        self.max_step_tokens = max_step_tokens
        self.max_batch_size = min(max_batch_size, max_step_tokens)  # a decode step must fit the budget
        self.max_total_tokens = max_total_tokens
        self.prefix_caching = prefix_caching
        self.pace = Pace()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by admission, oldest first
        self._requests: dict[int, dict[int, Sequence]] = {}  # unfinished sequences: request id -> index -> sequence

    # --- requests ---------------------------------------------------------------------------

    def add(self, request: GenerateRequest) -> list[TokenEvent]:
        """Queue every sample of the request; the events refuse what can never run."""
        error = self._refusal(request)
        if error is not None:
            return [
                TokenEvent(request.request_id, index, finish="error", error=error)
                for index in range(len(request.seeds))
            ]
        # Samples share blocks even when prefixes of other requests are not to be reused.
        salt = f"s{request.cache_salt}" if self.prefix_caching else f"r{request.request_id}"
        paced = _any_settled(self.running)
        samples = [
            Sequence(
                request_id=request.request_id,
                index=index,
                token_ids=list(request.prompt_ids),
                num_prompt=len(request.prompt_ids),
                sampling=request.sampling,
                seed=seed,
                arrival=request.arrival,
                cache_salt=salt,
                cacheable=self.prefix_caching or len(request.seeds) > 1,
                paced=paced,
            )
            for index, seed in enumerate(request.seeds)
        ]
        self._requests[request.request_id] = {sample.index: sample for sample in samples}
        samples[0].followers = samples[1:]
        self.waiting.append(samples[0])
        return []

    def _refusal(self, request: GenerateRequest) -> str | None:
        prompt, new = len(request.prompt_ids), request.sampling.max_new_tokens
        capacity = self.blocks.num_blocks * self.blocks.block_size
        limit = min(capacity, self.max_total_tokens)
        if prompt == 0 or new < 1 or not request.seeds:
            return "a request needs at least one prompt token, one new token and one sample"
        if request.request_id in self._requests:
            return f"request id {request.request_id} is in use"
        if prompt + new > limit:
            return (
                f"{prompt} prompt tokens + {new} new tokens exceed the {limit} tokens that a request may take "
                f"(KV cache: {capacity} tokens)"
            )
        return None

    def abort(self, request_id: int, index: int = -1) -> list[TokenEvent]:
        """End one sample, or all with index -1; unknown ids are ignored."""
        samples = self._requests.get(request_id, {})
        return [self.finish(sequence, "abort") for sequence in list(samples.values()) if index in (-1, sequence.index)]

    def finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> TokenEvent:
        """Take the sequence out wherever it is and free its blocks; returns its last event."""
        assert not sequence.finished
        sequence.finished = True
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.blocks.release(sequence)
        self._release_followers(sequence)  # they go on without their leader
        samples = self._requests[sequence.request_id]
        del samples[sequence.index]
        if not samples:
            del self._requests[sequence.request_id]
        return TokenEvent(sequence.request_id, sequence.index, finish=reason, error=error)

    def _release_followers(self, leader: Sequence) -> None:
        """Queue the other samples of the prompt, first in line: their blocks are still in the cache.

        A leader that ended before its prompt was computed hands its place to the next sample.
        """
        followers = [follower for follower in leader.followers if not follower.finished]
        leader.followers = []
        if not leader.prompt_done and followers:
            followers[0].followers = followers[1:]
            followers = followers[:1]
        self.waiting.extendleft(reversed(followers))

    @property
    def unfinished(self) -> list[Sequence]:
        """Every sequence that has not had its last event."""
        return [sequence for samples in self._requests.values() for sequence in samples.values()]

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    # --- schedule ---------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """The next step; empty when there is nothing to do."""
        plan = Plan()
        chunks: dict[int, Chunk] = {}  # id(sequence) -> its chunk
        share = self._schedule_running(plan, chunks)
        if not plan.preempted:  # who was just preempted must not be replaced by a newcomer
            self._admit(plan, chunks, share)
        plan.chunks = list(chunks.values())
        return plan

    def _schedule_running(self, plan: Plan, chunks: dict[int, Chunk]) -> Share:
        """Chunks for who runs already; gives what newcomers may take."""
        decodes = [s for s in self.running if s.num_tokens - s.num_computed == 1]
        prompts = [s for s in self.running if s.num_tokens - s.num_computed > 1]
        for sequence in decodes:
            self._schedule_one(sequence, 1, plan, chunks)
        share = self.pace.share(self.max_step_tokens - len(chunks), len(chunks), _any_settled(decodes))
        for sequence in prompts:
            if not sequence.block_table:  # preempted for an older one in this step
                continue
            count = share.grant(sequence.num_computed, sequence.num_tokens - sequence.num_computed, sequence.paced)
            if count == 0:
                break
            self._schedule_one(sequence, count, plan, chunks)
        return share

    def _schedule_one(self, sequence: Sequence, count: int, plan: Plan, chunks: dict[int, Chunk]) -> None:
        if sequence.block_table and self._make_room(sequence, sequence.num_computed + count, plan, chunks):
            chunks[id(sequence)] = self._chunk(sequence, count)

    def _make_room(self, sequence: Sequence, num_tokens: int, plan: Plan, chunks: dict[int, Chunk]) -> bool:
        """Grow the sequence's blocks, preempting the youngest others; False if it had to go itself."""
        while not self.blocks.grow(sequence, num_tokens):
            victim = self.running.pop()
            chunks.pop(id(victim), None)
            self.blocks.release(victim)
            victim.num_computed = 0
            victim.paced = True  # those that go on came first
            if not victim.prompt_done:
                victim.prompt_logprobs = None  # collected anew with the recomputed prompt
            self.waiting.appendleft(victim)
            plan.preempted += 1
            if victim is sequence:
                return False
        return True

    def _admit(self, plan: Plan, chunks: dict[int, Chunk], share: Share) -> None:
        """First come, first served: the first that does not fit waits, and nobody overtakes it."""
        while self.waiting and share.tokens > 0 and len(self.running) < self.max_batch_size:
            sequence = self.waiting[0]
            hit = 0
            if sequence.cacheable and not self._needs_all_rows(sequence):
                hit = self.blocks.match(sequence)
            # Every running sequence may soon want a block: without a reserve the newcomer would be
            # preempted at once.
            reserve = len(self.running)
            fits = self.blocks.can_grow(sequence, sequence.num_tokens, reserve)
            count = share.grant(hit, sequence.num_tokens - hit, sequence.paced) if fits else 0
            if count == 0:
                self.blocks.release(sequence)
                return
            self.blocks.grow(sequence, sequence.num_tokens)
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.num_computed = hit
            if not sequence.scheduled:
                sequence.scheduled = time.monotonic()
                sequence.num_cached = hit
                plan.admitted += 1
                plan.prefix_query_tokens += sequence.num_prompt
                plan.prefix_hit_tokens += hit
            chunks[id(sequence)] = self._chunk(sequence, count)

    def _needs_all_rows(self, sequence: Sequence) -> bool:
        """Prompt log-probabilities come from the rows themselves, which a cache hit would skip."""
        return sequence.wants_prompt_logprobs and not sequence.prompt_done

    def _chunk(self, sequence: Sequence, count: int) -> Chunk:
        start = sequence.num_computed
        end = start + count
        return Chunk(
            sequence=sequence,
            token_ids=sequence.token_ids[start:end],
            start=start,
            block_table=sequence.block_table[: self.blocks.blocks_for(end)],
            samples=end == sequence.num_tokens,
            wants_prompt_logprobs=self._needs_all_rows(sequence) and start < sequence.num_prompt - 1,
        )

    # --- commit -----------------------------------------------------------------------------

    def commit(self, plan: Plan, sampled: Sampled) -> list[TokenEvent]:
        """Book what a step computed: advance, index full blocks, append tokens, finish."""
        events = []
        if not sampled.errors:
            self._time(plan, sampled.forward_s + sampled.sample_s)
        for number, chunk in enumerate(plan.chunks):
            sequence = chunk.sequence
            if sequence.finished:
                continue
            if number in sampled.errors:
                events.append(self.finish(sequence, "error", sampled.errors[number]))
                continue
            self._advance(sequence, chunk.end)
            if number in sampled.prompt:
                _collect(sequence, sampled.prompt[number])
            token = sampled.tokens[number]
            if token is not None:
                events.append(self._append(sequence, token))
        return events

    def _time(self, plan: Plan, seconds: float) -> None:
        prompts = [chunk for chunk in plan.chunks if len(chunk.token_ids) > 1]
        tokens = context = 0
        for chunk in prompts:
            count = len(chunk.token_ids)
            tokens += count
            context += count * (2 * chunk.start + count) // 2
        self.pace.observe(len(plan.chunks) - len(prompts), tokens, context, seconds)

    def _advance(self, sequence: Sequence, end: int) -> None:
        first = sequence.num_computed // self.blocks.block_size
        sequence.num_computed = end
        if sequence.cacheable:
            self.blocks.index(sequence, first, end // self.blocks.block_size)
        if not sequence.prompt_done and end >= sequence.num_prompt:
            sequence.prompt_done = True
            self._release_followers(sequence)

    def _append(self, sequence: Sequence, token: Token) -> TokenEvent:
        first = sequence.num_generated == 0
        sequence.token_ids.append(token.id)
        reason: FinishReason | None = None
        if sequence.num_tokens >= min(sequence.max_tokens, self.max_total_tokens):
            reason = "length"  # TGI's order: the last allowed token reports `length` even if it is an EOS
        elif token.id in sequence.sampling.eos_token_ids:
            reason = "eos_token"
        request_id, index = sequence.request_id, sequence.index
        event = self.finish(sequence, reason) if reason else TokenEvent(request_id, index)
        event.tokens = [token]
        if first:
            event.scheduled = sequence.scheduled
            event.cached_tokens = sequence.num_cached
            if sequence.wants_prompt_logprobs:
                event.prompt = sequence.prompt_logprobs or PromptLogprobs([math.nan], [[]])
                sequence.prompt_logprobs = None
        return event


def _any_settled(sequences: list[Sequence]) -> bool:
    """Whether any of them is a stream on its way, which prompts must not hold up."""
    return any(sequence.num_generated >= SETTLED_TOKENS for sequence in sequences)


def _collect(sequence: Sequence, piece: PromptLogprobs) -> None:
    """Join the log-probabilities of one chunk to those of the chunks before."""
    whole = sequence.prompt_logprobs
    if whole is None:
        whole = sequence.prompt_logprobs = PromptLogprobs([math.nan], [[]])
    whole.logprobs.extend(piece.logprobs)
    whole.top.extend(piece.top)
