"""Calls as a name followed by a JSON object of arguments: `[TOOL_CALLS]get_weather[ARGS]{...}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, repeated, sequence

LONGEST_NAME = 256
"""Characters; what is longer is no name."""


@dataclass(frozen=True, slots=True)
class Named:
    """The literals around name and arguments; of several the first is written."""

    begin: str = ""
    """Before each call; empty: the name of a tool begins the answer."""
    between: tuple[str, ...] = ("\n",)
    """After the name."""
    end: str = ""
    """After the arguments."""
    opens: str = ""
    """Before the first call."""
    closes: str = ""
    """After the last."""
    separator: str = ""
    before_name: str = ""
    """What is written before the name and is no part of it."""
    after_name: str = ""
    """A regular expression of what is written after the name and belongs to the id."""
    further: tuple[str, ...] = ()
    """Further markers within a call."""
    parts: Callable[[str], tuple[str, str | None]] = lambda name: (name, None)
    """Name and id of what was written."""

    @property
    def opening(self) -> str:
        return ""

    @property
    def heading(self) -> str:
        return ""

    @property
    def markers(self) -> Sequence[str]:
        every = (self.opens, self.begin, *self.between, self.end, self.closes, *self.further)
        return [marker for literal in every for marker in literal.split("\n") if len(marker) > 1]

    @property
    def trigger(self) -> str | None:
        return self.opens or self.begin or None

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            arguments = rules.add(f"arguments_{number}", rules.arguments(tool))
            head = self.begin + self.before_name + tool.name
            after = [f"/{self.after_name}/"] if self.after_name else []
            if after:
                head_rule = sequence(rules.literal(head), *after, rules.literal(self.between[0]))
            else:
                head_rule = rules.literal(head + self.between[0])
            calls.append(rules.add(f"call_{number}", sequence(head_rule, arguments, rules.literal(self.end))))
        call = rules.add("call", any_of(calls))
        several = repeated(call, rules.literal(self.separator), parallel)
        return sequence(rules.literal(self.opens), several, rules.literal(self.closes))

    def read(self, scan: Scanner, calls: Calls) -> Script:
        if not self.begin:
            while (yield from self._call(scan, calls)):
                yield from scan.space()
            return
        marks = [mark for mark in (self.opens, self.begin, self.closes) if mark]
        while (found := (yield from scan.until(marks, scan.say))) is not None:
            if found == self.begin:
                scan.record(found)
                yield from self._call(scan, calls)
            else:
                scan.drop_space()

    def _call(self, scan: Scanner, calls: Calls) -> Script:
        """Name and arguments; False, and text, if that is no call."""
        if not self.begin:
            scan.record("")
        written = yield from self._name(scan, calls)
        name, id = self.parts(written)
        if not name or not (yield from scan.starts("{")):
            scan.say(scan.give_back())
            return False
        scan.forget()
        calls.begin(name, id)
        whole = yield from scan.json_value(calls.arguments)
        yield from scan.space()
        yield from scan.take(*[end for end in (self.end, self.end.lstrip("\n")) if end])
        if whole:
            calls.end()
        return True

    def _name(self, scan: Scanner, calls: Calls) -> Script:
        """What comes before the arguments, if it may be a name."""
        ends = [literal for literal in (*self.between, "{") if literal]
        written = ""
        while (yield from scan.fill(1)):
            if (found := (yield from scan.starts(*ends))) is not None:
                if found != "{":
                    scan.drop(len(found))
                break
            written += scan.drop(1)
            text = written.strip()
            unknown = not self.begin and text and not calls.begins_name(text)
            if len(written) > LONGEST_NAME or unknown or (not self.begin and written != text):
                return ""
        if not self.begin and not calls.offered(written):
            return ""
        yield from scan.space()
        return written.strip().removeprefix(self.before_name)
