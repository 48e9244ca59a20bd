"""Who runs in the next step: the only place that decides on admission, chunks and preemption.

Which sequences there are is the `roster`'s affair. Imports no torch.

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
from collections import Counter
from contextlib import closing

from tgi.engine.blocks import BlockPool
from tgi.engine.pace import Pace, Share
from tgi.engine.places import giver, places
from tgi.engine.plan import Plan, Sampled
from tgi.engine.plan_builder import PlanBuilder, chunk_of
from tgi.engine.roster import Roster, any_settled
from tgi.engine.sequence import Sequence
from tgi.engine.turns import Turns
from tgi.messages import FinishReason, PromptLogprobs, Token, TokenEvent, pack_prompt


class Scheduler(Roster):
    """Continuous batching over a block pool."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        max_step_tokens: int,
        max_batch_size: int,
        max_total_tokens: int,
        prefix_caching: bool = True,
        decoder_ids: tuple[int, ...] = (),
        shares_blocks: bool = True,
    ) -> None:
        """decoder_ids: what the decoder of a model with an encoder begins with unless a request says otherwise."""
        super().__init__(
            blocks,
            max_total_tokens=max_total_tokens,
            prefix_caching=prefix_caching,
            decoder_ids=decoder_ids,
            shares_blocks=shares_blocks,
        )
        self.max_step_tokens = max_step_tokens
        self.max_batch_size = min(max_batch_size, max_step_tokens)  # a decode step must fit the budget
        self.pace = Pace()
        self.turns = Turns()

    # --- schedule ---------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """The next step; empty when there is nothing to do."""
        builder = PlanBuilder()
        share = self._schedule_decodes(builder)
        self._schedule_prompts(builder, share)
        plan = builder.finish()
        if plan:
            plan.ended, self.ended = self.ended, []
        return plan

    def _schedule_decodes(self, builder: PlanBuilder) -> Share:
        """The next token of every stream; gives what prompts may take."""
        decodes = [s for s in self.running if s.num_uncomputed == 1]
        for sequence in decodes:
            self._schedule_one(sequence, 1, builder)
        return self.pace.share(self.max_step_tokens - builder.num_tokens, len(builder), any_settled(decodes))

    def _schedule_prompts(self, builder: PlanBuilder, share: Share) -> None:
        """Chunks of prompts, of running sequences and of newcomers, in the order of their turns."""
        prompts = [s for s in self.running if s.num_uncomputed > 1]
        if not prompts and not self.waiting:
            return
        begun = set(map(id, prompts))
        free: Counter[int] = Counter()
        if self.waiting and not builder.preempted:  # who was just preempted must not be replaced by a newcomer
            free = self._free_places()
            prompts += [sequence for sequence in self.waiting if sequence.ready and free[sequence.group]]
        blocked = False
        with closing(self.turns.order(prompts, share.room)) as turns:
            for turn in turns:
                sequence = turn.sequence
                if not share.offers(sequence.paced):
                    return
                if id(sequence) in begun:
                    if not sequence.block_table:  # it gave its place to another group in this step
                        continue
                    turn.taken = self._continue(sequence, turn.limit, builder, share)
                elif not free[sequence.group] or (blocked and not self._is_alone(sequence)):
                    continue
                elif not self._find_room(sequence, builder):
                    blocked = True  # no newcomer overtakes the first that does not fit
                    continue
                else:
                    free[sequence.group] -= 1
                    turn.taken = self._admit(sequence, turn.limit, builder, share)
                if not turn.taken:
                    return

    def _continue(self, sequence: Sequence, limit: int | None, builder: PlanBuilder, share: Share) -> int:
        """The next tokens of a prompt that has blocks; gives how many."""
        count = share.grant(sequence.num_computed, sequence.num_uncomputed, sequence.paced, limit)
        count = self._to_saved_state(sequence, count)
        if count:
            self._schedule_one(sequence, count, builder)
        return count

    def _schedule_one(self, sequence: Sequence, count: int, builder: PlanBuilder) -> None:
        if not sequence.block_table:
            return
        if sequence.draft_ids and self.blocks.states is not None:
            sequence.draft_ids = []  # a state cannot go back
        if sequence.draft_ids:
            sequence.draft_ids = self._drafts(sequence, builder) if count == sequence.num_uncomputed else []
        needed = sequence.num_computed + count + len(sequence.draft_ids)
        held = len(sequence.block_table) * self.blocks.block_size
        if held >= needed or self._make_room(sequence, needed, builder):
            self._put(sequence, count, builder)

    def _put(self, sequence: Sequence, count: int, builder: PlanBuilder) -> None:
        chunk = chunk_of(sequence, count, self.blocks.block_size)
        if self.blocks.states is not None:
            chunk.state_from, chunk.state_to = self.blocks.place_state(sequence)
        builder.put(chunk)

    def _to_saved_state(self, sequence: Sequence, count: int) -> int:
        """`count` tokens, or fewer: to the end of the last block that another prompt might share, to save the state."""
        if self.blocks.states is None or not sequence.cacheable:
            return count
        size = self.blocks.block_size
        left = (sequence.num_tokens - 1) // size * size - sequence.num_computed
        return left if 0 < left < count else count

    def _drafts(self, sequence: Sequence, builder: PlanBuilder) -> list[int]:
        """Its drafts, as many as the step and the sequence's length have room for."""
        room = self.max_step_tokens - builder.num_tokens - len(self.running)
        length = min(sequence.max_tokens, self.max_total_tokens) - sequence.input_length - sequence.num_generated - 1
        return sequence.draft_ids[: max(0, min(room, length))]

    def _make_room(self, sequence: Sequence, num_tokens: int, builder: PlanBuilder) -> bool:
        """Grow the sequence's blocks, preempting the youngest others; False if it had to go itself."""
        while not self.blocks.grow(sequence, num_tokens):
            victim = self.running[-1]
            self._preempt(victim, builder)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence, builder: PlanBuilder) -> None:
        """Put a running sequence back into the queue, to be computed again."""
        self.running.remove(victim)
        builder.preempt(victim)
        self.blocks.release(victim)
        victim.num_computed = 0
        victim.num_unencoded = len(victim.encoder_ids)
        victim.draft_ids = []
        victim.ahead = True
        victim.paced = True  # those that go on came first
        victim.pooled = b""
        if not victim.prompt_done:
            victim.prompt_logprobs = None  # collected anew with the recomputed prompt
        self.waiting.appendleft(victim)

    def _free_places(self) -> Counter[int]:
        """Group -> how many of its waiting sequences may join the batch."""
        if len(self.open.groups) > 1:
            ready = (sequence for sequence in self.waiting if sequence.ready)
            return places(self.running, ready, self.max_batch_size)
        return Counter({self.waiting[0].group: self.max_batch_size - len(self.running)})

    def _is_alone(self, sequence: Sequence) -> bool:
        """No other of its group runs."""
        return all(other.group != sequence.group for other in self.running)

    def _find_room(self, sequence: Sequence, builder: PlanBuilder) -> bool:
        """Take the prefix that the cache has, and see whether a place and blocks for the rest are free.

        A sequence of a group that has nothing running gets them from the group that has most.
        """
        if sequence.cacheable and not sequence.needs_all_rows:
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
            self._preempt(victim, builder)
        return True

    def _leave_waiting(self, sequence: Sequence) -> None:
        self.blocks.release(sequence)
        sequence.num_computed = 0

    def _admit(self, sequence: Sequence, limit: int | None, builder: PlanBuilder, share: Share) -> int:
        """From the queue into the batch, where there is room; gives the tokens of its first chunk, 0: it must wait."""
        hit = sequence.num_computed
        if sequence.num_unencoded:
            count = self._grant_whole(sequence, limit, builder, share)
        else:
            count = share.grant(hit, sequence.num_tokens - hit, sequence.paced, limit)
        if count == 0:
            self._leave_waiting(sequence)
            return 0
        count = self._to_saved_state(sequence, count)
        self.blocks.grow(sequence, sequence.num_tokens)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        if not sequence.scheduled:
            sequence.scheduled = time.monotonic()
            sequence.num_cached = hit
            builder.admit(sequence, hit)
        self._put(sequence, count, builder)
        return count + sequence.num_unencoded

    def _grant_whole(self, sequence: Sequence, limit: int | None, builder: PlanBuilder, share: Share) -> int:
        """The decoder's tokens of a sequence whose encoder input, which cannot be cut, the step takes; 0: it does not.

        Encoders run apart from the step's other rows. The first input is taken however long it is, so that each gets
        done; others as far as the share and the step's tokens reach.
        """
        encoded, known = builder.num_encoded, sequence.num_tokens - sequence.num_computed
        wanted = sequence.num_unencoded + known
        granted = share.grant(0, wanted, sequence.paced, limit)
        fits = granted == wanted and encoded + sequence.num_unencoded <= self.max_step_tokens
        if not granted or (encoded and not fits):
            return 0
        return min(known, self.max_step_tokens - builder.num_tokens)

    # --- commit -----------------------------------------------------------------------------

    def commit(self, plan: Plan, sampled: Sampled) -> list[TokenEvent]:
        """Book what a step computed: advance, index full blocks, append tokens, finish."""
        events = []
        if not sampled.errors:
            self._time(plan, sampled.forward_s + sampled.sample_s)
        find = self.open.find
        for number, chunk in enumerate(plan.chunks):
            sequence = find(chunk.sequence_id)
            if sequence is None:
                continue
            if number in sampled.errors:
                events.append(self.finish(sequence, "error", sampled.errors[number]))
                continue
            if chunk.num_draft:
                sequence.draft_ids = []
            sequence.num_unencoded = 0
            self._advance(sequence, chunk.start + len(chunk.token_ids) - chunk.num_draft)
            if number in sampled.prompt:
                sequence.collect(sampled.prompt[number])
            if tokens := sampled.tokens[number]:
                events.append(self._append(sequence, tokens, ends=number in sampled.complete))
                sequence.draft_ids = sampled.drafts.get(number, [])
            elif chunk.pool is not None:
                sequence.pooled = sampled.pooled[number]
                if chunk.pool.ends:
                    events.append(self._give_vector(sequence))
        return events

    def _time(self, plan: Plan, seconds: float) -> None:
        prompts = [chunk for chunk in plan.chunks if not chunk.decode]
        tokens = context = 0
        for chunk in prompts:
            count = chunk.num_tokens
            tokens += count
            context += count * (2 * chunk.start + count) // 2
        self.pace.observe(len(plan.chunks) - len(prompts), tokens, context, seconds)

    def _advance(self, sequence: Sequence, end: int) -> None:
        size = self.blocks.block_size
        first, last = sequence.num_computed // size, end // size
        sequence.num_computed = end
        if first < last and sequence.cacheable:
            self.blocks.index(sequence, first, last)
        if self.blocks.states is not None:
            self.blocks.advance_state(sequence)
        if not sequence.prompt_done and end >= sequence.num_prompt:
            sequence.prompt_done = True
            self.release_followers(sequence)

    def _give_vector(self, sequence: Sequence) -> TokenEvent:
        event = self.finish(sequence, "pooled")
        event.embedding, event.scheduled, event.cached_tokens = sequence.pooled, sequence.scheduled, sequence.num_cached
        return event

    def _append(self, sequence: Sequence, tokens: list[Token], *, ends: bool) -> TokenEvent:
        """Book the next tokens; all but the last were drafts, so they are computed already.

        ends: nothing may follow the last of them.
        """
        first, came = sequence.num_generated == 0, len(tokens)
        reason: FinishReason | None = None
        for number, token in enumerate(tokens):
            if number:
                self._advance(sequence, sequence.num_tokens)
            sequence.token_ids.append(token.id)
            reason = self._end_reason(sequence, token.id)
            if reason:
                tokens = tokens[: number + 1]
                break
        if ends and len(tokens) == came:
            reason = "eos_token"
        request_id, index = sequence.request_id, sequence.index
        event = self.finish(sequence, reason) if reason else TokenEvent(request_id, index)
        event.tokens = tokens
        if first:
            event.scheduled = sequence.scheduled
            event.cached_tokens = sequence.num_cached
            if sequence.wants_prompt_logprobs:
                event.prompt = pack_prompt(sequence.prompt_logprobs or PromptLogprobs([math.nan], [[]]))
                sequence.prompt_logprobs = None
        return event

    def _end_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        generated = sequence.num_generated
        if generated >= sequence.sampling.max_new_tokens or sequence.input_length + generated >= self.max_total_tokens:
            return "length"  # TGI's order: the last allowed token reports `length` even if it is an EOS
        return "eos_token" if token_id in sequence.sampling.eos_token_ids else None
