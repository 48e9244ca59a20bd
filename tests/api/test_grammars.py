"""Fields that ask for a form of the answer: what the engine is asked for, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.messages import Grammar

CHAT = {"messages": [{"role": "user", "content": "x"}]}
BODIES: dict[str, dict[str, Any]] = {"/v1/completions": {"prompt": "x"}, "/v1/chat/completions": CHAT}
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"enum": [None, 1]}}, "required": ["b"]}
SCHEMAS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": False, "name": None}}},
    {"response_format": {"type": "json_object", "value": SCHEMA}},
    {"response_format": {"type": "json", "value": json.dumps(SCHEMA)}},
    {"response_format": {"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}},
    {"structured_outputs": {"json": SCHEMA, "regex": None}},
    {"guided_json": SCHEMA, "response_format": {"type": "text"}},
    {"guided_json": json.dumps(SCHEMA), "response_format": None},
]


async def grammar_of(client: httpx.AsyncClient, engine: FakeEngine, path: str, **fields: Any) -> Grammar | None:
    answer = await client.post(path, json=BODIES[path] | fields)
    assert answer.status_code == 200, answer.text
    return engine.requests[-1].grammar


def schema_of(grammar: Grammar) -> Any:
    """The request's schema, without what was put into it."""
    text = grammar.text.partition("%json ")[2] if grammar.kind == "lark" else grammar.text
    schema, _ = json.JSONDecoder().raw_decode(text)
    schema.pop("x-guidance")
    return schema


async def test_forms(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for path in BODIES:
        for fields in SCHEMAS:
            found = schema_of(await grammar_of(client, engine, path, **fields))
            assert found == SCHEMA and list(found["properties"]) == ["b", "a"], "order of keys is order of the answer"
        for kind in ("json_object", "json_schema"):
            form = {"type": kind, "json_schema": {"name": "x"}} if kind == "json_schema" else {"type": kind}
            assert schema_of(await grammar_of(client, engine, path, response_format=form)) == {"type": "object"}
        found = await grammar_of(client, engine, path, structured_outputs={"json_object": True})
        assert schema_of(found) == {"type": "object"}
        assert await grammar_of(client, engine, path, response_format={"type": "text"}) is None
        assert await grammar_of(client, engine, path) is None


async def test_texts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    path = "/v1/completions"
    for fields in ({"guided_regex": r"\d+"}, {"response_format": {"type": "regex", "value": r"\d+"}}):
        assert await grammar_of(client, engine, path, **fields) == Grammar("regex", r"\d+")
    choice = await grammar_of(client, engine, path, guided_choice=['a "b"\n', "c"])
    assert choice == Grammar("lark", 'start: CHOICE\nCHOICE: "a \\"b\\"\\n" | "c"')
    lark = 'start: "x" /[0-9]/'
    assert await grammar_of(client, engine, path, structured_outputs={"grammar": lark}) == Grammar("lark", lark)
    tight = await grammar_of(client, engine, path, structured_outputs={"json": SCHEMA, "disable_any_whitespace": True})
    assert json.loads(tight.text)["x-guidance"]["whitespace_flexible"] is False


async def test_formats_that_nobody_knows_are_noted(client: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "phone"}}}
    form = {"type": "json_schema", "schema": schema}
    for path, field, fields in (
        ("/v1/chat/completions", "response_format", {"response_format": {"type": "json_object", "value": schema}}),
        ("/v1/completions", "guided_json", {"guided_json": schema}),
        ("/generate", "grammar", {"parameters": {"grammar": {"type": "json", "value": schema}}}),
        ("/v1/responses", "text.format", {"text": {"format": {"name": "x", **form}}}),
        (
            "/v1/messages",
            "output_config.format",
            {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        ),
    ):
        own = {"/generate": {"inputs": "x"}, "/v1/responses": {"input": "x"}, "/v1/messages": {**CHAT, "max_tokens": 5}}
        body = {"model": "tgi", **(own.get(path) or BODIES[path]), **fields}
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert f"{field}.properties.a.format" in answer.headers["x-tgi-ignored"], path


async def test_settings_of_vllm_are_noted(client: httpx.AsyncClient) -> None:
    fields = {"guided_json": SCHEMA, "guided_decoding_backend": "xgrammar"}
    answer = await client.post("/v1/completions", json={"prompt": "x", **fields})
    assert answer.headers["x-tgi-ignored"] == "guided_decoding_backend"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": {"type": "yaml"}}, "response_format", "text, json_object, json_schema, json and regex"),
    ({"response_format": {"type": "regex", "value": 5}}, "response_format", "`response_format.value` must be a string"),
    ({"response_format": {"type": "json_schema", "json_schema": 5}}, "response_format", "must be an object"),
    ({"response_format": {"type": "json", "value": [1]}}, "response_format", "must be an object"),
    ({"response_format": {"type": "json", "value": "{"}}, "response_format", "not JSON"),
    ({"response_format": {"type": "json", "value": False}}, "response_format", "schema false"),
    ({"response_format": {"type": "regex", "value": "a(?=b)"}}, "response_format", "look-around"),
    ({"guided_json": {"type": {}, "pattern": 5}}, "guided_json", "type must be a string"),
    ({"guided_json": {"$ref": "https://example.com/s.json"}}, "guided_json", "not fetch"),
    ({"guided_json": {"$ref": "#"}}, "guided_json", "nothing fits it"),
    ({"guided_json": {"not": {}}}, "guided_json", "Unimplemented keys"),
    ({"guided_choice": []}, "guided_choice", "at least one"),
    ({"guided_choice": ["a"] * 10_001}, "guided_choice", "10000"),
    (
        {"guided_json": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2500)}}},
        "guided_json",
        "Current row has",
    ),
    ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_choice", "exclude each other"),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex", "exclude each other"),
    ({"guided_grammar": "start: nobody"}, "guided_grammar", "nobody"),
    ({"guided_regex": "a" * 600_000}, "guided_regex", "524288"),
    ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs", "structural_tag"),
]


