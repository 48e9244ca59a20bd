"""The work of one step as pure data: what every rank runs.

`scheduler.schedule` makes a `Plan`, `batch` turns it into tensors, `runner` executes it and
`scheduler.commit` books the result. A plan carries all that a rank needs, so no rank mirrors the
state of another. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tgi.engine.sequence import Sequence
from tgi.messages import PromptLogprobs, Token


@dataclass(slots=True)
class Chunk:
    """The next `len(token_ids)` uncomputed tokens of one sequence.

    There are no phases: a whole prompt, a piece of it, one decoded token and the recomputation
    after a preemption differ only in `start` and in the number of tokens.
    """

    sequence: Sequence
    """Rank 0 only: the owner, for the sampler and for commit. Other ranks get None."""
    token_ids: list[int]
    start: int
    """Position of the first of them; the KV of positions 0..start-1 is in the cache."""
    block_table: list[int]
    """Blocks that cover positions 0..end-1."""
    samples: bool
    """The chunk reaches the end of what is known: its last row's logits give the next token."""
    wants_prompt_logprobs: bool = False
    """Log-probabilities of the prompt tokens predicted by this chunk's rows are wanted."""

    @property
    def end(self) -> int:
        """Position after the last token: the context length of this sequence in this step."""
        return self.start + len(self.token_ids)


@dataclass(slots=True)
class Plan:
    """One step: chunks in the order of their rows in the batch."""

    chunks: list[Chunk] = field(default_factory=list)
    preempted: int = 0
    admitted: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(len(chunk.token_ids) for chunk in self.chunks)

    def __bool__(self) -> bool:
        return bool(self.chunks)


@dataclass(slots=True)
class Sampled:
    """What a step produced, aligned with `Plan.chunks`."""

    tokens: list[Token | None]
    """The next token of each chunk that samples, None for the others."""
    errors: dict[int, str] = field(default_factory=dict)
    """Chunk index -> why this sequence cannot go on; the others are unharmed."""
    prompt: dict[int, PromptLogprobs] = field(default_factory=dict)
    """Chunk index -> log-probabilities of the prompt tokens start+1..end (those inside the prompt)."""
    forward_s: float = 0.0
    sample_s: float = 0.0
