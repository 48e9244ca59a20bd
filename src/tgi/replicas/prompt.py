"""What the router reads of a request's body: which model, which prompt, which conversation.

Owns the names of the fields, of all dialects, and one spelling for what JSON can spell in several ways: a conversation
that is written with other spaces, escapes or another order of keys is the same. Nothing is checked, since the replica
does that: a body that cannot be read is a prompt like any other.
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


_body = msgspec.json.Decoder(Body)
_encoder = msgspec.json.Encoder(order="sorted")


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
    before = [_plain(one) for one in (body.tools, body.system, body.instructions)]
    conversation = key_of(_plain(body.prompt_cache_key), salt) if body.prompt_cache_key != NONE else None
    listed = body.messages if body.messages != NONE else body.input
    messages = _messages(listed) if listed != NONE else None
    if messages is None:
        parts = [*before, *(_plain(one) for one in (body.prompt, body.inputs, body.input, body.instances))]
        return Ask(chain(parts, salt), conversation)
    pieces, first = messages
    parts = [*before, *pieces]
    if conversation is None:
        conversation = key_of(b"".join(parts[: len(before) + first]), salt)
    turns = len(pieces) - first
    earlier = sum(map(len, parts[: len(before) + len(pieces) - 2])) if turns >= 2 else 0
    return Ask(chain(parts, salt), conversation, earlier)


def _plain(value: Raw) -> bytes:
    """A value in the one spelling that it has here; as it came where it cannot be read."""
    if value == NONE:
        return b""
    try:
        return _encoder.encode(msgspec.json.decode(value))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return bytes(value)


def _messages(listed: Raw) -> tuple[list[bytes], int] | None:
    """Messages, each in its one spelling, and how many there are up to the first one of the user, that one included.

    None: it is no list of messages.
    """
    try:
        messages = msgspec.json.decode(listed, type=list[dict[str, Any]])
        first = next((at for at, one in enumerate(messages, 1) if one.get("role") == "user"), len(messages))
        return [_encoder.encode(_message(one)) for one in messages], first
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """null means absent, and a list of one text is that text."""
    said = {name: value for name, value in message.items() if value is not None}
    match said.get("content"):
        case [{"type": "text" | "input_text" | "output_text", "text": str(text), **rest}] if not rest:
            said["content"] = text
    return said
