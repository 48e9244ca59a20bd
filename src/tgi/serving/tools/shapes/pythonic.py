"""Calls as Python writes them: `[get_weather(city="Paris", days=3)]`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, listed, repeated, sequence
from tgi.serving.tools.schemas import property_schema, required, types
from tgi.serving.tools.values import json_of_literal

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pythonic:
    """Calls in brackets, which are the whole answer or are marked."""

    begin: str = ""
    end: str = ""
    brackets: tuple[str, str] = ("[", "]")
    ignored: tuple[str, ...] = ()
    """Further markers, which are taken out of the answer."""

    @property
    def opening(self) -> str:
        return "" if self.begin else self.brackets[0] + "".join(mark[0] for mark in self.ignored)

    @property
    def heading(self) -> str:
        return ""

    @property
    def markers(self) -> Sequence[str]:
        return [marker for marker in (self.begin.strip("\n"), self.end.strip("\n"), *self.ignored) if marker]

    @property
    def trigger(self) -> str | None:
        return self.begin or None

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            schema = tool.parameters or {}
            must = required(schema)
            keys = sorted(schema.get("properties") or {}, key=lambda key: key not in must)  # those that must be, first
            pairs = []
            for place, key in enumerate(keys):
                value = self._value(tool, key, rules, f"value_{number}_{place}")
                pairs.append((sequence(rules.literal(f"{key}="), value), key in must))
            head, tail = rules.literal(f"{tool.name}("), '")"'
            calls.append(rules.add(f"call_{number}", sequence(head, listed(pairs, rules, f"{number}", ", "), tail)))
        call = rules.add("call", any_of(calls))
        head, tail = rules.literal(self.begin + self.brackets[0]), rules.literal(self.brackets[1] + self.end)
        return sequence(head, repeated(call, '", "', parallel), tail)

    def _value(self, tool: Tool, key: str, rules: Rules, name: str) -> str:
        schema = property_schema(tool.parameters or {}, key)
        if types(schema) == {"boolean"} and "enum" not in schema and "const" not in schema:
            return '("True" | "False")'
        return rules.add(name, rules.json(schema, strict=tool.strict))

    def read(self, scan: Scanner, calls: Calls) -> Script:
        if not self.begin:
            yield from self._list(scan, calls, "")
            return
        while (found := (yield from scan.until([self.begin], scan.say))) is not None:
            yield from self._list(scan, calls, found)

    def _list(self, scan: Scanner, calls: Calls, begun: str) -> Script:
        scan.record(begun)
        yield from scan.space()
        if self.ignored and (yield from scan.take(*self.ignored)):
            scan.record("")
            yield from scan.space()
        opened = not self.brackets[0] or (yield from scan.take("["))
        while opened and (yield from self._call(scan, calls, checked=not self.begin)):
            yield from scan.space()
            if not (yield from scan.take(",")) and not (begun and (yield from scan.fill(1)) and scan.text[0].isalpha()):
                break
            scan.record("")
            yield from scan.space()
        if scan.recorded is not None:
            scan.say(scan.give_back())
            return
        yield from scan.space()
        yield from scan.take("]")
        yield from scan.space()
        if self.end or self.ignored:
            yield from scan.take(*([self.end.strip("\n")] if self.end else self.ignored))

    def _call(self, scan: Scanner, calls: Calls, checked: bool) -> Script:
        written = ""
        while (yield from scan.fill(1)) and _NAME.fullmatch(written + scan.text[0]):
            written += scan.drop(1)
        if not written or (checked and not calls.offered(written)) or not (yield from scan.take("(")):
            return False
        scan.forget()
        calls.begin(written)
        count, closed = 0, None
        while True:
            yield from scan.space()
            key: list[str] = []
            if closed := (yield from scan.take(")")):
                break
            if (yield from scan.until(["=", ")"], key.append)) != "=":
                break
            value = yield from _literal(scan)
            if value is None:
                return False
            calls.arguments("{" if count == 0 else ", ")
            calls.arguments(f"{json.dumps(''.join(key).strip(), ensure_ascii=False)}: {json_of_literal(value)}")
            count += 1
            yield from scan.space()
            yield from scan.take(",")
        if closed:
            calls.arguments("}" if count else "")
            calls.end()
        return closed is not None


def _literal(scan: Scanner) -> Script:
    """The text of a value, up to the comma or bracket that ends it; None if the answer ends in it."""
    taken, depth, quote = "", 0, ""
    while (yield from scan.fill(1)):
        character = scan.text[0]
        if quote:
            if character == "\\":
                yield from scan.fill(2)
                taken += scan.drop(2)
                continue
            if character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}," and depth == 0:
            return taken
        elif character in ")]}":
            depth -= 1
        taken += scan.drop(1)
    return None
