"""Calls with bare keys and strings between marks: `call:get_weather{city:<escape>Paris<escape>,days:3}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules, any_of, listed, repeated, sequence
from tgi.serving.tools.schemas import enumerated, property_schema, required, types

DEEPEST = 32
"""Levels of values within values."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """The literals around a call, and those around a string."""

    begin: str
    """Up to the name."""
    end: str
    quotes: tuple[str, str]

    @property
    def opening(self) -> str:
        return ""

    @property
    def heading(self) -> str:
        return ""

    @property
    def markers(self) -> Sequence[str]:
        return [*self.begin.partition("call:")[:1], self.end, *self.quotes]

    @property
    def trigger(self) -> str | None:
        return self.begin

    # writing

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        calls = []
        for number, tool in enumerate(tools):
            schema = {"type": "object", **(tool.parameters or {})}
            value = self._object(schema, rules, f"{number}", 0)
            head = rules.literal(self.begin + tool.name)
            calls.append(rules.add(f"call_{number}", sequence(head, value, rules.literal(self.end))))
        return repeated(rules.add("call", any_of(calls)), "", parallel)

    def _object(self, schema: Mapping[str, Any], rules: Rules, name: str, depth: int) -> str:
        must, pairs = required(schema), []
        for place, key in enumerate(schema.get("properties") or {}):
            value = self._value(property_schema(schema, key), rules, f"{name}_{place}", depth + 1)
            pairs.append((rules.add(f"pair_{name}_{place}", sequence(rules.literal(f"{key}:"), value)), key in must))
        return sequence('"{"', listed(pairs, rules, name, ","), '"}"')

    def _value(self, schema: Mapping[str, Any], rules: Rules, name: str, depth: int) -> str:
        if (values := enumerated(schema)) is not None:
            return any_of([self._constant(value, rules) for value in values])
        kinds = types(schema)
        if kinds == {"string"}:
            return self._string(rules, name)
        if kinds == {"object"} and schema.get("properties") and depth < DEEPEST:
            return self._object(schema, rules, name, depth)
        if kinds == {"array"} and depth < DEEPEST:
            items = property_schema({**schema, "properties": {"items": schema.get("items")}}, "items")
            one = rules.add(f"item_{name}", self._value(items, rules, f"{name}_i", depth + 1))
            return f'"[" ({one} ("," {one})*)? "]"'
        if kinds and kinds <= {"integer", "number", "boolean", "null"}:
            return rules.add(f"value_{name}", rules.json(schema))
        return any_of(
            [self._string(rules, name), rules.add(f"value_{name}", rules.json({"type": ["number", "boolean", "null"]}))]
        )

    def _constant(self, value: Any, rules: Rules) -> str:
        written = f"{self.quotes[0]}{value}{self.quotes[1]}" if isinstance(value, str) else json.dumps(value)
        return rules.literal(written)

    def _string(self, rules: Rules, name: str) -> str:
        begin, end = map(rules.literal, self.quotes)
        if self.quotes[1] in rules.special:
            return sequence(begin, rules.add(f"text_{name}", r"/(.|\n)*/"), end)
        return sequence(begin, rules.add(f"text_{name}", r"/(.|\n)*/", f"[suffix={json.dumps(self.quotes[1])}]"))

    # reading

    def read(self, scan: Scanner, calls: Calls) -> Script:
        while (found := (yield from scan.until([self.begin], scan.say))) is not None:
            scan.record(found)
            name: list[str] = []
            if (yield from scan.until(["{"], name.append)) is None or not "".join(name).strip():
                scan.say(scan.give_back())
                continue
            scan.forget()
            calls.begin("".join(name).strip())
            if (yield from self._read_object(scan, calls, 0)):
                calls.end()
                yield from scan.space()
                yield from scan.take(self.end)

    def _read_object(self, scan: Scanner, calls: Calls, depth: int) -> Script:
        """The rest of an object whose brace was taken; True if it is whole."""
        calls.arguments("{")
        count = 0
        while True:
            yield from scan.space()
            if (yield from scan.take("}")):
                calls.arguments("}")
                return True
            if (yield from scan.take(",")):
                continue
            key: list[str] = []
            if depth > DEEPEST or (yield from scan.until([":"], key.append)) is None:
                return False
            bare = "".join(key).strip().removeprefix(self.quotes[0]).removesuffix(self.quotes[1]).strip('"')
            calls.arguments(("" if count == 0 else ", ") + json.dumps(bare, ensure_ascii=False) + ": ")
            count += 1
            if not (yield from self._read_value(scan, calls, depth + 1)):
                return False

    def _read_value(self, scan: Scanner, calls: Calls, depth: int) -> Script:
        yield from scan.space()
        if (yield from scan.take(self.quotes[0])):
            calls.arguments('"')
            text = yield from scan.until([self.quotes[1]], lambda piece: calls.arguments(_escaped(piece)))
            calls.arguments('"' if text is not None else "")
            return text is not None
        if (yield from scan.take("{")):
            return (yield from self._read_object(scan, calls, depth))
        if (yield from scan.take("[")):
            return (yield from self._read_array(scan, calls, depth))
        value: list[str] = []
        if not (yield from scan.json_value(value.append)) or (scan.ended and not scan.text):
            return False
        calls.arguments("".join(value))
        return True

    def _read_array(self, scan: Scanner, calls: Calls, depth: int) -> Script:
        calls.arguments("[")
        count = 0
        while True:
            yield from scan.space()
            if (yield from scan.take("]")):
                calls.arguments("]")
                return True
            if (yield from scan.take(",")):
                continue
            if depth > DEEPEST or not (yield from scan.fill(1)):
                return False
            calls.arguments("" if count == 0 else ", ")
            count += 1
            if not (yield from self._read_value(scan, calls, depth + 1)):
                return False


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
