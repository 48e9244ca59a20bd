"""Stop strings: found wherever they are, however the text is cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi.serving.stop import StopStrings

LETTERS = st.text("ab", min_size=1, max_size=6)


def feed(stops: list[str], keep: bool, pieces: list[str]) -> tuple[list[str], str | None]:
    watcher = StopStrings(stops, keep)
    shown = [watcher.feed(piece) for piece in pieces]
    if watcher.matched is None:
        shown.append(watcher.flush())
    return shown, watcher.matched


def search(text: str, stops: list[str]) -> tuple[int, str] | None:
    """The definition: the first end of any stop string; of several that end there, the longest."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return end, max(found, key=len)
    return None


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(LETTERS, max_size=3), st.booleans())
def test_any_cut_equals_searching_the_whole_text(pieces, stops, keep):
    shown, matched = feed(stops, keep, pieces)
    text = "".join(pieces)
    found = search(text, stops)
    if found is None:
        assert ("".join(shown), matched) == (text, None)
    else:
        end, stop = found
        assert ("".join(shown), matched) == (text[: end if keep else end - len(stop)], stop)


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(LETTERS, min_size=1, max_size=3))
def test_what_is_shown_never_needs_taking_back(pieces, stops):
    """Held back is exactly the longest end of the text that begins a stop string."""
    watcher, text, shown = StopStrings(stops, keep=False), "", ""
    for piece in pieces:
        text, shown = text + piece, shown + watcher.feed(piece)
        if watcher.matched is not None:
            break
        held = max((n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n])), default=0)
        assert shown == text[: len(text) - held]


SPECIAL = "<>"


def search_with_special(pieces: list[str], stops: list[str], keep: bool) -> tuple[str, str | None]:
    """The definition: what names the special token is sought in everything, the rest in what shows."""
    everything = [(character, piece != SPECIAL) for piece in pieces for character in piece]
    for end in range(1, len(everything) + 1):
        before = everything[:end]
        whole = "".join(character for character, _ in before)
        shown = "".join(character for character, shows in before if shows)
        found = []
        for stop in stops:
            if SPECIAL in stop and whole.endswith(stop):
                found.append((stop, sum(shows for _, shows in before[-len(stop) :])))
            elif SPECIAL not in stop and before[-1][1] and shown.endswith(stop):
                found.append((stop, len(stop)))
        if found:
            stop, cut = max(found, key=lambda pair: len(pair[0]))
            return shown if keep else shown[: len(shown) - cut], stop
    return "".join(character for character, shows in everything if shows), None


@given(
    st.lists(st.one_of(st.just(SPECIAL), st.text("ab<", max_size=3), st.just(">")), max_size=8),
    st.lists(st.one_of(LETTERS, st.sampled_from(["<>", "a<>", "<>b", "a<>b", "<><>", "b<>a<>"])), max_size=3),
    st.booleans(),
)
def test_special_tokens_count_for_stops_that_name_them(pieces, stops, keep):
    watcher = StopStrings(stops, keep, special=[SPECIAL])
    shown = "".join(watcher.feed_special(piece) if piece == SPECIAL else watcher.feed(piece) for piece in pieces)
    if watcher.matched is None:
        shown += watcher.flush()
    assert (shown, watcher.matched) == search_with_special(pieces, stops, keep)


@pytest.mark.parametrize(("keep", "expected"), [(True, ["one ST", "OP", "", ""]), (False, ["one ", "", "", ""])])
def test_across_tokens_and_within_one(keep, expected):
    assert feed(["STOP"], keep, ["one ST", "OPtwo", "three", "STOP"])[0] == expected
    assert feed([" "], keep, ["a b"])[0] == ["a " if keep else "a"]


def test_nothing_is_held_back_when_stop_strings_stay():
    assert feed(["\n\n"], True, ["a\n", "b"])[0] == ["a\n", "b", ""]
    assert feed(["\n\n"], False, ["a\n", "b"])[0] == ["a", "\nb", ""]
    assert feed(["\n\n"], False, ["a\n"])[0] == ["a", "\n"]


def test_a_long_stop_string_costs_what_the_text_costs():
    long = "a" * 10_000_000
    started = time.process_time()
    assert feed([long, "b" * 10_000_000], False, ["ab"] * 1000)[1] is None
    assert time.process_time() - started < 1.0  # a table over 10 million characters takes longer
