"""Who runs in the next step: the only place that decides on admission, chunks and preemption.

Owns the queue, the running set and the blocks. Called by `core`: `add`, `abort`, then
schedule / run / commit. Imports no torch.

There are no phases. A step gives every running sequence its next token, then unfinished prompts, running or
queued, their turns (see `turns`) while tokens, blocks and batch slots (see `places`) last:

    token budget  | d d d d d | prompt chunk | prompt chunk of a newly admitted one | ...

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
from collections import Counter, deque
from contextlib import closing

from tgi.engine.blocks import BlockPool
from tgi.engine.draft import Draft
from tgi.engine.open_requests import OpenRequests
from tgi.engine.pace import SETTLED_TOKENS, Pace, Share
from tgi.engine.places import giver, places
from tgi.engine.plan import Chunk, Plan, Sampled
from tgi.engine.sequence import Sequence
from tgi.engine.turns import Turns
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
        self.turns = Turns()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by admission, oldest first
        self._open = OpenRequests()

    # --- requests ---------------------------------------------------------------------------

    def add(self, request: GenerateRequest) -> list[TokenEvent]:
        """Queue every sample of the request; the events refuse what can never run."""
        error = self._refusal(request)
        if error is not None:
            return [
                TokenEvent(request.request_id, index, finish="error", error=error)
                for index in range(len(request.seeds))
            ]
        leader = self._open.add(request, prefix_caching=self.prefix_caching, paced=_any_settled(self.running))
        self.waiting.append(leader)
        return []

    def _refusal(self, request: GenerateRequest) -> str | None:
        prompt, new = len(request.prompt_ids), request.sampling.max_new_tokens
        capacity = self.blocks.num_blocks * self.blocks.block_size
        limit = min(capacity, self.max_total_tokens)
        if prompt == 0 or new < 1 or not request.seeds:
            return "a request needs at least one prompt token, one new token and one sample"
        if request.request_id in self._open:
            return f"request id {request.request_id} is in use"
        if prompt + new > limit:
            return (
                f"{prompt} prompt tokens + {new} new tokens exceed the {limit} tokens that a request may take "
                f"(KV cache: {capacity} tokens)"
            )
        return None

    def abort(self, request_id: int, index: int = -1) -> list[TokenEvent]:
        """End one sample, or all with index -1; unknown ids are ignored."""
        samples = self._open.of(request_id)
        return [self.finish(sequence, "abort") for sequence in samples if index in (-1, sequence.index)]

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
        self._open.remove(sequence)
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
        for follower in followers:
            follower.ahead = leader.prompt_done
        self.waiting.extendleft(reversed(followers))

    @property
    def unfinished(self) -> list[Sequence]:
        """Every sequence that has not had its last event."""
        return self._open.sequences

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    # --- schedule ---------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """The next step; empty when there is nothing to do."""
        draft = Draft()
        share = self._schedule_decodes(draft)
        self._schedule_prompts(draft, share)
        return draft.finish()

    def _schedule_decodes(self, draft: Draft) -> Share:
        """The next token of every stream; gives what prompts may take."""
        decodes = [s for s in self.running if s.num_tokens - s.num_computed == 1]
        for sequence in decodes:
            self._schedule_one(sequence, 1, draft)
        return self.pace.share(self.max_step_tokens - len(draft), len(draft), _any_settled(decodes))

    def _schedule_prompts(self, draft: Draft, share: Share) -> None:
        """Chunks of prompts, of running sequences and of newcomers, in the order of their turns."""
        prompts = [s for s in self.running if s.num_tokens - s.num_computed > 1]
        begun = set(map(id, prompts))
        free: Counter[int] = Counter()
        if self.waiting and not draft.preempted:  # who was just preempted must not be replaced by a newcomer
            free = self._free_places()
            prompts += [sequence for sequence in self.waiting if free[sequence.group]]
        blocked = False
        with closing(self.turns.order(prompts, share.room)) as turns:
            for turn in turns:
                sequence = turn.sequence
                if not share.offers(sequence.paced):
                    return
                if id(sequence) in begun:
                    if not sequence.block_table:  # it gave its place to another group in this step
                        continue
                    turn.taken = self._continue(sequence, turn.limit, draft, share)
                elif not free[sequence.group] or (blocked and not self._is_alone(sequence)):
                    continue
                elif not self._find_room(sequence, draft):
                    blocked = True  # no newcomer overtakes the first that does not fit
                    continue
                else:
                    free[sequence.group] -= 1
                    turn.taken = self._admit(sequence, turn.limit, draft, share)
                if not turn.taken:
                    return

    def _continue(self, sequence: Sequence, limit: int | None, draft: Draft, share: Share) -> int:
        """The next tokens of a prompt that has blocks; gives how many."""
        wanted = sequence.num_tokens - sequence.num_computed
        count = share.grant(sequence.num_computed, wanted, sequence.paced, limit)
        if count:
            self._schedule_one(sequence, count, draft)
        return count

    def _schedule_one(self, sequence: Sequence, count: int, draft: Draft) -> None:
        if sequence.block_table and self._make_room(sequence, sequence.num_computed + count, draft):
            draft.put(self._chunk(sequence, count))

    def _make_room(self, sequence: Sequence, num_tokens: int, draft: Draft) -> bool:
        """Grow the sequence's blocks, preempting the youngest others; False if it had to go itself."""
        while not self.blocks.grow(sequence, num_tokens):
            victim = self.running[-1]
            self._preempt(victim, draft)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence, draft: Draft) -> None:
        """Put a running sequence back into the queue, to be computed again."""
        self.running.remove(victim)
        draft.preempt(victim)
        self.blocks.release(victim)
        victim.num_computed = 0
        victim.ahead = True
        victim.paced = True  # those that go on came first
        if not victim.prompt_done:
            victim.prompt_logprobs = None  # collected anew with the recomputed prompt
        self.waiting.appendleft(victim)

    def _free_places(self) -> Counter[int]:
        """Group -> how many of its waiting sequences may join the batch."""
        if len(self._open.groups) > 1:
            return places(self.running, self.waiting, self.max_batch_size)
        return Counter({self.waiting[0].group: self.max_batch_size - len(self.running)})

    def _is_alone(self, sequence: Sequence) -> bool:
        """No other of its group runs."""
        return all(other.group != sequence.group for other in self.running)

    def _find_room(self, sequence: Sequence, draft: Draft) -> bool:
        """Take the prefix that the cache has, and see whether a place and blocks for the rest are free.

        A sequence of a group that has nothing running gets them from the group that has most.
        """
        if sequence.cacheable and not self._needs_all_rows(sequence):
            sequence.num_computed = self.blocks.match(sequence)
        # Every running sequence may soon want a block: without a reserve the newcomer would be
        # preempted at once.
        while len(self.running) >= self.max_batch_size or not self.blocks.can_grow(
            sequence, sequence.num_tokens, len(self.running)
        ):
            victim = giver(self.running) if self._is_alone(sequence) else None
            if victim is None:
                self._leave_waiting(sequence)
                return False
            self._preempt(victim, draft)
        return True

    def _leave_waiting(self, sequence: Sequence) -> None:
        self.blocks.release(sequence)
        sequence.num_computed = 0

    def _admit(self, sequence: Sequence, limit: int | None, draft: Draft, share: Share) -> int:
        """From the queue into the batch, where there is room; gives the tokens of its first chunk, 0: it must wait."""
        hit = sequence.num_computed
        count = share.grant(hit, sequence.num_tokens - hit, sequence.paced, limit)
        if count == 0:
            self._leave_waiting(sequence)
            return 0
        self.blocks.grow(sequence, sequence.num_tokens)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        if not sequence.scheduled:
            sequence.scheduled = time.monotonic()
            sequence.num_cached = hit
            draft.admit(sequence, hit)
        draft.put(self._chunk(sequence, count))
        return count

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
