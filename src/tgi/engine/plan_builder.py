"""A plan while the scheduler makes it: chunks come and, when blocks run out, go again.

Imports no torch.
"""

from __future__ import annotations

from tgi.engine.plan import Chunk, Draw, Plan, has_penalty
from tgi.engine.sequence import Sequence


class PlanBuilder:
    """At most one chunk for each sequence, in the order in which they were put."""

    def __init__(self) -> None:
        self.plan = Plan()
        self._chunks: dict[int, Chunk] = {}  # id of a sequence -> its chunk

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def num_tokens(self) -> int:
        return sum(len(chunk.token_ids) for chunk in self._chunks.values())

    @property
    def preempted(self) -> int:
        """Sequences put back into the queue in this step."""
        return self.plan.preempted

    def put(self, chunk: Chunk) -> None:
        self._chunks[chunk.sequence_id] = chunk

    def preempt(self, sequence: Sequence) -> None:
        """It is not in this step after all."""
        self._chunks.pop(sequence.id, None)
        self.plan.preempted += 1

    def admit(self, sequence: Sequence, hit: int) -> None:
        """Count a sequence that runs for the first time; `hit`: prompt tokens that the prefix cache had."""
        self.plan.admitted += 1
        self.plan.prefix_query_tokens += sequence.num_prompt
        self.plan.prefix_hit_tokens += hit

    def finish(self) -> Plan:
        self.plan.chunks = list(self._chunks.values())
        return self.plan


def chunk_of(sequence: Sequence, count: int, block_size: int) -> Chunk:
    """The next `count` tokens of a sequence that has blocks for them, and its drafts where these are the last known."""
    start, known = sequence.num_computed, sequence.num_tokens
    token_ids = sequence.token_ids[start : start + count]
    last = start + count == known
    drafts = sequence.draft_ids if last else []
    end = start + count + len(drafts)
    chunk = Chunk(
        sequence.id,
        token_ids + drafts if drafts else token_ids,
        start,
        sequence.block_table[: -(-end // block_size)],
        draw=_draw(sequence) if last else None,
        num_draft=len(drafts),
        decode=count == 1 and last and start >= sequence.num_prompt,
    )
    if sequence.needs_all_rows:
        chunk.prompt_targets = sequence.token_ids[start + 1 : min(start + count + 1, sequence.num_prompt)]
        chunk.prompt_alternatives = sequence.sampling.prompt_logprobs
    return chunk


def _draw(sequence: Sequence) -> Draw:
    ids = sequence.token_ids
    return Draw(
        sequence.id,
        sequence.sampling,
        sequence.seed,
        sequence.num_prompt,
        len(ids),
        ids.copy() if has_penalty(sequence.sampling) else ids[-1:],
    )
