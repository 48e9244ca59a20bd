"""Mistral: a list of objects after `[TOOL_CALLS]`, since Tekken v11 a name and `[ARGS]`. Ids are nine letters."""

import hashlib
import secrets
import string

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.named import Named
from tgi.serving.tools.shapes.objects import Objects

ID_LENGTH = 9
LETTERS = string.ascii_letters + string.digits


def new_id(_: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH))


def known_id(id: str) -> str:
    """An id as the template demands it, always the same of one that somebody else gave."""
    if len(id) == ID_LENGTH and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]


def _parts(written: str) -> tuple[str, str | None]:
    name, _, id = written.partition("[CALL_ID]")
    return name.strip(), id.strip() or None


MISTRAL = Format(
    "mistral", Objects(begin=("[TOOL_CALLS]",), listed=True), mentions("[TOOL_CALLS]"), new_id=new_id, known_id=known_id
)
MISTRAL_TEKKEN = Format(
    "mistral_tekken",
    Named(begin="[TOOL_CALLS]", between=("[ARGS]",), parts=_parts, further=("[CALL_ID]",)),
    mentions("[TOOL_CALLS]", "[ARGS]"),
    new_id=new_id,
    known_id=known_id,
)
