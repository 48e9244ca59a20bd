"""Models whose names are nearly a misspelt one, by the hub's search. Never an error: an answer is a courtesy."""

from __future__ import annotations

import difflib
import logging
import re

logger = logging.getLogger(__name__)

MOST = 3
RESULTS = 20
"""Looked at for each word that is searched for, the most downloaded first."""
SIMILAR = 0.6
"""Of `difflib`'s ratio, from which a name counts as near."""
SEARCHES = 4
SHORTEST = 3
"""Letters of a word worth searching for."""


def models(model_id: str, *, endpoint: str | None, token: str | None) -> list[str]:
    """At most three names on the hub, the nearest first; none where it does not answer."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="text-generation-inference")
    names: set[str] = set()
    try:
        for word in _words(model_id):
            names |= {model.id for model in api.list_models(search=word, sort="downloads", limit=RESULTS)}
            if found := _near(model_id, names):
                return found
    except Exception as error:
        logger.debug("The hub's search does not answer: %s", error)
    return _near(model_id, names)


def _words(model_id: str) -> list[str]:
    """What to search for: the search finds names that hold a text, so a misspelt one is searched for by its parts."""
    owner, slash, name = model_id.rpartition("/")
    parts = [part for part in re.split(r"[-_.]", name) if len(part) >= SHORTEST]
    words = [name, *([owner] if slash else []), *sorted(parts, key=len, reverse=True)]
    return list(dict.fromkeys(words))[:SEARCHES]


def _near(model_id: str, names: set[str]) -> list[str]:
    by_lower = {name.lower(): name for name in sorted(names)}
    wanted = model_id.lower()
    if "/" not in wanted:
        by_lower = {lower.rpartition("/")[2]: name for lower, name in by_lower.items()}
    return [by_lower[found] for found in difflib.get_close_matches(wanted, by_lower, MOST, SIMILAR)]
