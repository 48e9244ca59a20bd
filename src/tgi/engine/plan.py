"""The work of one step as pure data: what every rank runs.

`scheduler.schedule` makes a `Plan`, `batch` turns it into tensors, `runner` executes it and `scheduler.commit` books
the result. A plan carries all that a rank needs and holds no object of another part, so it can be sent to other
processes (`encode`, `decode`), and no rank mirrors the state of another. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tgi.messages import Grammar, PoolingKind, PromptLogprobs, Sampling, Token


def has_penalty(sampling: Sampling) -> bool:
    """A penalty that counts the tokens before."""
    return sampling.repetition_penalty != 1.0 or sampling.frequency_penalty != 0.0 or sampling.presence_penalty != 0.0


@dataclass(slots=True)
class Draw:
    """What the sampler needs to choose the next token of a sequence."""

    sequence_id: int
    """What the sampler remembers of a sequence (running counts) it finds by this; negative: remember nothing."""
    sampling: Sampling
    seed: int
    num_prompt: int
    position: int
    """Of the token to be chosen: how many tokens are known."""
    token_ids: list[int]
    """The known tokens where a penalty or a grammar looks at them, else the last one alone."""
    grammar: Grammar | None = None
    """What the generated tokens must begin."""

    @property
    def num_generated(self) -> int:
        return self.position - self.num_prompt

    def after(self, drafts: list[int]) -> Draw:
        """The same, after the tokens in `drafts`."""
        return Draw(
            -1,
            self.sampling,
            self.seed,
            self.num_prompt,
            self.position + len(drafts),
            [*self.token_ids, *drafts],
            self.grammar,
        )


@dataclass(slots=True)
class Pool:
    """How the hidden states of a chunk become part of one vector; see `pooling`."""

    kind: PoolingKind
    before: bytes
    """What pooling the chunks before gave, with all bits, so that chunks change nothing; empty: this is the first."""
    count: int
    """Tokens of the whole text."""
    ends: bool
    """The chunk is the last: what comes of it is the vector."""
    dimensions: int
    normalised: bool


@dataclass(slots=True)
class EncoderInput:
    """What a sequence gives to the encoder, and the blocks that hold what that leaves for the decoder."""

    token_ids: list[int]
    """All of it, where the encoder runs in this step; empty: it has run."""
    length: int
    block_table: list[int]


@dataclass(slots=True)
class Chunk:
    """The next `len(token_ids)` uncomputed tokens of one sequence.

    There are no phases: a whole prompt, a piece of it, one decoded token, drafts to be verified and the recomputation
    after a preemption differ only in these fields.
    """

    sequence_id: int
    token_ids: list[int]
    start: int
    """Position of the first of them; the KV of positions 0..start-1 is in the cache."""
    block_table: list[int]
    """Blocks that cover positions 0..end-1."""
    draw: Draw | None = None
    """The chunk reaches the end of what is known: its last rows give the next token. None: it does not."""
    num_draft: int = 0
    """The last of the tokens that are guesses: each is kept if it is what would have been chosen."""
    decode: bool = False
    """The next token of a stream, beyond its prompt and with all before it computed."""
    prompt_targets: tuple[int, ...] = ()
    """Prompt tokens that the first rows of this chunk predict and whose log-probabilities are wanted."""
    prompt_alternatives: int = 0
    """Most likely tokens to be listed for each of those."""
    state_from: int = -1
    """Where a model that keeps states beside the cache has the one after position start - 1; -1: at the beginning."""
    state_to: int = -1
    """Where the one after the last position goes; -1: the model has no states."""
    adapter: int | None = None
    """Number of the adapter that the rows go through; None: the model as it is."""
    encoder: EncoderInput | None = None
    """Of a model with an encoder, whose chunks are the decoder's."""
    pool: Pool | None = None
    """Of a sequence that becomes a vector, for which no token is chosen."""

    @property
    def end(self) -> int:
        """Position after the last token: the context length of this sequence in this step."""
        return self.start + len(self.token_ids)

    @property
    def num_tokens(self) -> int:
        """Computed in this step, by the encoder too."""
        return len(self.token_ids) + (len(self.encoder.token_ids) if self.encoder else 0)

    @property
    def logit_rows(self) -> int:
        """How many of the last rows logits are wanted for."""
        return 0 if self.draw is None else 1 + self.num_draft


def probe(
    token_ids: list[int],
    start: int,
    block_table: list[int],
    encoder: EncoderInput | None = None,
    *,
    state_from: int = -1,
    state_to: int = -1,
) -> Chunk:
    """A chunk of no sequence, whose next token is chosen greedily: to try whether a step works."""
    end = start + len(token_ids)
    draw = Draw(-1, Sampling(max_new_tokens=1), 0, end, end, token_ids[-1:])
    return Chunk(-1, token_ids, start, block_table, draw, state_from=state_from, state_to=state_to, encoder=encoder)


@dataclass(slots=True)
class Plan:
    """One step: chunks in the order of their rows in the batch."""

    chunks: list[Chunk] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    """Sequences that are over: what is remembered of them can be forgotten."""
    preempted: int = 0
    begun: list[int] = field(default_factory=list)
    """Requests of the sequences that run for the first time, once for each of them."""
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(chunk.num_tokens for chunk in self.chunks)

    def __bool__(self) -> bool:
        return bool(self.chunks)


@dataclass(slots=True)
class Sampled:
    """What a step produced, aligned with `Plan.chunks`."""

    tokens: list[list[Token]]
    """The next tokens of each chunk that has a `draw`: one, and one for each draft that was right. Empty for others."""
    errors: dict[int, str] = field(default_factory=dict)
    """Chunk index -> why this sequence cannot go on; the others are unharmed."""
    complete: list[int] = field(default_factory=list)
    """Chunks whose last token completes what the grammar allows: nothing can follow."""
    drafts: dict[int, list[int]] = field(default_factory=dict)
    """Chunk index -> what will come after its tokens, for the next step to compute together."""
    prompt: dict[int, PromptLogprobs] = field(default_factory=dict)
    """Chunk index -> log-probabilities of the chunk's `prompt_targets`."""
    pooled: dict[int, bytes] = field(default_factory=dict)
    """Chunk index -> what its `pool` gave: the vector, or what the next chunk of the sequence goes on with."""
    forward_s: float = 0.0
    sample_s: float = 0.0


def encode(plan: Plan) -> bytes:
    """The plan for another rank, in msgpack."""
    return msgspec.msgpack.encode(plan)


def decode(data: bytes) -> Plan:
    """The plan that `encode` wrote. Raises `msgspec.DecodeError`."""
    return msgspec.msgpack.decode(data, type=Plan)
