"""Which tokens end an answer: all that a checkpoint's files name, and the one its chat template closes a turn with.

A fine-tuned model often keeps the base model's generation_config.json, so no file alone can be believed: a token too
many ends a few answers early, one too few lets every answer run on into invented turns.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tgi.errors import ModelError, TgiError
from tgi.json_files import read_json
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

MAX_ID = 2**31 - 1
PROBE_SECONDS = 5.0
"""A template that needs longer for three messages is not asked any more."""
_QUESTION, _ANSWER = "Probequestion", "Probeanswer"


def find_end_tokens(model_path: Path, tokenizer: Tokenizer, template: ChatTemplate) -> dict[int, tuple[str, ...]]:
    """Token id -> where it is named, in ascending order of ids. Raises ModelError for what is no id."""
    named: dict[int, list[str]] = {}
    for name in ("generation_config.json", "config.json"):
        for id in _ids(read_json(model_path / name).get("eos_token_id"), name):
            named.setdefault(id, []).append(name)
    for id, source in ((tokenizer.eos_token_id, "tokenizer"), (closing_token(template, tokenizer), "chat template")):
        if id is not None:
            named.setdefault(id, []).append(source)
    return {id: tuple(sources) for id, sources in sorted(named.items())}


def closing_token(template: ChatTemplate, tokenizer: Tokenizer) -> int | None:
    """The token that the chat template writes after an assistant's message; None when there is none."""
    if not template:
        return None
    user, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
    added = sorted(tokenizer.added.items(), key=lambda entry: len(entry[1]), reverse=True)
    for messages in ([user, answer], [user, answer, user]):
        try:
            text = template.render(messages, add_generation_prompt=False, seconds=PROBE_SECONDS)
        except TgiError as error:
            logger.debug("The chat template does not render a probe: %s", error)
            continue
        _, found, rest = text.rpartition(_ANSWER)
        rest = rest.lstrip() if found else ""
        for id, token in added:
            if token.strip() and rest.startswith(token):
                return id
    return None


def _ids(value: Any, name: str) -> list[int]:
    """`eos_token_id` of a config: an id, a list of them, or nothing. Raises ModelError."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for id in ids:
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id <= MAX_ID:
            shown = ascii(id)
            shown = shown if len(shown) <= 32 else f"{shown[:32]}..."
            raise ModelError(f"{name}: `eos_token_id` must be a token id or a list of them, it has {shown}")
    return ids
