"""The `response_template` of a tokenizer (transformers 5.13 and later) as a format of calls and tags of reasoning.

Owns the translation: where the template marks calls by literals and writes them in one of our shapes, the shape reads
and constrains them. What it says beyond that is left to the marks of the chat template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tgi.errors import ModelError
from tgi.serving.reasoning.tags import Tags
from tgi.serving.tools.format import Format, Shape
from tgi.serving.tools.shapes.keyed import Keyed
from tgi.serving.tools.shapes.named import Named
from tgi.serving.tools.shapes.objects import Objects
from tgi.serving.tools.shapes.pythonic import Pythonic
from tgi.serving.tools.shapes.tagged import Tagged

VERSION = 1
LONGEST = 10_000
"""Characters of a pattern."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_GROUP = re.compile(r"\(\?P<(\w+)>(?:[^()\\]|\\.)*\)")
_ESCAPE = re.compile(r"\\([^\w\s]|\s)")
_SPACE = re.compile(r"\\s[*+]\??")


@dataclass(frozen=True, slots=True)
class Described:
    """What a template says, as far as it is in our words."""

    format: Format | None
    tags: Tags | None


def read_response_template(template: Any) -> Described:
    """Raises ModelError for what is no response template."""
    if not isinstance(template, Mapping) or not isinstance(template.get("fields"), Mapping):
        raise ModelError("a response_template must be an object with `fields`")
    if template.get("version", VERSION) != VERSION:
        raise ModelError(f"response_template has version {template.get('version')!r}, not {VERSION}")
    fields = {name: field for name, field in template["fields"].items() if isinstance(field, Mapping)}
    calls = fields.get("tool_calls")
    shape = None if calls is None else _shape(calls)
    thoughts = next((fields[name] for name in _REASONING if name in fields), None)
    return Described(
        None if shape is None else Format("response_template", shape), None if thoughts is None else _tags(thoughts)
    )


def _tags(field: Mapping[str, Any]) -> Tags | None:
    open, close = _literal(field, "open"), _literal(field, "close")
    return Tags(open.strip("\n"), close.strip("\n")) if open and close else None


def _shape(field: Mapping[str, Any]) -> Shape | None:
    content, arguments = field.get("content", "text"), field.get("content_args")
    options = arguments if isinstance(arguments, Mapping) else {}
    open, close = _literal(field, "open"), _literal(field, "close") or ""
    named = _around_name(field.get("open_pattern"))
    if content == "json" and named is not None:
        return _named(named, close, options)
    if content == "json" and open:
        keys = _keys(field.get("transform"))
        listed = bool(field.get("transform_each"))
        space = ("\n" if open.endswith("\n") else "", "\n" if close.startswith("\n") else "")
        if keys is None:
            return None
        begin, end = open.strip("\n"), close.strip("\n")
        return Objects((begin,), end, listed=listed, name=keys[0], arguments=keys[1], around=space)
    if content == "xml-inline":
        return _tagged(named, close, options)
    if content == "python-call-list" and open:
        return Pythonic(begin="" if open == "[" else open.removesuffix("["), end=close.removeprefix("]"))
    return None


def _named(named: tuple[str, str], close: str, options: Mapping[str, Any]) -> Shape | None:
    begin, between = named
    delimiters = options.get("string_delims")
    if not options.get("unquoted_keys"):
        return Named(begin=begin, between=(between,) if between else ("",), end=close) if begin else None
    match delimiters:
        case [[str(left), str(right)], *_] if begin:
            return Keyed(begin=begin, end=close, quotes=(left, right))
    return None


def _tagged(named: tuple[str, str] | None, close: str, options: Mapping[str, Any]) -> Shape | None:
    """`<function=NAME>` and a pattern of one argument with the groups key and value."""
    pattern = options.get("tag_pattern")
    if named is None or not named[0] or not isinstance(pattern, str) or len(pattern) > LONGEST:
        return None
    pieces = _GROUP.split(pattern)
    if len(pieces) != 5 or (pieces[1], pieces[3]) != ("key", "value"):
        return None
    key, between, end = (_unescaped(_SPACE.sub(r"\\n", piece)) for piece in pieces[::2])
    if key is None or between is None or end is None:
        return None
    opens, _, begin = named[0].rpartition("\n")
    last, _, closes = close.partition("\n")
    head, mark, value = between.partition("\n")
    if not mark and ">" in between:  # `</arg_key><arg_value>`
        head, _, value = between.partition("><")
        head, value = (head + ">", "<" + value) if value else (head, "")
    return Tagged(
        begin=begin,
        name_end=named[1].strip("\n"),
        key=key.strip("\n"),
        key_end=head.strip("\n"),
        value=value.strip("\n"),
        value_end=end.strip("\n"),
        end=last.strip(),
        opens=opens.strip(),
        closes=closes.strip(),
    )


def _around_name(pattern: Any) -> tuple[str, str] | None:
    """The literals before and after the group `name`."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST:
        return None
    pieces = _GROUP.split(pattern)
    if len(pieces) != 3 or pieces[1] != "name":
        return None
    before, after = (_unescaped(_SPACE.sub(r"\\n", piece)) for piece in pieces[::2])
    return None if before is None or after is None else (before, after)


def _unescaped(pattern: str) -> str | None:
    """The text that a pattern without operators matches; None if it has some."""
    plain = pattern.replace("\\n", "\n")
    if re.search(r"(?<!\\)[.*+?^$()\[\]{}]|(?<!\\)\\\w", plain):
        return None
    if re.search(r"(?<!\\)\|", plain):
        return None
    return _ESCAPE.sub(r"\1", plain)


def _literal(field: Mapping[str, Any], key: str) -> str | None:
    value = field.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, str) and value:
        return value
    pattern = field.get(f"{key}_pattern")
    if not isinstance(pattern, str) or len(pattern) > LONGEST:
        return None
    return (_unescaped(_SPACE.sub(r"\\n", pattern)) or "").strip("\n") or None


def _keys(transform: Any) -> tuple[str, str] | None:
    """The keys of name and arguments in the object that the model writes."""
    if transform is None:
        return "name", "arguments"
    function = transform.get("function") if isinstance(transform, Mapping) else None
    if isinstance(function, str) and function in ("{content}", "{function}"):
        return "name", "arguments"
    if not isinstance(function, Mapping):
        return None
    found = []
    for key in ("name", "arguments"):
        match = re.fullmatch(r"\{(?:content\.)?(\w+)\}", str(function.get(key)))
        if match is None:
            return None
        found.append(match[1])
    return found[0], found[1]
