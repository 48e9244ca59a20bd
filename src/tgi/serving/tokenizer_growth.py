"""How much longer a tokenizer's normaliser and decoder make texts.

Ordinary ones replace a character by one or a few. One that puts thousands in its place would take this process' memory
for any request, and minutes for the texts it is tried with: it is refused before that.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from tgi.errors import ModelError
from tgi.serving.piece_bytes import flatten

MOST = 256
"""Times as long a text may become."""


def check_growth(fast: FastTokenizer) -> None:
    """Raises ModelError for a tokenizer that blows texts up."""
    for name, component in (("normalizer", fast.normalizer), ("decoder", fast.decoder)):
        steps = [] if component is None else flatten(json.loads(component.__getstate__()))
        growth = 1.0
        for step in steps:
            growth *= _growth(step)
        if growth > MOST:
            times = f"{growth:,.0f} times as long, where {MOST} times is the most"
            raise ModelError(f"tokenizer.json cannot be used: its {name} may make a text {times}")


def _growth(step: dict[str, Any]) -> float:
    if step["type"] == "Prepend":  # before each piece, which may be one character
        return 1.0 + len(step["prepend"])
    if step["type"] != "Replace":
        return 1.0
    replaced = step["pattern"].get("String")
    if replaced:
        return max(1.0, len(step["content"]) / len(replaced))
    return 1.0 + len(step["content"])  # a pattern may match nothing, between any two characters
