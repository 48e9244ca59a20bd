"""Every open sequence: who waits, who runs, and the blocks they hold. Imports no torch."""

from __future__ import annotations

from collections import deque

from tgi.engine.blocks import BlockPool
from tgi.engine.open_requests import OpenRequests
from tgi.engine.pace import SETTLED_TOKENS
from tgi.engine.sequence import Sequence
from tgi.messages import EmbedRequest, FinishReason, GenerateRequest, Grammar, TokenEvent


class Roster:
    """Requests come in as sequences, and each leaves with exactly one last event."""

    def __init__(
        self,
        blocks: BlockPool,
        *,
        max_total_tokens: int,
        prefix_caching: bool,
        decoder_ids: tuple[int, ...] = (),
        shares_blocks: bool = True,
    ) -> None:
        self.blocks = blocks
        self.max_total_tokens = max_total_tokens
        self.prefix_caching = prefix_caching
        self.shares_blocks = shares_blocks
        """False: what a sequence computed can be no other's, not even that of another sample of its prompt."""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by admission, oldest first
        self.open = OpenRequests(decoder_ids)
        self.decoder_ids = decoder_ids
        self.ended: list[int] = []  # ids of those that are over since the last plan

    def add(self, request: GenerateRequest | EmbedRequest) -> list[TokenEvent]:
        """Queue every sample of the request; the events refuse what can never run."""
        if isinstance(request, EmbedRequest):
            return self._add_embedding(request)
        error = self._refusal(request)
        if error is not None:
            return [
                TokenEvent(request.request_id, index, finish="error", error=error)
                for index in range(len(request.seeds))
            ]
        leader = self.open.add(
            request,
            prefix_caching=self.prefix_caching,
            paced=any_settled(self.running),
            shares_blocks=self.shares_blocks,
        )
        self.waiting.append(leader)
        return []

    def _refusal(self, request: GenerateRequest) -> str | None:
        prompt, new = len(request.prompt_ids), request.sampling.max_new_tokens
        capacity = self.blocks.num_blocks * self.blocks.block_size
        limit = min(capacity, self.max_total_tokens)
        begun = len(request.decoder_ids or self.decoder_ids)
        if begun and self.blocks.blocks_for(prompt) + self.blocks.blocks_for(begun + new - 1) > self.blocks.num_blocks:
            limit = capacity - self.blocks.block_size - begun  # whole blocks for each side
        if prompt == 0 or new < 1 or not request.seeds:
            return "a request needs at least one prompt token, one new token and one sample"
        if request.request_id in self.open:
            return f"request id {request.request_id} is in use"
        if prompt + new > limit:
            return (
                f"{prompt} prompt tokens + {new} new tokens exceed the {limit} tokens that a request may take "
                f"(KV cache: {capacity} tokens)"
            )
        return None

    def _add_embedding(self, request: EmbedRequest) -> list[TokenEvent]:
        error, prompt = None, len(request.prompt_ids)
        limit = min(self.blocks.num_blocks * self.blocks.block_size, self.max_total_tokens)
        if self.decoder_ids:
            error = "a model with an encoder gives no embeddings here"
        elif request.request_id in self.open:
            error = f"request id {request.request_id} is in use"
        elif not 0 < prompt <= limit:
            error = f"a text of {prompt} tokens cannot be embedded: one has 1 to {limit}"
        if error is not None:
            return [TokenEvent(request.request_id, finish="error", error=error)]
        sequence = self.open.add_embedding(
            request,
            prefix_caching=self.prefix_caching,
            paced=any_settled(self.running),
            shares_blocks=self.shares_blocks,
        )
        self.waiting.append(sequence)
        return []

    def abort(self, request_id: int, index: int = -1) -> list[TokenEvent]:
        """End one sample, or all with index -1; unknown ids are ignored."""
        samples = self.open.of(request_id)
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
        self.release_followers(sequence)  # they go on without their leader
        self.open.remove(sequence)
        self.ended.append(sequence.id)
        return TokenEvent(sequence.request_id, sequence.index, finish=reason, error=error)

    def release_followers(self, leader: Sequence) -> None:
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

    def settle(self, grammar: Grammar, compiled: object, error: str | None) -> list[TokenEvent]:
        """A grammar is ready, or cannot be used: sequences that waited for it go on, or end with `error`."""
        events = []
        for sequence in self.open.sequences:
            if sequence.ready or sequence.grammar != grammar:
                continue
            sequence.ready, sequence.held = True, compiled
            if error is not None:
                events.append(self.finish(sequence, "error", error))
        return events

    def find(self, sequence_id: int) -> Sequence | None:
        """The sequence with this id; None if it is finished."""
        return self.open.find(sequence_id)

    @property
    def unfinished(self) -> list[Sequence]:
        """Every sequence that has not had its last event."""
        return self.open.sequences

    @property
    def has_work(self) -> bool:
        return bool(self.running) or any(sequence.ready for sequence in self.waiting)


def any_settled(sequences: list[Sequence]) -> bool:
    """Whether any of them is a stream on its way, which prompts must not hold up."""
    return any(sequence.num_generated >= SETTLED_TOKENS for sequence in sequences)
