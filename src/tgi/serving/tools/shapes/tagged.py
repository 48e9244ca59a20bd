"""Calls as a name and tagged arguments: `<function=get_weather><parameter=city>Paris</parameter></function>`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, repeated, sequence
from tgi.serving.tools.schemas import enumerated, is_text, property_schema, required
from tgi.serving.tools.values import json_of_text


@dataclass(frozen=True, slots=True)
class Tagged:
    """The tags, without the line breaks that are written between them; a reader takes any space there."""

    begin: str
    name_end: str
    """After the name; empty: the line ends there."""
    key: str
    key_end: str
    value_end: str
    end: str
    opens: str = ""
    """Before each call's begin."""
    closes: str = ""
    """After each call's end."""
    value: str = ""
    """Before each value; empty: a value has lines of its own."""

    @property
    def opening(self) -> str:
        return ""

    @property
    def heading(self) -> str:
        return ""

    @property
    def markers(self) -> Sequence[str]:
        every = (self.opens, self.begin, self.key, self.key_end, self.value, self.value_end, self.end, self.closes)
        return [marker for marker in every if len(marker) > 1]

    @property
    def trigger(self) -> str | None:
        return self.opens or self.begin

    # writing

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            schema = tool.parameters or {}
            must = required(schema)
            pairs = []
            for place, key in enumerate(schema.get("properties") or {}):
                name = f"{number}_{place}"
                value = self._value(property_schema(schema, key), rules, f"value_{name}", tool.strict)
                head = rules.literal(f"{self.key}{key}{self.key_end}\n{self.value}")
                pair = rules.add(f"pair_{name}", sequence(head, value, '"\\n"'))
                pairs.append(pair if key in must else f"{pair}?")
            opens = f"{self.opens}\n" if self.opens else ""
            head = rules.literal(f"{opens}{self.begin}{tool.name}{self.name_end}\n")
            tail = rules.literal(self.end + (f"\n{self.closes}" if self.closes else ""))
            calls.append(rules.add(f"call_{number}", sequence(head, *pairs, tail)))
        return repeated(rules.add("call", any_of(calls)), '"\\n"', parallel)

    def _value(self, schema: Mapping[str, Any], rules: Rules, name: str, strict: bool) -> str:
        ending = self.value_end if self.value else "\n" + self.value_end
        end = rules.literal(ending)
        if (values := enumerated(schema)) is not None:
            written = [value if isinstance(value, str) else json.dumps(value) for value in values]
            return sequence(any_of([rules.literal(value) or '""' for value in written]), end)
        if not is_text(schema):
            return sequence(rules.add(name, rules.json(schema, strict=strict)), end)
        if self.value_end in rules.special:  # it cannot be in the text
            return sequence(rules.add(name, r"/(.|\n)*/"), end)
        return rules.add(name, r"/(.|\n)*/", f"[suffix={json.dumps(ending, ensure_ascii=False)}]")

    # reading

    def read(self, scan: Scanner, calls: Calls) -> Script:
        marks = [self.opens, self.begin] if self.opens else [self.begin]
        while (found := (yield from scan.until(marks, scan.say))) is not None:
            scan.record(found)
            if found != self.begin:
                yield from scan.space()
            if found == self.begin or (yield from scan.take(self.begin)):
                yield from self._call(scan, calls)
            if scan.recorded is not None:
                scan.say(scan.give_back())

    def _call(self, scan: Scanner, calls: Calls) -> Script:
        written: list[str] = []
        found = yield from scan.until([self.name_end] if self.name_end else ["\n", self.key, self.end], written.append)
        name = "".join(written).strip()
        if not name or found is None:
            return
        if not self.name_end:
            scan.put_back(found)
        scan.forget()
        calls.begin(name)
        count = 0
        while True:
            yield from scan.space()
            if not (yield from scan.take(self.key)):
                break
            if not (yield from self._pair(scan, calls, name, "{" if count == 0 else ", ")):
                return
            count += 1
        if not (yield from scan.take(self.end)) and scan.ended:
            return
        if count:
            calls.arguments("}")
        calls.end()
        if self.closes:
            yield from scan.space()
            yield from scan.take(self.closes)

    def _pair(self, scan: Scanner, calls: Calls, name: str, before: str) -> Script:
        """A key and its value; False if the answer ends in it."""
        written: list[str] = []
        if (yield from scan.until([self.key_end], written.append)) is None:
            return False
        key = "".join(written).strip()
        if self.value:
            yield from scan.space()
            yield from scan.take(self.value)
        else:
            yield from scan.take("\n")
        ends = [self.value_end] if self.value else ["\n" + self.value_end, self.value_end]
        schema = calls.properties(name).get(key)
        calls.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
        if is_text(schema):
            calls.arguments('"')
            whole = yield from scan.until(ends, lambda text: calls.arguments(_escaped(text)))
            if whole:
                calls.arguments('"')
            return whole is not None
        value: list[str] = []
        whole = yield from scan.until(ends, value.append)
        if whole:
            calls.arguments(json_of_text("".join(value), schema))
        return whole is not None


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
