"""Grammars of whole answers over a real vocabulary: reasoning, its budget, calls, and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from tests.serving.tools.samples import TOOLS, WEATHER
from tgi.messages import Grammar
from tgi.serving.chat.answer_rules import Wanted, answer_grammar
from tgi.serving.chat.conversation import Tool
from tgi.serving.reasoning.tags import Tags
from tgi.serving.tools.registry import by_name
from tgi.serving.tools.rules import Rules

llguidance = pytest.importorskip("llguidance")
DEMO = Path(__file__).parents[3] / "src/tgi/demo/tokenizer.json"
TAGS = Tags("<think>", "</think>")
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(DEMO))
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer, tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    tokenizer.save(str(path))
    return llguidance.LLTokenizer(str(path))


def grammar(
    tokenizer: Tokenizer, wanted: Wanted, *, tags: Tags | None = None, begun: bool = False, name: str = "hermes"
) -> str | None:
    marks = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    special = {mark: tokenizer.token_to_id(mark) for mark in marks}
    family = SimpleNamespace(format=by_name(name), tags=tags, channels=False)
    found = answer_grammar(wanted, Rules(special), family, begun, lambda text: ids(tokenizer, text))  # type: ignore[arg-type]
    return None if found is None else found.text


def ids(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def takes(vocabulary: Any, tokenizer: Tokenizer, grammar: str | None, text: str) -> bool:
    matcher = llguidance.LLMatcher(vocabulary, grammar)
    assert not matcher.get_error(), matcher.get_error()
    return all(matcher.consume_token(id) for id in ids(tokenizer, text)) and matcher.is_accepting()


def test_nothing_is_constrained_unless_asked_for(tokenizer: Tokenizer) -> None:
    assert grammar(tokenizer, Wanted(), tags=TAGS) is None
    assert grammar(tokenizer, Wanted(tools=TOOLS), tags=TAGS) is None


def test_a_call_that_must_be(tokenizer: Tokenizer, vocabulary: Any) -> None:
    rules = grammar(tokenizer, Wanted(tools=TOOLS, must_call=True))
    assert takes(vocabulary, tokenizer, rules, CALL)
    assert takes(vocabulary, tokenizer, rules, f"{CALL}\n{CALL}")
    assert not takes(vocabulary, tokenizer, rules, f"Hm. {CALL}")
    alone = grammar(tokenizer, Wanted(tools=TOOLS, must_call=True, parallel=False))
    assert takes(vocabulary, tokenizer, alone, CALL)
    assert not takes(vocabulary, tokenizer, alone, f"{CALL}\n{CALL}")


def test_reasoning_comes_before_a_call(tokenizer: Tokenizer, vocabulary: Any) -> None:
    rules = grammar(tokenizer, Wanted(tools=TOOLS, must_call=True), tags=TAGS)
    assert takes(vocabulary, tokenizer, rules, f"<think>\nParis <b>, {{x}}\n</think>\n\n{CALL}")
    assert takes(vocabulary, tokenizer, rules, CALL)
    begun = grammar(tokenizer, Wanted(tools=TOOLS, must_call=True), tags=TAGS, begun=True)
    assert takes(vocabulary, tokenizer, begun, f"Paris\n</think>\n\n{CALL}")
    assert not takes(vocabulary, tokenizer, begun, CALL)


def test_strict_calls_where_the_model_may_say_anything(tokenizer: Tokenizer, vocabulary: Any) -> None:
    tool = Tool(WEATHER.name, None, WEATHER.parameters, strict=True)
    rules = grammar(tokenizer, Wanted(tools=[tool], strict=True))
    assert takes(vocabulary, tokenizer, rules, "It rains, a < b.")
    assert takes(vocabulary, tokenizer, rules, f"I look.\n{CALL}")
    assert not takes(vocabulary, tokenizer, rules, CALL.replace('"Paris"', "5"))
    assert not takes(vocabulary, tokenizer, rules, CALL.replace("get_weather", "get_wether"))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("llama3_json", '{"name": "get_weather", "parameters": {"city": "Paris"}}'),
        ("json", '{"name": "get_weather", "arguments": {"city": "Paris"}}'),
        ("pythonic", '[get_weather(city="Paris")]'),
    ],
)
def test_strict_calls_where_an_answer_is_a_call_or_none(
    tokenizer: Tokenizer, vocabulary: Any, name: str, call: str
) -> None:
    tool = Tool(WEATHER.name, None, WEATHER.parameters, strict=True)
    rules = grammar(tokenizer, Wanted(tools=[tool], strict=True), name=name)
    for free in ("It rains, a < b.", " \n(It rains: {1, 2} [3].\n\nSo?)", "", "12"):
        assert takes(vocabulary, tokenizer, rules, free)
    assert takes(vocabulary, tokenizer, rules, call)
    assert not takes(vocabulary, tokenizer, rules, call.replace('"Paris"', "5"))
    assert not takes(vocabulary, tokenizer, rules, call.replace("get_weather", "get_wether"))
    assert not takes(vocabulary, tokenizer, rules, "\n\t " + call.replace("get_weather", "get_wether"))


@pytest.mark.parametrize("begun", [False, True])
def test_a_budget_of_thoughts(tokenizer: Tokenizer, vocabulary: Any, begun: bool) -> None:
    rules = grammar(tokenizer, Wanted(thinking=6), tags=TAGS, begun=begun)
    matcher = llguidance.LLMatcher(vocabulary, rules)
    assert not matcher.get_error()
    if not begun:
        assert matcher.consume_token(tokenizer.token_to_id("<think>"))
    for id in ids(tokenizer, "a b c d e f g h i j")[:6]:
        assert matcher.consume_token(id)
    assert matcher.compute_ff_tokens() == [tokenizer.token_to_id("</think>")]
    assert matcher.consume_token(tokenizer.token_to_id("</think>"))
    for id in ids(tokenizer, f"It rains. {CALL} and more <think>"):
        assert matcher.consume_token(id)
    assert matcher.is_accepting()
    if not begun:
        assert takes(vocabulary, tokenizer, rules, "It rains for longer than six tokens.")
    assert takes(vocabulary, tokenizer, rules, "a</think>b" if begun else "<think>a</think>b")


def test_no_thoughts_at_all(tokenizer: Tokenizer, vocabulary: Any) -> None:
    rules = grammar(tokenizer, Wanted(thinking=0), tags=TAGS, begun=True)
    assert takes(vocabulary, tokenizer, rules, "</think>Yes.")
    assert not takes(vocabulary, tokenizer, rules, "a</think>Yes.")


@pytest.mark.parametrize(
    ("own", "good", "bad"),
    [
        (Grammar("json_schema", json.dumps({"type": "object", "required": ["a"]})), '{"a": 1}', "{}"),
        (Grammar("regex", "[0-9]+/[a-z]"), "17/x", "17"),
        (Grammar("lark", 'start: "yes" | no\nno: "no"\n'), "no", "maybe"),
    ],
)
def test_what_is_asked_for_comes_after_reasoning_or_gives_way_to_calls(
    tokenizer: Tokenizer, vocabulary: Any, own: Grammar, good: str, bad: str
) -> None:
    rules = grammar(tokenizer, Wanted(grammar=own), tags=TAGS)
    assert takes(vocabulary, tokenizer, rules, good)
    assert not takes(vocabulary, tokenizer, rules, bad)
    assert takes(vocabulary, tokenizer, rules, f"<think>hm</think>\n{good}")
    both = grammar(tokenizer, Wanted(tools=TOOLS, grammar=own))
    assert takes(vocabulary, tokenizer, both, good)
    assert takes(vocabulary, tokenizer, both, CALL)
    assert not takes(vocabulary, tokenizer, both, bad)