async def test_bad_forms(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for fields, param, words in WRONG:
        answer = await client.post("/v1/completions", json={"prompt": "x", **fields})
        error = answer.json()["error"]
        assert answer.status_code == 422, (fields, answer.text[:200])
        assert words in error["message"] and error["param"] == param, error
    assert not engine.requests


async def test_tgi(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    async def post(grammar: Any) -> httpx.Response:
        return await client.post("/generate", json={"inputs": "x", "parameters": {"grammar": grammar}})

    for form in (
        {"type": "json", "value": SCHEMA},
        {"type": "json_object", "value": json.dumps(SCHEMA)},
        {"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}},
    ):
        assert (await post(form)).status_code == 200
        assert schema_of(engine.requests[-1].grammar) == SCHEMA
    assert (await post({"type": "regex", "value": "a+"})).status_code == 200
    assert engine.requests[-1].grammar == Grammar("regex", "a+")
    lenient = {"not": {"const": 1}, "x-guidance": {"lenient": True}}
    for anything in ({}, True, {"type": "array"}, {"enum": [1]}, lenient):
        assert (await post({"type": "json", "value": anything})).status_code == 200
    for wrong in ({"type": "json"}, {"type": "json", "value": 5}, {"type": "json_schema", "value": SCHEMA}, "x", {}):
        answer = await post(wrong)
        assert answer.status_code == 422 and "rammar" in answer.json()["error"], answer.text
    answer = await post({"type": "regex", "value": "("})
    assert answer.json()["error"].startswith("Input validation error: grammar is not valid: invalid regex")


async def test_grammars_can_be_disabled(engine: FakeEngine) -> None:
    transport = httpx.ASGITransport(build_app(engine, disable_grammar_support=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        body = {"inputs": "x", "parameters": {"grammar": {"type": "regex", "value": "a"}}}
        answer = await client.post("/generate", json=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "Input validation error: grammar is not supported")


@pytest.mark.parametrize("kind", ["depth", "memory"])
async def test_what_brings_a_process_down_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    """A chain of references that llguidance follows until its stack ends; and the next grammar is fine."""
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(9000)}
    deep = {"$defs": {**chain, "d9000": {"type": "string"}}, "$ref": "#/$defs/d0"}
    wide = {"enum": [f"value {n * 7919}" for n in range(20_000)]}
    answer = await client.post(
        "/v1/completions", json={"prompt": "x", "guided_json": deep if kind == "depth" else wide}
    )
    assert answer.status_code in (200, 422), answer.text[:200]
    answer = await client.post("/v1/completions", json={"prompt": "x", "guided_json": SCHEMA})
    assert answer.status_code == 200
