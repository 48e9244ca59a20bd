"""The grammar of an answer: reasoning, its budget, calls of tools, and what the request asks for itself.

Owns how they follow each other. What a call looks like is its format's, compiling is the engine's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgi.grammar import WHITESPACE, ascii_digits
from tgi.messages import Grammar
from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.family import Family
from tgi.serving.reasoning.tags import Tags
from tgi.serving.tools.format import Shape
from tgi.serving.tools.rules import Rules, sequence

ANYTHING = "<[*]>*"
_START = re.compile(r"^start(?=\s*[:\[])", re.MULTILINE)
_HEADER = re.compile(r"^%llguidance.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer must be; what is None or empty is left to the model."""

    tools: Sequence[Tool] = ()
    """Tools that may be called."""
    must_call: bool = False
    parallel: bool = True
    strict: bool = False
    """Whether calls must fit their schemas also where the model need not call."""
    grammar: Grammar | None = None
    thinking: int | None = None
    """Most tokens of the reasoning."""


def answer_grammar(
    wanted: Wanted, rules: Rules, family: Family, begun: bool, ids: Callable[[str], Sequence[int]]
) -> Grammar | None:
    """The grammar of the whole answer; None if it is free.

    `begun`: the prompt ends within the reasoning; `ids`: the tokens of a text.
    """
    answer = _answer(wanted, rules, family, ids)
    if family.tags is not None and (answer is not None or wanted.thinking is not None):
        next_turn = "<|start|>assistant" if family.channels else ""
        answer = _after_reasoning(answer, wanted, rules, family.tags, begun, ids, next_turn)
    return None if answer is None else Grammar("lark", rules.text(answer))


def _answer(wanted: Wanted, rules: Rules, family: Family, ids: Callable[[str], Sequence[int]]) -> str | None:
    shape = family.format.shape
    calls = shape.rule(wanted.tools, rules, wanted.parallel) if _constrains(wanted, shape) else None
    if wanted.must_call:
        return calls
    if wanted.grammar is not None:
        own = sequence(rules.literal(shape.heading), _own(wanted.grammar, rules))
        return own if calls is None else f"{own} | {calls}"
    if calls is None:
        return None
    if shape.trigger is not None:
        return f"<[^{ids(shape.trigger)[0]}]>* ({calls})?"
    text = r"/[ \t\r\n]*([^ \t\r\n" + re.escape(shape.opening) + r"](.|\n)*)?/"
    return f"{calls} | {rules.add('OTHER', text)}"


def _constrains(wanted: Wanted, shape: Shape) -> bool:
    """Whether calls are written by the grammar."""
    if not wanted.tools:
        return False
    return wanted.must_call or wanted.grammar is not None or (wanted.strict and can_be_strict(shape))


def can_be_strict(shape: Shape) -> bool:
    """Whether it shows that an answer holds calls where none need be: by a mark, or by how it begins."""
    return shape.trigger is not None or shape.opening != ""


def _own(grammar: Grammar, rules: Rules) -> str:
    """The request's own grammar as a rule."""
    if grammar.kind == "json_schema":
        schema = json.loads(grammar.text)
        schema = schema if isinstance(schema, dict) else {} if schema else {"not": {}}
        options = {"whitespace_pattern": WHITESPACE, **schema.get("x-guidance", {})}
        return rules.add("own", "%json " + json.dumps({**schema, "x-guidance": options}, ensure_ascii=False))
    if grammar.kind == "regex":
        slashes = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], grammar.text, flags=re.DOTALL)
        return rules.add("own", "/" + ascii_digits(slashes).replace("\n", "\\n") + "/")
    rules.append(_START.sub("own", _HEADER.sub("", grammar.text)))
    return "own"


def _after_reasoning(
    answer: str | None,
    wanted: Wanted,
    rules: Rules,
    tags: Tags,
    begun: bool,
    ids: Callable[[str], Sequence[int]],
    next_turn: str,
) -> str:
    """Reasoning first, as the model does it. An answer that is free may have none, so its first token decides.

    `next_turn`: what is written between reasoning and answer; empty: space.
    """
    opened, closed = ids(tags.open), ids(tags.close)
    end = " ".join(f"<[{id}]>" for id in closed)
    if wanted.thinking is None:
        thought = f"<[^{closed[0]}]>*"
    else:
        thought = f"<[^{closed[0]}]>{{0,{wanted.thinking}}}" if wanted.thinking else ""
    free = answer is None
    rest = rules.add("answer", ANYTHING if answer is None else f"({answer})")
    between = "" if free else rules.literal(next_turn) or "SPACE?"
    if between == "SPACE?":
        rules.add("SPACE", r"/[ \n]+/")
    thinking = sequence(thought, end, between, rest)
    if begun:
        return thinking
    head = " ".join(f"<[{id}]>" for id in opened)
    other = f'<[^{opened[0]}]> {rest} | ""' if free else rest
    return f"{head} {thinking} | {other}"
