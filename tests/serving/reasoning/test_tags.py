"""Reasoning in every family's tags, over every cut of the text."""

from __future__ import annotations

import pytest

from tests.serving.tools.samples import TOOLS
from tgi.serving.chat.parts import CallArguments, CallBegin, Part, Reasoning, Text
from tgi.serving.chat.scanner import Scanner, Script, ScriptReader, merged
from tgi.serving.reasoning.tags import TAGS, Tags, find_tags
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.registry import by_name

CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def read(tags: Tags, pieces: list[str], *, begun: bool = False, tools: bool = False) -> list[Part]:
    def script(scan: Scanner) -> Script:
        yield from tags.read(scan, begun)
        if tools:
            yield from by_name("hermes").shape.read(scan, Calls(scan, TOOLS, lambda _: "id"))

    reader = ScriptReader(script)
    return merged([part for piece in pieces for part in reader.feed(piece)] + reader.end())


def everywhere(tags: Tags, text: str, **how: bool) -> list[Part]:
    """What is read, the same however the text is cut."""
    whole = read(tags, [text], **how)
    assert read(tags, list(text), **how) == whole
    for place in range(1, len(text)):
        assert read(tags, [text[:place], text[place:]], **how) == whole
    return whole


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.open)
def test_thoughts_and_answer(tags: Tags) -> None:
    thoughts = [Reasoning("Hm: a < b."), Text("It rains.\n")]
    assert everywhere(tags, f"{tags.open}\nHm: a < b.\n{tags.close}\n\nIt rains.\n") == thoughts
    assert everywhere(tags, f" \n{tags.open}Hm: a < b.{tags.close}It rains.\n") == thoughts
    assert everywhere(tags, f"Hm: a < b.\n{tags.close}\n\nIt rains.\n", begun=True) == thoughts


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.open)
def test_answers_without_thoughts_are_as_they_were(tags: Tags) -> None:
    for text in (" It rains. ", "", "\n", f"It {tags.open} rains {tags.close}", tags.open[:3], f"{tags.open[:-1]}x"):
        assert everywhere(tags, text) == ([Text(text)] if text else [])
    assert everywhere(tags, f"{tags.open}\n\n{tags.close}\n\nIt rains.") == [Text("It rains.")]


def test_a_call_after_thoughts() -> None:
    tags = TAGS[0]
    call = [CallBegin(0, "id", "now"), CallArguments(0, "{}")]
    assert everywhere(tags, f"<think>Hm.</think>\n{CALL}", tools=True) == [Reasoning("Hm."), *call]
    assert everywhere(tags, f"Hm. {CALL}\n</think>Yes.\n\n{CALL}\n", begun=True, tools=True) == [
        Reasoning(f"Hm. {CALL}"),
        Text("Yes."),
        *call,
    ]


def test_cut_thoughts() -> None:
    assert everywhere(TAGS[0], "<think>\nHm. </thi") == [Reasoning("Hm. </thi")]
    assert everywhere(TAGS[0], "<think>\n") == [Text("\n")] or everywhere(TAGS[0], "<think>\n") == []


@pytest.mark.parametrize(
    ("prompt", "continued", "begun"),
    [
        ("[assistant]<think>\n", False, True),
        ("[assistant]<think>\n\n</think>\n\n", False, False),
        ("<think>old</think>[user]<think>?[assistant]", False, False),
        ("[assistant]<think>Let me", True, True),
        ("[assistant]<think>Let me</think>It", True, False),
        ("[assistant]", False, False),
    ],
)
def test_whether_the_prompt_ends_in_thoughts(prompt: str, continued: bool, begun: bool) -> None:
    assert TAGS[0].begun(prompt, continued) == begun


def test_tags_are_found() -> None:
    assert find_tags("{{ content.split('</think>') }}", ()) == TAGS[0]
    assert find_tags("{{ content }}", {"[THINK]", "[/THINK]", "x"}) == Tags("[THINK]", "[/THINK]")
    assert find_tags("{{ content }}", {"<think>"}) is None
