"""Answers with a grammar fit it, whatever else the engine does: batches, preemption, prefix hits, samples, chunks."""

from __future__ import annotations

import json
import random
import re

import jsonschema
import pytest

from tests.engine.harness import LocalEngine, Session
from tests.engine.random_schemas import random_schema
from tests.models.checkpoints import make_checkpoint
from tests.small_tokenizers import byte_level
from tgi.messages import Grammar, Vocabulary

FAST = byte_level()
END = FAST.token_to_id("</s>")
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", {"x": 1}, None, 2.5]}, "minItems": 1, "maxItems": 3},
    {"enum": ["a long forced text that has many tokens", "another one"]},
    {"$defs": {"node": {"type": "object", "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}},
                        "required": ["v"], "additionalProperties": False}}, "$ref": "#/$defs/node"},
    {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0, "maximum": 99}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A random llama with more rows of logits (384) than its tokenizer has tokens."""
    made = LocalEngine(make_checkpoint(tmp_path_factory.mktemp("llama"), "llama", seed=random.randrange(1 << 30)))
    assert made.info.vocab_size > FAST.get_vocab_size()
    made.worker.grammars.introduce(Vocabulary((END,), FAST.to_str().encode()))
    return made


def prompt() -> list[int]:
    return [random.randrange(5, 384) for _ in range(random.randrange(1, 90))]


def text(session: Session, request_id: int, index: int = 0) -> str:
    ids = [id for id in session.tokens(request_id, index) if id != END]
    return FAST.decode(ids, skip_special_tokens=False)


def schema_grammar(schema: object) -> Grammar:
    return Grammar("json_schema", json.dumps(schema))


def sampled() -> dict:
    return {"do_sample": True, "temperature": random.choice([0.7, 1.0, 3.0]), "eos_token_ids": (END,)}


def test_answers_fit_their_schema_or_are_cut(engine):
    session = engine.session()
    chosen = [random.choice(SCHEMAS) for _ in range(24)]
    for number, schema in enumerate(chosen):
        settings = sampled() if number % 3 else {"eos_token_ids": (END,)}
        session.add(number, prompt(), 120, grammar=schema_grammar(schema), **settings, raw_logprobs=bool(number % 2))
    session.drain()
    for number, schema in enumerate(chosen):
        assert session.finish(number) in ("eos_token", "length"), session.events[number, 0][-1]
        if session.finish(number) == "eos_token":
            jsonschema.validate(json.loads(text(session, number)), schema)
    assert any(session.finish(number) == "eos_token" for number in range(24))


@pytest.mark.parametrize(
    "limits",
    [{"num_blocks": 7}, {"max_step_tokens": 9}, {"max_batch_size": 2}, {"prefix_caching": False}],
    ids=["preemption", "chunks", "small batch", "no prefix cache"],
)
def test_the_batch_changes_nothing(engine, limits):
    """Mixed with plain requests, with samples, shared prefixes and preemption: what a request gives alone."""
    shared = prompt()
    requests = []
    for number in range(8):
        grammar = schema_grammar(random.choice(SCHEMAS)) if number % 3 else None
        prefix = shared if number % 2 else prompt()
        seeds = tuple(random.randrange(1 << 40) for _ in range(1 + number % 3))
        requests.append(((prefix[:20], 60, seeds, grammar), sampled()))
    together = engine.session(**limits)
    for number, (fixed, sampling) in enumerate(requests):
        together.add(number, *fixed, **sampling)
    together.drain()
    for number, (fixed, sampling) in enumerate(requests):
        for index, seed in enumerate(fixed[2]):
            alone = engine.session(prefix_caching=False)
            alone.add(0, fixed[0], fixed[1], (seed,), fixed[3], **sampling)
            alone.drain()
            assert alone.tokens(0) == together.tokens(number, index)
            assert alone.finish(0) == together.finish(number, index)


def test_preempted_answers_go_on_where_they_were(engine):
    """Four streams of a grammar that does not end before they are cut, in a cache that holds one and a half."""
    grammar, settings = Grammar("regex", "[a-z ]{2000,}"), {"do_sample": True, "raw_logprobs": True}
    prompts = [prompt()[:20] for _ in range(4)]
    together = engine.session(num_blocks=7)
    for number, ids in enumerate(prompts):
        together.add(number, ids, 150, (number,), grammar, **settings)
    together.drain()
    assert sum(one.preemptions for one in together.stats)
    for number, ids in enumerate(prompts):
        alone = engine.session()
        alone.add(0, ids, 150, (number,), grammar, **settings)
        assert alone.drain().tokens(0) == together.tokens(number)


@pytest.mark.parametrize("pattern", [r"(ab|c)*d", r"\d{3}-\d{4}", r"[^a-z]{2,5}", r"(yes|no|maybe so)", "", r"x?"])
def test_regex(engine, pattern):
    session = engine.session()
    for number in range(6):
        session.add(number, prompt(), 30, grammar=Grammar("regex", pattern), **sampled())
    session.drain()
    for number in range(6):
        assert session.finish(number) in ("eos_token", "length")
        if session.finish(number) == "eos_token":
            assert re.fullmatch(pattern, text(session, number)), text(session, number)


def test_forced_tokens_come_several_a_step(engine):
    session = engine.session()
    long = "a long text that nobody could have guessed, once more and again"
    session.add(0, prompt(), 200, grammar=Grammar("regex", long), eos_token_ids=(END,))
    session.drain()
    assert text(session, 0) == long and session.finish(0) == "eos_token"
    assert len(session.stats) < len(session.tokens(0)) / 3
    assert session.tokens(0) == FAST.encode(long, add_special_tokens=False).ids


def test_log_probabilities_with_and_without_the_mask(engine):
    """Own log-probabilities are those of an unconstrained row; processed ones sum to 1 over what is allowed."""
    ids, grammar = prompt(), Grammar("regex", "[ab]c")
    session = engine.session()
    session.add(0, ids, 1, grammar=grammar, top_n_tokens=3, eos_token_ids=(END,))
    session.add(1, ids, 1, grammar=grammar, raw_logprobs=True, eos_token_ids=(END,))
    session.add(2, ids, 1, raw_logprobs=True, top_n_tokens=384)
    session.drain()
    (processed,), (own,), (plain,) = (session.events[number, 0][0].tokens for number in range(3))
    allowed = {FAST.token_to_id("a"), FAST.token_to_id("b")}
    listed = {id: logprob for id, logprob in processed.top if logprob > -1e30}
    assert set(listed) <= allowed | {id for id in listed if FAST.id_to_token(id) in ("ac", "bc")}
    assert own.id == processed.id and own.id in listed
    assert own.logprob == pytest.approx(dict(plain.top)[own.id], abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"min_new_tokens": 40, "eos_token_ids": (END,)}])
def test_a_complete_answer_ends_without_an_end_token(engine, settings):
    """With `ignore_eos`, and before `min_new_tokens`: nothing can follow."""
    session = engine.session()
    session.add(0, prompt(), 50, grammar=schema_grammar(SCHEMAS[2]), **settings)
    session.drain()
    assert session.finish(0) == "eos_token" and json.loads(text(session, 0)) in SCHEMAS[2]["enum"]


def test_bad_grammars_fail_alone(engine):
    session = engine.session()
    session.add(0, prompt(), 5, (1, 2), Grammar("regex", "(?=a)"))
    session.add(1, prompt(), 5)
    session.add(2, prompt(), 5, grammar=Grammar("json_schema", '{"$ref":"#"}'))
    session.drain()
    assert session.finish(0) == session.finish(0, 1) == session.finish(2) == "error"
    assert "look-around" in session.events[0, 1][-1].error and "nothing fits" in session.events[2, 0][-1].error
    assert session.finish(1) == "length"


def test_the_store_is_bounded(engine):
    store = engine.worker.grammars
    session = engine.session()
    for number in range(300):
        session.add(number, [7], 1, grammar=Grammar("regex", f"a{number}"))
    session.drain()
    assert store.kept <= 256 and not store.busy


def test_random_schemas(engine):
    """jsonschema is the oracle; it has Python's ideas of formats, so these are only looked at by their shape."""
    rng = random.Random(random.randrange(1 << 30))
    session, schemas = engine.session(), [random_schema(rng) for _ in range(30)]
    for number, schema in enumerate(schemas):
        session.add(number, prompt()[:30], 150, grammar=schema_grammar(schema), **sampled())
    session.drain()
    for number, schema in enumerate(schemas):
        assert session.finish(number) in ("eos_token", "length"), (schema, session.events[number, 0][-1])
        if session.finish(number) == "eos_token":
            jsonschema.validate(json.loads(text(session, number)), schema)
    assert sum(session.finish(number) == "eos_token" for number in range(30)) >= 5
