"""`response_template`s of tokenizers as formats: shapes that transformers' documentation and models show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.tools.samples import SAMPLES, TOOLS
from tests.serving.tools.test_formats import meaning
from tgi.errors import ModelError
from tgi.serving.chat.scanner import ScriptReader
from tgi.serving.reasoning.tags import Tags
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.response_template import read_response_template

THOUGHTS = {"open": "<think>\n", "close": "</think>"}
FUNCTION = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
OBJECT = {"type": "function", "function": "{content}"}
FIELDS: dict[str, dict[str, Any]] = {
    "hermes": {"open": "<tool_call>", "close": "</tool_call>", "content": "json", "repeats": True, "transform": OBJECT},
    "llama_tags": {
        "open_pattern": r"<function=(?P<name>\w+)>",
        "close": "</function>",
        "content": "json",
        "repeats": True,
        "transform": FUNCTION,
    },
    "mistral_tekken": {
        "open_pattern": r"\[TOOL_CALLS\](?P<name>[^\[]+)\[ARGS\]",
        "content": "json",
        "repeats": True,
        "transform": FUNCTION,
    },
    "command_r7b": {
        "open": "<|START_ACTION|>",
        "close": "<|END_ACTION|>",
        "content": "json",
        "transform_each": True,
        "transform": {"type": "function", "function": {"name": "{tool_name}", "arguments": "{parameters}"}},
    },
    "gemma4": {
        "open_pattern": r"<\|tool_call>call:(?P<name>[\w.-]+)",
        "close": "<tool_call|>",
        "content": "json",
        "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
        "repeats": True,
        "transform": FUNCTION,
    },
    "qwen3_coder": {
        "open_pattern": r"<tool_call>\s*<function=(?P<name>[^>]+)>",
        "close_pattern": r"</function>\s*</tool_call>",
        "content": "xml-inline",
        "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>]+)>\n(?P<value>.*?)\n</parameter>"},
        "repeats": True,
        "transform": FUNCTION,
    },
    "glm45": {
        "open_pattern": r"<tool_call>(?P<name>[^\n<]+)",
        "close": "</tool_call>",
        "content": "xml-inline",
        "content_args": {"tag_pattern": r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"},
        "repeats": True,
        "transform": FUNCTION,
    },
}


def template(calls: Any, **fields: Any) -> dict[str, Any]:
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"content": {"close": "<|im_end|>"}, "tool_calls": calls, **fields},
    }


@pytest.mark.parametrize("name", FIELDS)
def test_it_reads_what_the_family_writes(name: str) -> None:
    described = read_response_template(template(FIELDS[name], thinking=THOUGHTS))
    assert described.format is not None
    assert described.tags == Tags("<think>", "</think>")
    shape, tried = described.format.shape, 0
    for family, text, said, calls in SAMPLES:
        if family == name and calls and "CALL_ID" not in text and "weather{" not in text.partition("]")[2]:
            reader = ScriptReader(lambda scan: shape.read(scan, Calls(scan, TOOLS)))
            parts = [part for character in text for part in reader.feed(character)]
            assert meaning([*parts, *reader.end()]) == (said, calls)
            tried += 1
    assert tried or name == "mistral_tekken"


def test_what_is_none_of_our_shapes_is_left_to_the_chat_template() -> None:
    for calls in (
        {"open": "<x>", "close": "</x>", "content": "kv-lines"},
        {"open_pattern": "(a|b)+", "content": "json"},
    ):
        assert read_response_template(template(calls)).format is None
    assert read_response_template({"fields": {"content": {}}}).format is None


def test_what_is_no_template() -> None:
    for wrong in ("x", {}, {"fields": 5}, {"fields": {}, "version": 2}):
        with pytest.raises(ModelError):
            read_response_template(wrong)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_as_transformers_reads_it(name: str) -> None:
    """transformers' own parser is the oracle: the same calls, whatever the text beside them."""
    parsing = pytest.importorskip("transformers.utils.chat_parsing", reason="needs transformers 5.13")
    given = template(FIELDS[name])
    shape = read_response_template(given).format.shape  # type: ignore[union-attr]
    tools = [tool.for_template() for tool in TOOLS]
    for family, text, _, calls in SAMPLES:
        if family != name or not calls or "CALL_ID" in text or "weather{" in text.partition("]")[2]:
            continue
        if any(word in text for word in ("null", '"now"}', '"{\\"', "True\n")):
            continue  # transformers refuses some slips of models that we read
        reader = ScriptReader(lambda scan: shape.read(scan, Calls(scan, TOOLS)))
        _, ours = meaning([*reader.feed(text), *reader.end()])
        theirs = parsing.parse_response(text, given, prefix="", tools=tools)["tool_calls"]
        flat = [one for call in theirs for one in (call if isinstance(call, list) else [call])]
        assert [(one["function"]["name"], one["function"]["arguments"]) for one in flat] == ours
