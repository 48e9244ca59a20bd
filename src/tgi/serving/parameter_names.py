"""What to say of a sampling parameter that does not exist: the name of the one that does."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

ELSEWHERE = {
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens",
    "logprobs": "top_n_tokens",
    "top_logprobs": "top_n_tokens",
    "prompt_logprobs": "decoder_input_details",
    "echo": "return_full_text",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "num_return_sequences": "n",
    "eos_token_id": "stop_token_ids",
    "truncate_prompt_tokens": "truncate",
    "source_language": "src_lang",
    "target_language": "tgt_lang",
    "forced_bos_token_id": "tgt_lang",
}
"""Names of OpenAI, transformers, vLLM and llama.cpp -> ours."""


def check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError for the first of the `given` names that is not `known`; the sentence names what is meant."""
    for name in given:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        meant = ELSEWHERE.get(name) or (near[0] if near else None)
        raise TypeError(
            f"there is no parameter `{name}`: " + (f"use `{meant}`" if meant else f"there are {', '.join(known)}")
        )
