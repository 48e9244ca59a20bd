"""Calls as JSON objects that hold name and arguments: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, repeated, sequence

_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class Objects:
    """Read with any of the usual keys in any order and any space; written as the template shows it."""

    begin: tuple[str, ...] = ()
    """What may begin calls, the first is the one that is written; none: calls are the whole answer."""
    end: str = ""
    listed: bool = False
    """Whether calls are items of an array, all between one begin and end."""
    name: str = "name"
    arguments: str = "arguments"
    before: str = ""
    """What is written before the name in an object."""
    around: tuple[str, str] = ("", "")
    """Space that is written after the begin and before the end."""
    between: str = "\n"
    """Written between calls."""
    ignored: tuple[str, ...] = ()
    """Further markers, which are taken out of the text."""

    @property
    def opening(self) -> str:
        return "" if self.begin else "{[" + "".join(mark[0] for mark in self.ignored)

    @property
    def heading(self) -> str:
        return ""

    @property
    def markers(self) -> Sequence[str]:
        return [*self.begin, *self.ignored, *([self.end] if self.end else [])]

    @property
    def trigger(self) -> str | None:
        return self.begin[0] if self.begin else None

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            arguments = rules.add(f"arguments_{number}", rules.arguments(tool))
            head = f'{{{self.before}"{self.name}": {json.dumps(tool.name)}, "{self.arguments}": '
            calls.append(rules.add(f"object_{number}", sequence(rules.literal(head), arguments, '"}"')))
        call = any_of(calls)
        begin, end = (self.begin[0] if self.begin else "") + self.around[0], self.around[1] + self.end
        if self.listed:
            several = repeated(call, '", "', parallel)
            return sequence(rules.literal(begin + "["), several, rules.literal("]" + end))
        whole = rules.add("call", sequence(rules.literal(begin), call, rules.literal(end)))
        return repeated(whole, rules.literal(self.between), parallel)

    def read(self, scan: Scanner, calls: Calls) -> Script:
        if not self.begin:
            yield from self._bare(scan, calls)
            return
        while (found := (yield from scan.until([*self.begin, *self.ignored], scan.say))) is not None:
            if found in self.begin:
                yield from self._marked(scan, calls, found)

    def _marked(self, scan: Scanner, calls: Calls, begin: str) -> Script:
        """What follows a begin; text again if it is no call."""
        scan.record(begin)
        while True:
            yield from scan.space()
            yield from self._array_mark(scan, "[")
            yield from scan.space()
            if not (yield from self._object(scan, calls, checked=False)):
                break
            yield from scan.space()
            if not (yield from scan.take(",", ";")):
                break
        yield from self._array_mark(scan, "]")
        yield from scan.space()
        if scan.recorded is not None:
            scan.say(scan.give_back())
        elif self.end:
            yield from scan.take(self.end)

    def _array_mark(self, scan: Scanner, mark: str) -> Script:
        yield from scan.space()
        yield from scan.take(mark)

    def _bare(self, scan: Scanner, calls: Calls) -> Script:
        """Calls of tools that are offered, if the answer begins with them."""
        scan.record("")
        yield from scan.space()
        if self.ignored and (yield from scan.take(*self.ignored)):
            scan.record("")
            yield from scan.space()
        yield from scan.take("[")
        while (yield from self._object(scan, calls, checked=True)):
            yield from scan.space()
            yield from scan.take("]")
            yield from scan.space()
            if not (yield from scan.take(",", ";")) and not (yield from scan.starts("{")):
                break
            yield from scan.space()
            scan.record("")
        if scan.recorded is not None:
            scan.say(scan.give_back())

    def _object(self, scan: Scanner, calls: Calls, checked: bool) -> Script:
        """One object; False if it is none, or no call. What was taken of it stays in the record until it is one."""
        if not (yield from scan.take("{")):
            return False
        begun, waiting = False, ""
        while True:
            yield from scan.space()
            key, value = [], []
            if not (yield from scan.starts('"')) or not (yield from scan.json_value(key.append)):
                break
            yield from scan.space()
            if not (yield from scan.take(":")):
                break
            yield from scan.space()
            word = _decoded("".join(key))
            if word in _ARGUMENTS and begun:
                yield from self._arguments(scan, calls)
            elif not (yield from scan.json_value(value.append)):
                break
            elif word in _NAMES and not begun:
                name = _decoded("".join(value))
                if not name or (checked and not calls.offered(name)):
                    break
                begun = True
                scan.forget()
                calls.begin(name)
                calls.arguments(_unquoted(waiting))
            elif word in _ARGUMENTS:
                waiting = "".join(value)
            yield from scan.space()
            if not (yield from scan.take(",")):
                break
        closed = yield from scan.take("}")
        if begun and (closed or not scan.ended):
            calls.end()
        return begun

    def _arguments(self, scan: Scanner, calls: Calls) -> Script:
        if (yield from scan.starts("{", "[")):
            yield from scan.json_value(calls.arguments)
            return
        value: list[str] = []
        if (yield from scan.json_value(value.append)):
            calls.arguments(_unquoted("".join(value)))


def _decoded(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def _unquoted(text: str) -> str:
    """Arguments that were written as a string of JSON; nothing for null."""
    if text == "null":
        return ""
    inner = _decoded(text) if text.startswith('"') else ""
    return inner if inner.startswith("{") else text
