"""From fields of requests to grammars: `response_format`, TGI's `grammar`, vLLM's `structured_outputs`, `guided_*`.

Says what a field means, not whether its grammar can be used (`checks`). Knows no HTTP: fields come as JSON has them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from tgi.errors import ValidationError
from tgi.grammar import WHITESPACE
from tgi.messages import Grammar
from tgi.serving.grammars.expressible import expressible
from tgi.shorten import shorten

logger = logging.getLogger(__name__)

ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""The schema of `json_object` without one."""
FORMS = ("text", "json", "json_object", "json_schema", "regex")
"""Types of a `response_format`; none is one of a JSON schema."""
KINDS = ("json_schema", "json_object", "regex", "choice", "lark")
"""Of grammars, whatever fields ask for them."""
MAX_CHOICES = 10_000
SHOWN_CHARACTERS = 64
SHOWN_FORMATS = 8
VLLM_KINDS = ("json", "regex", "choice", "grammar", "json_object")
VLLM_WITHOUT_EFFECT = ("backend", "disable_fallback", "disable_additional_properties")
"""Of `structured_outputs`: settings of vLLM's grammar libraries."""


def response_grammar(
    form: Mapping[str, Any], field: str = "response_format", ignored: list[str] | None = None
) -> Grammar | None:
    """What a `response_format` asks for; None for text. Parts of a schema without effect are added to `ignored`.

    A schema is in `json_schema.schema` (OpenAI), in `schema` beside the type (Responses), in `value` (TGI, and what
    huggingface_hub makes of `json_schema`) or in `value.schema`. Raises ValidationError that names `field`.
    """
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "regex":
        return regex_grammar(form.get("value", form.get("pattern")), f"{field}.value")
    if kind in ("json", "json_object"):
        return Grammar("json_schema", schema_text(form.get("value", form.get("schema", ANY_OBJECT)), field, ignored))
    if kind == "json_schema":
        wrapped = form.get("json_schema", form.get("value", form))
        if not isinstance(wrapped, Mapping):
            fail(field, f"`{field}.json_schema` must be an object with a `schema`")
        return Grammar("json_schema", schema_text(wrapped.get("schema", ANY_OBJECT), field, ignored))
    return fail(
        field,
        f"`{field}` of type `{shorten(str(kind), SHOWN_CHARACTERS)}` is not supported: there are text, json_object, "
        "json_schema, json and regex",
    )


def grammar_of(value: Any, field: str = "grammar") -> Grammar | None:
    """Of whatever Python code may give: a `Grammar`, a JSON schema, a pydantic model, or an object of a request."""
    if value is None or isinstance(value, Grammar):
        return value
    if isinstance(value, Mapping) and value.get("type") in FORMS:
        return response_grammar(value, field)
    make_schema = getattr(value, "model_json_schema", None)
    return Grammar("json_schema", schema_text(make_schema() if make_schema else value, field))


def tgi_grammar(form: Any, ignored: list[str] | None = None) -> Grammar:
    """TGI's `grammar`: {"type": "json", "json_object", "json_schema" or "regex", "value"}. Raises ValidationError.

    Parts of a schema without effect are added to `ignored`.
    """
    if not isinstance(form, Mapping) or form.get("type") not in ("json", "json_object", "json_schema", "regex"):
        fail("grammar", "`grammar` must be an object with `type` (json, json_object, json_schema or regex) and `value`")
    kind, value = form["type"], form.get("value")
    if kind == "regex":
        return regex_grammar(value, "grammar.value")
    if kind == "json_schema":
        if not isinstance(value, Mapping) or "schema" not in value:
            fail("grammar", "`grammar.value` must be an object with a `schema`")
        value = value["schema"]
    if not isinstance(value, (str, Mapping, bool)):
        fail("grammar", "grammar is not supported: `grammar.value` must be a JSON schema, as an object or as text")
    return Grammar("json_schema", schema_text(value, "grammar", ignored))


