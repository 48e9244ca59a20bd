"""Every format of calls, over every way in which a text can be cut."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.tools.samples import SAMPLES, TOOLS
from tgi.serving.chat.parts import CallArguments, CallBegin, Reasoning, Text
from tgi.serving.chat.scanner import ScriptReader, merged
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.registry import NAMES, by_name
from tgi.settings.flags import TOOL_CALL_FORMATS


def reader(name):
    format = by_name(name)
    ids = iter(range(1000))
    return ScriptReader(lambda scan: format.shape.read(scan, Calls(scan, TOOLS, lambda _: f"id{next(ids)}")))


def read(name, pieces):
    """Merged parts of a text that came in pieces."""
    one = reader(name)
    parts = [part for piece in pieces for part in one.feed(piece)]
    return merged(parts + one.end())


def cut(text, places):
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


def meaning(parts):
    text = "".join(part.text for part in parts if isinstance(part, Text))
    names = {part.index: part.name for part in parts if isinstance(part, CallBegin)}
    arguments = dict.fromkeys(names, "")
    for part in parts:
        if isinstance(part, CallArguments):
            arguments[part.index] += part.text
    return text, [(names[index], json.loads(arguments[index])) for index in sorted(names)]


def test_every_format_has_a_sample():
    assert {name for name, *_ in SAMPLES} == set(NAMES)


@pytest.mark.parametrize(("name", "text", "said", "calls"), SAMPLES)
def test_what_a_text_means(name, text, said, calls):
    assert meaning(read(name, [text])) == (said, calls)


@pytest.mark.parametrize(("name", "text", "said", "calls"), SAMPLES)
def test_every_cut_gives_the_same(name, text, said, calls):
    whole = read(name, [text])
    assert read(name, list(text)) == whole
    for place in range(1, len(text)):
        assert read(name, cut(text, [place])) == whole
    for seed in range(20):
        places = sorted(random.Random(seed).sample(range(1, len(text)), min(5, len(text) - 1)))
        assert read(name, cut(text, places)) == whole


@pytest.mark.parametrize(("name", "text", "said", "calls"), SAMPLES)
def test_a_cut_answer_is_a_beginning(name, text, said, calls):
    """What a shorter answer gives, its last part aside, is how the longer one begins."""
    for length in range(0, len(text), 3):
        parts = read(name, [text[:length]])
        begun = [part for part in parts if isinstance(part, CallBegin)]
        assert [(one.name) for one in begun] == [call for call, _ in calls][: len(begun)]
        assert read(name, list(text[:length])) == parts


WORDS = sorted(
    {word for _, text, *_ in SAMPLES for word in (text[:7], text[-9:], text[:17])} | {"{", '"', "}", ",", " "}
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=8), data=st.data())
def test_nonsense_is_read_alike_however_it_is_cut(name, words, data):
    text = "".join(words)
    whole = read(name, [text])
    assert read(name, list(text)) == whole
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=4).map(sorted))
    assert read(name, cut(text, places)) == whole
    if not any(isinstance(part, (CallBegin, Reasoning)) for part in whole) and not by_name(name).shape.markers:
        assert "".join(part.text for part in whole) == text


def test_the_flag_knows_every_format():
    assert sorted(NAMES) == list(TOOL_CALL_FORMATS)
