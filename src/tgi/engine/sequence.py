"""One sample of one request while it lives in the engine.

Owns the token ids and how far they are computed. Only the scheduler and the blocks see it: what others need of it is
in the `Plan`. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tgi.messages import EmbedRequest, Grammar, PromptLogprobs, Sampling


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and generated tokens, and the blocks that hold their keys and values.

        token_ids    [ prompt .................. | generated ........ ]
                       0            num_computed ^ tokens not yet run ^ len(token_ids)

    `num_computed` tokens have their keys and values in `block_table`; a running sequence in decode
    has exactly one token beyond it: the last one sampled.

    Of a model with an encoder these are the decoder's: the prompt is what it begins with, and what the user gave are
    `encoder_ids`.
    """

    id: int
    """Its own among all of this engine."""
    request_id: int
    index: int
    token_ids: list[int]
    num_prompt: int
    sampling: Sampling
    seed: int
    arrival: float = 0.0
    order: int = 0
    """Number of its request, counted by the scheduler."""
    label: str = ""
    """What its request is called in logs."""
    group: int = 0
    """Those of one API key; groups share the machine equally."""
    ahead: bool = False
    """Its turn has been before (it was preempted), or its prompt's blocks are there: it goes before newcomers."""
    cache_salt: str = ""
    num_computed: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    """Hash chain over the full blocks of `token_ids` known so far; see `blocks`."""
    state: int = -1
    """Slot of its state after `num_computed` tokens, in models that have one; see `states`. -1: at the beginning."""
    next_state: int = -1
    """Slot for that after the step in flight."""
    cacheable: bool = True
    """Its blocks may be found by later sequences; False after a hash collision."""
    paced: bool = False
    """Others streamed when it arrived: its prompt takes what they leave of a step."""
    num_cached: int = 0
    """Prompt tokens found in the prefix cache when first admitted."""
    scheduled: float = 0.0
    """When it first ran; 0 before."""
    prompt_logprobs: PromptLogprobs | None = None
    """Collected chunk by chunk, sent with the first token."""
    followers: list[Sequence] = field(default_factory=list)
    """Further samples of the same prompt, queued once the prompt's blocks can be shared."""
    finished: bool = False
    prompt_done: bool = False
    """The prompt's blocks have been computed once, and the followers released."""
    ready: bool = True
    """False: something it needs is still being made; it waits, and those behind it go ahead."""
    counts_tokens: bool = False
    """A penalty or a grammar looks at all of its tokens."""
    draft_ids: list[int] = field(default_factory=list)
    """Guesses of the tokens after `token_ids`, to be verified in the next step."""
    grammar: Grammar | None = None
    held: object = None
    """The compiled grammar, which stays in memory as long as this."""
    encoder_ids: list[int] = field(default_factory=list)
    encoder_table: list[int] = field(default_factory=list)
    """Blocks with what the encoder leaves of `encoder_ids` for the decoder."""
    num_unencoded: int = 0
    """Tokens that the encoder must run over, which are all of them or none."""
    embed: EmbedRequest | None = None
    """It becomes a vector: its prompt is computed and no token chosen."""
    pooled: bytes = b""
    """What pooling the computed part of it gave."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed + self.num_unencoded

    @property
    def input_length(self) -> int:
        """What counts as the request's input in every limit."""
        return len(self.encoder_ids) or self.num_prompt

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def max_tokens(self) -> int:
        """Length, with all of its input, at which the sequence ends with `length`."""
        return self.input_length + self.sampling.max_new_tokens

    @property
    def wants_prompt_logprobs(self) -> bool:
        return self.index == 0 and self.sampling.prompt_logprobs >= 0

    @property
    def needs_all_rows(self) -> bool:
        """Prompt log-probabilities, and vectors of all rows or the first, come from rows that a cache hit skips."""
        if self.embed is not None:
            return self.embed.pooling != "last"
        return self.wants_prompt_logprobs and not self.prompt_done

    def collect(self, piece: PromptLogprobs) -> None:
        """Join the log-probabilities of one chunk to those of the chunks before."""
        if self.prompt_logprobs is None:
            self.prompt_logprobs = PromptLogprobs([math.nan], [[]])
        self.prompt_logprobs.logprobs.extend(piece.logprobs)
        self.prompt_logprobs.top.extend(piece.top)
