"""What a field that nobody knows was probably meant to be: `max_token` is `max_tokens`.

Pure: a name and the names of a request model in, a name out. Names are the client's word, so only short ones are looked
at, and answers are kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

SIMILAR = 0.8
"""Of difflib's ratio, without case and separators: `temprature` is near `temperature`, `top_a` is not near `top_p`."""
LONGEST = 40
"""Characters of a name that is looked at."""
HINT = " (did you mean {}?)"
SYNONYMS = {
    "npredict": ("max_tokens", "max_new_tokens"),
    "numpredict": ("max_tokens", "max_new_tokens"),
    "maxlength": ("max_tokens", "max_new_tokens"),
    "maxoutputtokens": ("max_tokens", "max_new_tokens"),
    "repeatpenalty": ("repetition_penalty",),
    "stopwords": ("stop",),
    "stopsequences": ("stop",),
    "system": ("messages",),
}
"""Names of other servers, without separators -> ours, of which the model of the request has one."""


def hint(name: str, known: Iterable[str], given: Iterable[str] = ()) -> str:
    """` (did you mean max_tokens?)`, or nothing. `known`: names that mean something; `given`: those that were used."""
    found = near(name, frozenset(known)) if len(name) <= LONGEST else None
    return HINT.format(found) if found is not None and found not in set(given) else ""


@lru_cache(1024)
def near(name: str, known: frozenset[str]) -> str | None:
    """The name that was meant, if there is a likely one; of a path the last part is compared."""
    plain = {_plain(one.rpartition(".")[2]): one for one in sorted(known, reverse=True)}
    wanted = _plain(name)
    for other in SYNONYMS.get(wanted, ()):
        if _plain(other) in plain:
            return plain[_plain(other)]
    found = difflib.get_close_matches(wanted, plain, 1, SIMILAR)
    return plain[found[0]] if found else None


def split_hint(name: str) -> tuple[str, str]:
    """A field's path, and the hint behind it."""
    before, _ = HINT.split("{}")
    path, begun, rest = name.rpartition(before)
    return (path, begun + rest) if begun and name.endswith("?)") else (name, "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
