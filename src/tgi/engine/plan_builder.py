"""A plan while the scheduler makes it: chunks come and, when blocks run out, go again.

Imports no torch.
"""

from __future__ import annotations

from tgi.engine.plan import Chunk, Draw, EncoderInput, Plan, Pool
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
        """Rows of the step; those of the encoder are computed apart from them."""
        return sum(len(chunk.token_ids) for chunk in self._chunks.values())

    @property
    def num_encoded(self) -> int:
        """Rows of the encoder."""
        return sum(len(chunk.encoder.token_ids) for chunk in self._chunks.values() if chunk.encoder)

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
        self.plan.begun.append(sequence.request_id)
        self.plan.prefix_query_tokens += sequence.input_length
        self.plan.prefix_hit_tokens += hit

    def finish(self) -> Plan:
        self.plan.chunks = list(self._chunks.values())
        return self.plan


def chunk_of(sequence: Sequence, count: int, block_size: int) -> Chunk:
    """The next `count` tokens of a sequence that has blocks for them, and its drafts where these are the last known."""
    start, ids, num_draft = sequence.num_computed, sequence.token_ids, 0
    end = start + count
    token_ids = ids[start:end]
    draw = None
    if sequence.embed is None and end == len(ids):  # positional arguments: this is made for every stream in every step
        known = ids.copy() if sequence.counts_tokens else ids[-1:]
        draw = Draw(sequence.id, sequence.sampling, sequence.seed, sequence.num_prompt, end, known, sequence.grammar)
        if sequence.draft_ids:
            token_ids += sequence.draft_ids
            num_draft = len(sequence.draft_ids)
    decode = draw is not None and count == 1 and start >= sequence.num_prompt
    blocks = sequence.block_table[: -(-(end + num_draft) // block_size)]
    chunk = Chunk(sequence.id, token_ids, start, blocks, draw, num_draft, decode)
    if not sequence.prompt_done and sequence.needs_all_rows:
        chunk.prompt_targets = tuple(ids[start + 1 : min(end + 1, sequence.num_prompt)])
        chunk.prompt_alternatives = sequence.sampling.prompt_logprobs
    if wanted := sequence.embed:
        chunk.pool = Pool(
            wanted.pooling, sequence.pooled, len(ids), end == len(ids), wanted.dimensions, wanted.normalised
        )
    if encoded := sequence.encoder_ids:
        chunk.encoder = EncoderInput(encoded if sequence.num_unencoded else [], len(encoded), sequence.encoder_table)
    return chunk
