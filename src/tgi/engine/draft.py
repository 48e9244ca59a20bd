"""A plan while the scheduler makes it: chunks come and, when blocks run out, go again.

Imports no torch.
"""

from __future__ import annotations

from tgi.engine.plan import Chunk, Plan
from tgi.engine.sequence import Sequence


class Draft:
    """At most one chunk for each sequence, in the order in which they were put."""

    def __init__(self) -> None:
        self.plan = Plan()
        self._chunks: dict[int, Chunk] = {}  # id(sequence) -> its chunk

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def preempted(self) -> int:
        """Sequences put back into the queue in this step."""
        return self.plan.preempted

    def put(self, chunk: Chunk) -> None:
        self._chunks[id(chunk.sequence)] = chunk

    def preempt(self, sequence: Sequence) -> None:
        """It is not in this step after all."""
        self._chunks.pop(id(sequence), None)
        self.plan.preempted += 1

    def admit(self, sequence: Sequence, hit: int) -> None:
        """Count a sequence that runs for the first time; `hit`: prompt tokens that the prefix cache had."""
        self.plan.admitted += 1
        self.plan.prefix_query_tokens += sequence.num_prompt
        self.plan.prefix_hit_tokens += hit

    def finish(self) -> Plan:
        self.plan.chunks = list(self._chunks.values())
        return self.plan
