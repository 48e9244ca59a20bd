"""What grammars know of tokens is what detokenising makes of them; grammars that bring a process down are refused."""

from __future__ import annotations

import json
import re
from typing import Literal

import pytest
from llguidance import LLMatcher

from tests import small_tokenizers
from tgi.errors import ValidationError
from tgi.grammar import MAX_FORCED, GrammarError, ascii_digits, compile_grammar, make_tokenizer, reason_of, rehearse
from tgi.messages import Grammar
from tgi.serving.grammars import checks as module
from tgi.serving.grammars.build import grammar_of
from tgi.serving.grammars.checks import GrammarChecks
from tgi.serving.grammars.expressible import KNOWN_FORMATS, expressible
from tgi.serving.grammars.vocabulary import make_vocabulary
from tgi.serving.tokenizer import Tokenizer


def tokenizer(kind: str) -> Tokenizer:
    return Tokenizer(getattr(small_tokenizers, kind)(), small_tokenizers.CONFIG)


@pytest.mark.parametrize("rows", [0, 77, -5], ids=["as many rows as tokens", "more", "fewer"])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "word_piece"])
def test_tokens_have_their_bytes(kind: str, rows: int) -> None:
    known = tokenizer(kind)
    size = known.vocab_size + rows
    found = make_tokenizer(make_vocabulary(known, size, (1,)), size)
    assert found.vocab_size >= size
    for id in range(min(size, known.vocab_size)):
        piece = known.token_bytes(id)
        if id not in known.special_ids and piece != b"\xff":  # with which llguidance marks special tokens
            assert found.decode_bytes([id]) == piece, known.fast.id_to_token(id)
    mask = compile_grammar(found, Grammar("regex", "[a-z]+")).compute_bitmask()
    allowed = {id for id in range(found.vocab_size) if mask[id // 8] >> id % 8 & 1}
    assert allowed and all(re.fullmatch(rb"[a-z]+", known.token_bytes(id)) for id in allowed)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("regex", "{}"),
        ("lark", 'start: "{}"'),
        ("json_schema", '{{"const": "{}"}}'),
        (
            "json_schema",
            '{{"properties": {{"a": {{"enum": ["{}"]}}}}, "required": ["a"], "additionalProperties": false}}',
        ),
    ],
)
def test_long_texts_without_a_choice(kind: Literal["json_schema", "regex", "lark"], text: str) -> None:
    known = make_tokenizer(make_vocabulary(tokenizer("byte_level"), 300, (1,)), 300)
    for length, fits in ((MAX_FORCED - 100, True), (MAX_FORCED + 1, False)):
        matcher = compile_grammar(known, Grammar(kind, text.format("ab" * (length // 2 + 1))))
        if fits:
            rehearse(known, matcher)
            continue
        with pytest.raises(GrammarError, match=f"and may prescribe {MAX_FORCED}"):
            rehearse(known, matcher)


async def test_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 3)
    known = tokenizer("byte_level")
    checks = GrammarChecks(make_vocabulary(known, known.vocab_size, (1,)), known.vocab_size)
    try:
        assert await checks.reason(Grammar("regex", "a+")) is None
        assert "unclosed group" in (await checks.reason(Grammar("regex", "(")) or "")
        assert "surrogate" in (await checks.reason(Grammar("regex", "\ud800")) or "")
        for number in range(5):
            assert await checks.reason(Grammar("lark", f'start: "{number}"')) is None
        assert len(checks._known) == 3
        monkeypatch.setattr(module, "SECONDS", 0.0)
        slow = {"type": "object", "properties": {f"field{n}": {"type": "string", "maxLength": n} for n in range(1000)}}
        assert "not compiled after" in (await checks.reason(Grammar("json_schema", json.dumps(slow))) or "")
        monkeypatch.setattr(module, "SECONDS", 20.0)
        assert await checks.reason(Grammar("regex", "c+")) is None
    finally:
        checks.close()


def test_digits() -> None:
    assert ascii_digits(r"\d\\d[\d_]\D") == r"[0-9]\\d[[0-9]_]\D"


def test_digits_of_patterns_in_schemas() -> None:
    schema = {"type": "object", "properties": {"pattern": {"pattern": r"^\d[\d.]\\d$"}}, "required": ["pattern"]}
    changed = expressible(schema, "", [])
    assert changed["properties"] == {"pattern": {"pattern": r"^[0-9][[0-9].]\\d$"}}
    tokenizer = make_tokenizer(make_vocabulary(Tokenizer(small_tokenizers.byte_level()), 384, (0,)), 384)
    compiled = compile_grammar(tokenizer, Grammar("json_schema", json.dumps(changed)))
    for text, fits in (
        ('{"pattern":"1.\\\\d"}', True),
        ('{"pattern":"12\\\\d"}', True),
        ('{"pattern":"1\u09e7\\\\d"}', False),
    ):
        matcher = compiled.deep_copy()
        assert matcher.consume_tokens(tokenizer.tokenize_str(text)) == fits, text


def test_a_backslash_at_the_end_escapes_nothing() -> None:
    tokenizer = make_tokenizer(make_vocabulary(Tokenizer(small_tokenizers.byte_level()), 384, (0,)), 384)
    compile_grammar(tokenizer, Grammar("regex", r"a\\"))
    for pattern in ("\\", r"a\\" + "\\"):
        with pytest.raises(GrammarError, match="backslash"):
            compile_grammar(tokenizer, Grammar("regex", pattern))


def test_reasons_are_short() -> None:
    long = (
        'at 1(8): invalid regex "("\nregex parse error:\n    (\n    ^\nerror: x\n   1 | start: /(/\n<state>\nTokens: 5'
    )
    assert reason_of(long).startswith("invalid regex") and "state" not in reason_of(long)
    assert len(reason_of("x" * 5000)) < 400 and reason_of("NoExtensionBias <non-verbose/>") == "nothing fits it"


def test_unknown_formats_of_python_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert grammar_of({"type": "string", "format": "phone"}) is not None
    assert "grammar.format" in caplog.text


def test_grammars_of_python() -> None:
    same = Grammar("regex", "a")
    assert grammar_of(same) is same and grammar_of(None) is None and grammar_of({"type": "text"}) is None
    with pytest.raises(ValidationError, match=re.escape("its schema must be an object")):
        grammar_of(5)


def test_the_formats_that_are_known_are_those_of_llguidance() -> None:
    standard = (
        "idn-email idn-hostname iri iri-reference json-pointer regex relative-json-pointer uri-reference uri-template"
    )
    for name in [*KNOWN_FORMATS, *standard.split(), "int32", "password", "phone"]:
        grammar = LLMatcher.grammar_from_json_schema({"type": "string", "format": name})
        assert (LLMatcher.validate_grammar(grammar) == "") == (name in KNOWN_FORMATS), name


def test_unknown_formats_are_left_out_where_they_are_keywords() -> None:
    schema = {
        "format": "phone",
        "properties": {"format": {"type": "string", "format": "uri"}, "b": {"anyOf": [{"format": "iri"}, True]}},
        "$defs": {"format": {"items": [{"format": "x"}]}},
        "enum": [{"format": "phone"}],
        "default": {"format": "phone"},
    }
    left_out: list[str] = []
    kept = expressible(schema, "f", left_out)
    assert left_out == ["f.properties.b.anyOf.0.format", "f.$defs.format.items.0.format", "f.format"]
    assert kept == {
        "properties": {"format": {"type": "string", "format": "uri"}, "b": {"anyOf": [{}, True]}},
        "$defs": {"format": {"items": [{}]}},
        "enum": [{"format": "phone"}],
        "default": {"format": "phone"},
    }