def vllm_grammar(given: Mapping[str, Any], ignored: list[str]) -> tuple[Grammar, str] | None:
    """The grammar of vLLM's fields among `given` (`guided_json` ...) and the field it is in; None: there is none.

    Settings without effect are added to `ignored`. Raises ValidationError.
    """
    options: dict[str, Any] = {}
    wanted: list[tuple[str, str, Any]] = []
    outputs = given.get("structured_outputs")
    if outputs is not None:
        if not isinstance(outputs, Mapping):
            fail("structured_outputs", "`structured_outputs` must be an object")
        options = {name: value for name, value in outputs.items() if value is not None}
        ignored += [f"structured_outputs.{name}" for name in VLLM_WITHOUT_EFFECT if options.get(name)]
        wanted += [(kind, f"structured_outputs.{kind}", options[kind]) for kind in VLLM_KINDS if kind in options]
        unknown = next((name for name in options if name not in _VLLM_OPTIONS), None)
        if unknown is not None:
            name = shorten(unknown, SHOWN_CHARACTERS)
            fail(
                "structured_outputs",
                f"`structured_outputs.{name}` is not supported: use one of {', '.join(VLLM_KINDS)}",
            )
    for kind in VLLM_KINDS[:-1]:
        if given.get(f"guided_{kind}") is not None:
            wanted.append((kind, f"guided_{kind}", given[f"guided_{kind}"]))
    if given.get("guided_decoding_backend") is not None:
        ignored.append("guided_decoding_backend")
    if given.get("guided_whitespace_pattern") is not None:
        options["whitespace_pattern"] = given["guided_whitespace_pattern"]
    wanted = [one for one in wanted if one[0] != "json_object" or one[2]]
    if not wanted:
        return None
    if len(wanted) > 1:
        fail(wanted[1][1], f"`{wanted[0][1]}` and `{wanted[1][1]}` exclude each other")
    kind, field, value = wanted[0]
    return _vllm(kind, field, value, options, ignored), field


_VLLM_OPTIONS = {*VLLM_KINDS, *VLLM_WITHOUT_EFFECT, "disable_any_whitespace", "whitespace_pattern"}


def _vllm(kind: str, field: str, value: Any, options: Mapping[str, Any], ignored: list[str]) -> Grammar:
    if kind == "choice":
        return choice_grammar(value, field)
    if kind == "regex":
        return regex_grammar(value, field)
    if kind == "grammar":
        return Grammar("lark", _text(value, field))
    schema = ANY_OBJECT if kind == "json_object" else value
    whitespace: dict[str, Any] = {}
    if options.get("disable_any_whitespace"):
        whitespace = {"whitespace_flexible": False, "whitespace_pattern": None}
    elif options.get("whitespace_pattern") is not None:
        whitespace = {"whitespace_pattern": _text(options["whitespace_pattern"], "whitespace_pattern")}
    return Grammar("json_schema", schema_text(schema, field, ignored, whitespace))


def regex_grammar(pattern: Any, field: str) -> Grammar:
    """A text that fits all of a pattern. Raises ValidationError."""
    return Grammar("regex", _text(pattern, field))


def choice_grammar(choices: Any, field: str) -> Grammar:
    """One of several texts. Raises ValidationError."""
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
        fail(field, f"`{field}` must be an array of strings, at least one")
    if len(choices) > MAX_CHOICES:
        fail(field, f"`{field}` may have up to {MAX_CHOICES} choices. Given: {len(choices)}")
    texts = (json.dumps(one, ensure_ascii=False) for one in dict.fromkeys(choices))
    return Grammar("lark", "start: CHOICE\nCHOICE: " + " | ".join(texts))  # a lexeme: thousands of rules are too many


def schema_text(
    schema: Any, field: str, ignored: list[str] | None = None, guidance: Mapping[str, Any] | None = None
) -> str:
    """A JSON schema as text, without formats that no grammar knows: where they were is added to `ignored`.

    `guidance`: options of llguidance that are put into it. Raises ValidationError.
    """
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError):
            fail(field, f"`{field}` is not valid: its schema is not JSON")
    schema = {} if schema is True else schema
    if schema is False:
        fail(field, f"`{field}` is not valid: nothing fits the schema false")
    if not isinstance(schema, Mapping):
        fail(field, f"`{field}` is not valid: its schema must be an object")
    options = {"whitespace_pattern": WHITESPACE, **(guidance or {}), **_mapping(schema.get("x-guidance"))}
    left_out: list[str] = []
    try:
        schema = {**expressible(schema, field, left_out), "x-guidance": options}
        if ignored is not None:
            ignored += left_out
        elif left_out:
            logger.warning("Formats that no grammar knows have no effect: %s", ", ".join(left_out[:SHOWN_FORMATS]))
        return msgspec.json.encode(schema).decode()
    except (RecursionError, UnicodeEncodeError):
        fail(field, f"`{field}` is not valid: its schema is nested too deeply, or holds half of a surrogate pair")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        fail(field.partition(".")[0], f"`{field}` must be a string")
    return value


def fail(field: str, message: str) -> NoReturn:
    raise ValidationError(message, param=field)
