"""What a format writes as a grammar, its reader reads: random answers of the grammar are calls that fit."""

from __future__ import annotations

import json
import random

import pytest

from tests.serving.tools.samples import SAMPLES, TOOLS
from tests.serving.tools.test_formats import meaning, read
from tgi.serving.chat.conversation import Tool
from tgi.serving.tools.registry import NAMES, by_name
from tgi.serving.tools.rules import Rules

llguidance = pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def vocabulary():
    """A tokenizer of single bytes, and one end."""
    return llguidance.LLTokenizer("byte")


def grammar_of(name, tools, parallel=True):
    rules = Rules()
    return rules.text(by_name(name).shape.rule(tools, rules, parallel))


def accepted(vocabulary, grammar, text):
    matcher = llguidance.LLMatcher(vocabulary, grammar)
    assert not matcher.get_error(), matcher.get_error()
    return all(matcher.consume_token(byte) for byte in text.encode()) and matcher.is_accepting()


CLOSING = [b"</arg_value>", b"\n</parameter>", b"<escape>", b'<|"|>', b'"', b"}", b"\n```", b")"]
"""Ends of texts, which a random walk would not find."""


def walk(vocabulary, grammar, seed, most=400):
    """A random answer of a grammar."""
    chance = random.Random(seed)
    matcher = llguidance.LLMatcher(vocabulary, grammar)
    assert not matcher.get_error(), matcher.get_error()
    text = bytearray()
    while len(text) < most and not matcher.is_stopped():
        closing = chance.choice(CLOSING) if chance.random() < 0.2 else b""
        if closing and matcher.validate_tokens(list(closing)) == len(closing):
            assert matcher.consume_tokens(list(closing))
            text += closing
            continue
        bias = matcher.compute_logit_bias()
        allowed = [byte for byte in range(256) if bias[byte]]
        if matcher.is_accepting() and (not allowed or chance.random() < 0.5):
            break
        plain = [byte for byte in allowed if 32 <= byte < 127] or allowed
        ends = [byte for byte in plain if byte in b'"}])<\n']
        byte = chance.choice(ends if ends and chance.random() < 0.5 else plain)
        assert matcher.consume_token(byte)
        text.append(byte)
    return text.decode(errors="replace"), matcher.is_accepting()


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_takes_a_call_and_no_other_text(vocabulary, name):
    grammar = grammar_of(name, TOOLS)
    assert not accepted(vocabulary, grammar, "Hello")
    assert not accepted(vocabulary, grammar, "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parallel", [True, False])
def test_answers_of_the_grammar_are_calls(vocabulary, name, parallel):
    grammar = grammar_of(name, TOOLS, parallel)
    whole = 0
    for seed in range(30):
        text, done = walk(vocabulary, grammar, seed)
        if not done:
            continue
        whole += 1
        said, calls = meaning(read(name, [text]))
        assert said == "", text
        assert len(calls) == 1 or (parallel and calls), text
        for call, arguments in calls:
            assert call in ("get_weather", "now")
            if call == "now":
                assert arguments == {}
                continue
            assert isinstance(arguments["city"], str)
            assert set(arguments) <= {"city", "days", "unit", "exact"}
            assert isinstance(arguments.get("days", 1), int)
            assert arguments.get("unit", "C") in ("C", "F")
            assert isinstance(arguments.get("exact", True), bool)
    assert whole > 5


NESTED = Tool(
    "plan",
    None,
    {
        "$defs": {"Stop": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}},
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}},
            "note": {"type": ["string", "null"]},
        },
        "required": ["stops"],
        "additionalProperties": False,
    },
    strict=True,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_with_references_compiles(vocabulary, name):
    assert not llguidance.LLMatcher(vocabulary, grammar_of(name, [NESTED])).get_error()


def test_what_templates_show_is_what_grammars_take(vocabulary):
    """The commonest samples, as written."""
    taken = {
        name
        for name, text, said, calls in SAMPLES
        if calls and not said and accepted(vocabulary, grammar_of(name, TOOLS), text)
    }
    assert {"hermes", "json", "llama3_json", "qwen3_coder", "glm45", "deepseek_v3", "kimi_k2", "glm4"} <= taken


def test_special_tokens_are_tokens_of_the_grammar():
    rules = Rules({"<tool_call>": 5, "</tool_call>": 6})
    assert rules.literal("<tool_call>\n") == '<[5]> "\\n"'
    ending = Rules({"<end>": 7}, frozenset({"<end>"}))
    assert ending.literal("a<end>") == '"a"'
    assert json.loads(Rules().literal('x"\n')) == 'x"\n'


def test_what_no_grammar_can_express_is_left_open_unless_strict(vocabulary):
    address = {"type": "string", "pattern": r"^(?!\.)\w+@\w+$", "not": {"const": "a@b"}}
    schema = {"type": "object", "properties": {"to": address}, "required": ["to"]}
    assert accepted(
        vocabulary, grammar_of("json", [Tool("mail", None, schema)]), '{"name": "mail", "arguments": {"to": "x"}}'
    )
    strict = llguidance.LLMatcher(vocabulary, grammar_of("json", [Tool("mail", None, schema, strict=True)]))
    assert "not supported" in strict.get_error() or "Unimplemented" in strict.get_error()
