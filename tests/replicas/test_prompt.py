"""What the router reads of a body: one conversation is one, however its JSON is spelled."""

from __future__ import annotations

import json

import pytest

from tgi.replicas.choice import Ask
from tgi.replicas.prompt import ask, read

LONG = 'Grüße & "quotes" / slashes \U0001f600 ' * 40
TURNS = [
    {"role": "system", "content": LONG},
    {"role": "user", "content": LONG[::-1], "name": "ann"},
    {"role": "assistant", "content": "Yes.", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "user", "content": "And then?"},
]


def asked(text: str) -> Ask:
    data = text.encode()
    return ask(read(data), data, 7)


def same(one: Ask, other: Ask) -> bool:
    return (one.blocks.hashes.tolist(), one.blocks.whole, one.conversation, one.earlier) == (
        other.blocks.hashes.tolist(),
        other.blocks.whole,
        other.conversation,
        other.earlier,
    )


@pytest.mark.parametrize("field", ["messages", "input"])
def test_spelling_makes_no_difference(field: str) -> None:
    backwards = [dict(reversed(turn.items())) for turn in TURNS]
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}], "refusal": None} for turn in TURNS]
    plain = asked(json.dumps({"model": "m", field: TURNS}))
    assert len(plain.blocks.hashes) > 8 and plain.earlier > 2900
    for turns in (TURNS, backwards, parts):
        for how in ({"ensure_ascii": False}, {"separators": (",", ":")}, {"indent": 2}):
            assert same(plain, asked(json.dumps({field: turns, "temperature": 0.5}, **how)))
    assert not same(plain, asked(json.dumps({field: TURNS[:-1]})))


def test_prompts_tools_and_keys_too() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": 1.5, "b": [1, None]}}}]
    body = {"tools": tools, "system": LONG, "prompt": LONG, "prompt_cache_key": "Ü"}
    backwards = {**body, "tools": [dict(reversed(tools[0].items()))]}
    assert same(asked(json.dumps(body)), asked(json.dumps(backwards, ensure_ascii=False, indent=1)))
    assert not same(asked(json.dumps(body)), asked(json.dumps({**body, "tools": []})))
    assert not same(asked(json.dumps(body)), asked(json.dumps({**body, "prompt_cache_key": "U"})))


def test_the_next_turn_begins_as_the_last_one() -> None:
    before, after = (asked(json.dumps({"messages": turns})) for turns in (TURNS[:2], TURNS))
    common = before.blocks.hashes.tolist()
    assert common == after.blocks.hashes.tolist()[: len(common)]
    assert before.conversation == after.conversation


@pytest.mark.parametrize(
    "text", ['{"messages": [1]}', '{"messages": "x"}', '{"messages": [{"role": 3}]}', "[" * 5000, "x"]
)
def test_what_cannot_be_read_is_a_prompt_too(text: str) -> None:
    assert asked(text).blocks.size >= 0 and same(asked(text), asked(text))
