"""What the router reads of a request's body: which model, which prompt, which conversation.

Owns the names of the fields, of all dialects. Values stay the bytes that were sent; nothing is checked, since the
replica does that: a body that cannot be read is a prompt like any other.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tgi.replicas.blocks import chain, key_of
from tgi.replicas.choice import Ask

Raw = msgspec.Raw
NONE = Raw(b"")


class Body(msgspec.Struct):
    """The fields that matter here, unparsed where only their bytes count; in the order in which they make a prompt."""

    model: Any = None
    tools: Raw = NONE
    system: Raw = NONE
    instructions: Raw = NONE
    messages: Raw = NONE
    prompt: Raw = NONE
    inputs: Raw = NONE
    input: Raw = NONE
    instances: Raw = NONE
    prompt_cache_key: Raw = NONE
    previous_response_id: Any = None
    stream: Any = False

    @property
    def model_name(self) -> str | None:
        """None: not given, or not text."""
        return self.model if isinstance(self.model, str) else None

    @property
    def in_words_of_openai(self) -> bool:
        """Whether `/invocations` answers as OpenAI's routes do."""
        return self.inputs == NONE and (self.messages != NONE or self.prompt != NONE)


class _Message(msgspec.Struct):
    role: str = ""


_body = msgspec.json.Decoder(Body)
_pieces = msgspec.json.Decoder(list[Raw])
_messages = msgspec.json.Decoder(list[_Message])


def read(data: bytes) -> Body | None:
    """None: no JSON object."""
    try:
        return _body.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def ask(body: Body | None, data: bytes, salt: int) -> Ask:
    """What the choice needs. salt: the deployment's and the model's."""
    if body is None:
        return Ask(chain([data], salt))
    before = [bytes(one) for one in (body.tools, body.system, body.instructions)]
    conversation = key_of(bytes(body.prompt_cache_key), salt) if body.prompt_cache_key != NONE else None
    listed = body.messages if body.messages != NONE else body.input
    messages = _split(listed) if listed != NONE else None
    if messages is None:
        parts = [*before, *(bytes(one) for one in (body.prompt, body.inputs, body.input, body.instances))]
        return Ask(chain(parts, salt), conversation)
    pieces, roles = messages
    parts = [*before, *pieces]
    first = roles.index("user") + 1 if "user" in roles else len(pieces)
    if conversation is None:
        conversation = key_of(b"".join(parts[: len(before) + first]), salt)
    turns = len(pieces) - first
    earlier = sum(map(len, parts[: len(before) + len(pieces) - 2])) if turns >= 2 else 0
    return Ask(chain(parts, salt), conversation, earlier)


def _split(listed: Raw) -> tuple[list[bytes], list[str]] | None:
    """Messages as they were sent, and their roles; None: it is no list of messages."""
    try:
        return [bytes(one) for one in _pieces.decode(listed)], [one.role for one in _messages.decode(listed)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
