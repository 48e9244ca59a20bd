"""Dialects: what a family of routes expects of text, log-probabilities and messages, beside the shape of its answers.

Each rule has a name and is asked for by it; nobody asks which dialect it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The rules of one family of routes."""

    keeps_stop_in_text: bool
    """Text ends right after a stop string, and an end token's text stays in it; else it ends before them, and what may
    begin a stop string is held back."""
    last_token_reports_length: bool
    """The last allowed token finishes with `length` even if it is an end token or completes a stop string."""
    decodes_tokens_alone: bool
    """The text of a prompt's token or an alternative is that of the token alone; else as it reads inside a text."""
    raw_logprobs: bool
    """Log-probabilities are the model's own; else those after penalties and warpers."""
    prompt_alternatives: bool
    """Tokens of the prompt have their `top_n_tokens` alternatives too."""
    prompt_details_in_streams: bool
    """`decoder_input_details` may be asked for with a stream."""
    seeds_best_of: bool
    """A `seed` starts the seeds of all samples of `best_of`; else the two exclude each other."""
    lowest_seed: int
    """Negative ones are taken modulo 2**64."""
    cuts_max_tokens: bool
    """More tokens may be asked for than the context has room for: the answer then ends there."""
    exact_messages: bool
    """Errors name the exact bounds; else they are TGI's sentences, which its clients match, also where off by one."""
    shown_special: frozenset[str] = frozenset()
    """Special tokens that stay in the text, for those who read it further (calls of tools, reasoning)."""
    param_names: Mapping[str, str] = field(default_factory=dict)
    """Our parameter name -> the name in the user's request, for errors (max_new_tokens -> max_tokens)."""

    def renamed(self, names: Mapping[str, str]) -> Dialect:
        """The same rules where these parameters have other names, too."""
        return replace(self, param_names={**self.param_names, **names})


TGI = Dialect(
    keeps_stop_in_text=True,
    last_token_reports_length=True,
    decodes_tokens_alone=True,
    raw_logprobs=False,
    prompt_alternatives=False,
    prompt_details_in_streams=False,
    seeds_best_of=False,
    lowest_seed=0,
    cuts_max_tokens=False,
    exact_messages=False,
)
TGI_RAW = replace(TGI, raw_logprobs=True)
"""TGI's routes under `--raw-logprobs`."""
OPENAI = Dialect(
    keeps_stop_in_text=False,
    last_token_reports_length=False,
    decodes_tokens_alone=False,
    raw_logprobs=True,
    prompt_alternatives=True,
    prompt_details_in_streams=True,
    seeds_best_of=True,
    lowest_seed=-(2**63),
    cuts_max_tokens=False,
    exact_messages=True,
    param_names={"max_new_tokens": "max_tokens", "top_n_tokens": "top_logprobs", "inputs": "prompt"},
)
ANTHROPIC = replace(
    OPENAI,
    cuts_max_tokens=True,
    param_names={"max_new_tokens": "max_tokens", "inputs": "messages", "stop": "stop_sequences"},
)
"""As Anthropic's models: their clients ask for as many tokens as those can give, whatever is served."""
RESPONSES = OPENAI.renamed({"max_new_tokens": "max_output_tokens", "inputs": "input", "top_n_tokens": "top_logprobs"})
