"""The input of a response: the items that it goes on from, and its own.

Owns where items come from (the body, stored responses), what is left out under `truncation`, and how items are kept.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tgi.api.responses.convert import TOLD_FIRST, conversation_of
from tgi.api.responses.items import (
    STORED,
    ResponseInputItem,
    ResponseInputMessage,
    ResponseItemReference,
    ResponseOtherItem,
)
from tgi.api.responses.store import Kept, ResponseStore
from tgi.api.responses.types import ResponsesRequest
from tgi.api.server.access import GROUP
from tgi.api.server.call import IGNORED_NAMES, LARGE_BODY, Call
from tgi.errors import ValidationError
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.plan import plan_chat

PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
"""Of the ids that items get when they are kept."""
MOST_REFERENCES = 10_000
"""Items of an input of which those that refer to others are looked up."""
MANY_ITEMS = 1_000
"""More than that become messages in a thread."""
NO_STORE = "the server keeps no responses (--max-stored-responses 0)"


@dataclass(slots=True)
class Context:
    """All items of a request."""

    before: list[ResponseInputItem]
    """Those of stored responses."""
    own: list[ResponseInputItem]
    places: list[int]
    """Where in the body each of its own is."""

    @property
    def items(self) -> list[ResponseInputItem]:
        return [*self.before, *self.own]


async def context_of(call: Call, body: ResponsesRequest) -> Context:
    """The items of a checked body; names of those without effect go to `call.ignored`. Raises ValidationError."""
    store, group = call.api.responses, call.request.scope.get(GROUP, 0)
    before = await _before(call, body, store, group)
    given: Sequence[ResponseInputItem] = body.input if isinstance(body.input, list) else ()
    if isinstance(body.input, str) and body.input:
        given = [ResponseInputMessage(role="user", content=body.input)]
    found = {
        item.id: store.item(item.id, group)
        for item in given[:MOST_REFERENCES]
        if isinstance(item, ResponseItemReference)
    }
    own, places, others = await call.unhurried(_own, given, found)
    call.ignored += [f"input.{number}" for number in others[:IGNORED_NAMES]]
    return Context(before, own, places)


def _own(
    given: Sequence[ResponseInputItem], found: Mapping[str, bytes | None]
) -> tuple[list[ResponseInputItem], list[int], list[int]]:
    """The items with those that are referred to, their places, and the places of what is left out."""
    own, places, others = [], [], []
    for number, item in enumerate(given):
        if isinstance(item, ResponseOtherItem):
            others.append(number)
            continue
        if isinstance(item, ResponseItemReference):
            referred = found.get(item.id)
            if referred is None:
                place = f"input[{number}]"
                raise ValidationError(f"`{place}`: there is no item with id `{item.id[:64]}`", param=place)
            item = _read([referred])[0]
        own.append(item)
        places.append(number)
    return own, places, others


async def _before(call: Call, body: ResponsesRequest, store: ResponseStore, group: int) -> list[ResponseInputItem]:
    id = body.previous_response_id
    if id is None:
        return []
    if not store.limit:
        raise ValidationError(f"`previous_response_id` cannot be used: {NO_STORE}", param="previous_response_id")
    chain = store.chain(id, group)
    if chain is None:
        raise ValidationError(
            f"`previous_response_id`: the response `{id[:64]}`, or one that it goes on from, is not there (any more)",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    pieces = [piece for kept in _recent(call, body, chain) for piece in kept.items]
    if sum(map(len, pieces)) < LARGE_BODY:
        return _read(pieces)
    return await asyncio.to_thread(_read, pieces)


def _recent(call: Call, body: ResponsesRequest, chain: list[Kept]) -> list[Kept]:
    """Those that are no more than a body can be."""
    limit, size = call.api.config.payload_limit, 0
    for number in range(len(chain) - 1, -1, -1):
        size += chain[number].size
        if size <= limit:
            continue
        if body.truncation == "auto" and number < len(chain) - 1:
            call.ignored.append("previous_response_id")
            return chain[number + 1 :]
        raise ValidationError(
            f"`previous_response_id`: the conversation has become larger than {limit} bytes (--payload-limit)",
            param="previous_response_id",
        )
    return chain


def _read(pieces: Sequence[bytes]) -> list[ResponseInputItem]:
    return STORED.validate_python([msgspec.json.decode(piece) for piece in pieces])


async def fitted(call: Call, body: ResponsesRequest, context: Context) -> Conversation:
    """The conversation; under `truncation` without its oldest items, as few as will do, where it is too long.

    It begins with something of the user's then. What the model is told first stays.
    """
    items, places = context.items, [*(-1 for _ in context.before), *context.places]

    def after(cut: int) -> Conversation:
        rest = slice(max(cut, head), None)
        return conversation_of(body, [*items[:head], *items[rest]], call.ignored, [*places[:head], *places[rest]])

    async def made(cut: int) -> Conversation:
        if len(items) > MANY_ITEMS:  # of stored responses, however small the body is
            return await asyncio.to_thread(after, cut)
        return await call.unhurried(after, cut)

    head = next((number for number, item in enumerate(items) if not _told_first(item)), len(items))
    whole = await made(head)
    if body.truncation == "disabled" or await _fits(call, body, whole):
        return whole
    cuts = [number for number in range(head + 1, len(items)) if getattr(items[number], "role", "") == "user"]
    if not cuts:
        return whole
    low, high = 0, len(cuts) - 1
    while low < high:  # the last cut is taken whether it fits or not: then the refusal says how much too long it is
        middle = (low + high) // 2
        if await _fits(call, body, await made(cuts[middle])):
            high = middle
        else:
            low = middle + 1
    for number in range(head, cuts[low]):
        own = number - len(context.before)
        call.ignored.append(f"input.{context.places[own]}" if own >= 0 else "previous_response_id")
    return await made(cuts[low])


def _told_first(item: ResponseInputItem) -> bool:
    return isinstance(item, ResponseInputMessage) and item.role in TOLD_FIRST


async def _fits(call: Call, body: ResponsesRequest, conversation: Conversation) -> bool:
    service = call.api.service
    plan = await plan_chat(service, conversation)
    tokens = len(await service.tokenize(plan.prompt, add_special_tokens=False))
    limits = service.limits
    return tokens <= limits.max_input_tokens and tokens + (body.max_output_tokens or 1) <= limits.max_total_tokens


def kept_items(items: Sequence[ResponseInputItem]) -> list[tuple[str, bytes]]:
    """The id and the JSON of each item of an input, as they are kept and listed."""
    return [_kept(item) for item in items]


def _kept(item: ResponseInputItem) -> tuple[str, bytes]:
    plain: dict[str, Any] = item.model_dump(exclude_none=True)
    kind = plain["type"] = plain.get("type", "message")
    plain.setdefault("id", f"{PREFIXES.get(kind, 'item')}_{uuid.uuid4().hex}")
    if kind == "message" and isinstance(plain["content"], str):
        part = "output_text" if plain["role"] == "assistant" else "input_text"
        plain["content"] = [{"type": part, "text": plain["content"]}]
    return plain["id"], msgspec.json.encode(plain)
