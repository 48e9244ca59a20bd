"""One request to its end: text, stop strings, finish reasons, several samples, errors."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import small_tokenizers as build
from tests.fake_engine import FakeEngine, Script
from tgi.errors import GenerationError, IncompleteGenerationError
from tgi.messages import GenerateRequest
from tgi.serving import generation
from tgi.serving.dialect import OPENAI, TGI, Dialect
from tgi.serving.types import Completion, Delta, Prepared, SamplingParams
from tgi.serving.validation import Checker, Limits, resolve_sampling, resolve_seeds
from tgi.settings.config import ApiConfig

TOKENIZER = build.tokenizer()
EOS = 1


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def prepare(dialect: Dialect = TGI, max_new_tokens: int = 100, prompt: str = "hello", **fields: Any) -> Prepared:
    params = SamplingParams(max_new_tokens=max_new_tokens, **fields)
    limits = Limits.of(ApiConfig("m", "m"), FakeEngine.saying([]).info)
    Checker(params, dialect, limits).check_parameters(stream=False)
    sampling = resolve_sampling(params, dialect, limits, max_new_tokens, [EOS])
    request = GenerateRequest(1, TOKENIZER.encode(prompt), sampling, resolve_seeds(params))
    return Prepared(request, prompt, params, dialect, started=0.0, validated=0.0)


async def run(engine: FakeEngine, prepared: Prepared) -> tuple[list[Delta], list[Completion]]:
    deltas = [delta async for batch in generation.stream(prepared, engine, TOKENIZER) for delta in batch]
    return deltas, [delta.final for delta in deltas if delta.final is not None]


def saying(text: str, ending: list[int] | None = None, **script: Any) -> FakeEngine:
    """An engine that says a text and then end-of-sequence."""
    return FakeEngine.saying(ids_of(text) + ([EOS] if ending is None else ending), **{"finish": "eos_token"} | script)


async def test_text_tokens_and_finish_reason():
    deltas, (final,) = await run(saying("hello wörld 🎉"), prepare())
    assert final.text == "".join(delta.text for delta in deltas) == "hello wörld 🎉"
    assert "".join(token.text for token in final.tokens) == "hello wörld 🎉</s>"
    assert b"".join(token.raw for token in final.tokens) == "hello wörld 🎉</s>".encode()
    assert [delta.position for delta in deltas] == list(range(1, len(deltas) + 1))
    assert (final.finish_reason, final.seed, final.stop_sequence) == ("eos_token", None, None)
    assert final.tokens[-1].special
    assert [delta.token for delta in deltas] == final.tokens
    assert all(delta.final is None for delta in deltas[:-1])
    assert final.input_length == len(TOKENIZER.encode("hello"))
    assert final.generated_tokens == len(deltas)


async def test_length():
    _, (final,) = await run(saying("hello world", chunk=2), prepare(max_new_tokens=2))
    assert (final.finish_reason, final.generated_tokens) == ("length", 2)


async def test_an_incomplete_character_at_the_end_is_left_out():
    _, (final,) = await run(saying("ab🎉", ending=[]), prepare(max_new_tokens=4))
    assert final.text == "ab"
    assert final.tokens[-1].text == ""


async def test_seed_is_told_when_sampling():
    _, finals = await run(saying("a"), prepare(seed=41, do_sample=True, n=2))
    assert [final.seed for final in sorted(finals, key=lambda final: final.index)] == [41, 42]


@pytest.mark.parametrize(("dialect", "text"), [(TGI, "one two thr"), (OPENAI, "one two ")], ids=["TGI", "OpenAI"])
@pytest.mark.parametrize("chunk", [1, 100])
async def test_stop_string_within_tokens(dialect, text, chunk):
    engine = saying("one two three four", chunk=chunk)
    deltas, (final,) = await run(engine, prepare(dialect, stop=["thr"]))
    assert final.text == "".join(delta.text for delta in deltas) == text
    assert (final.finish_reason, final.stop_sequence) == ("stop_sequence", "thr")
    assert "".join(token.text for token in final.tokens).startswith("one two thr")
    assert len(final.tokens) < len(ids_of("one two three four"))
    assert (1, 0) in engine.aborts or chunk == 100


async def test_openai_holds_back_and_gives_what_was_no_stop():
    deltas, (final,) = await run(saying("a STO"), prepare(OPENAI, stop=["STOP"]))
    assert final.text == "a STO"
    shown = [delta.text for delta in deltas]
    assert "".join(shown[:-1]) == "a "
    assert shown[-1] == "STO"  # with the end-of-sequence token


@pytest.mark.parametrize(("dialect", "reason"), [(TGI, "length"), (OPENAI, "stop_sequence")])
async def test_stop_string_in_the_last_token_allowed(dialect, reason):
    _, (final,) = await run(saying("abc"), prepare(dialect, max_new_tokens=3, stop=["c"]))
    assert final.finish_reason == reason
    assert final.text == ("abc" if dialect is TGI else "ab")


async def test_stop_strings_wait_for_min_tokens():
    _, (final,) = await run(saying("xaxaxb"), prepare(stop=["x"], min_tokens=4))
    assert final.text == "xaxax"


@pytest.mark.parametrize("dialect", [TGI, OPENAI], ids=["TGI", "OpenAI"])
async def test_a_special_token_as_stop_string(dialect):
    """It ends nothing by itself and never shows."""
    special = TOKENIZER.encode("<|im_end|>", add_special_tokens=False)
    assert len(special) == 1 and TOKENIZER.is_special(special[0])
    engine = FakeEngine.saying([*ids_of("one"), *special, *ids_of("two"), EOS], finish="eos_token")
    _, (final,) = await run(engine, prepare(dialect, stop=["<|im_end|>"]))
    assert (final.text, final.finish_reason, final.stop_sequence) == ("one", "stop_sequence", "<|im_end|>")
    assert final.tokens[-1].id == special[0]


@pytest.mark.parametrize(("dialect", "text"), [(TGI, "abc"), (OPENAI, "ab")])
async def test_an_ordinary_token_that_ends_the_text(dialect, text):
    _, (final,) = await run(saying("abc", ending=[]), prepare(dialect, stop_token_ids=ids_of("c")))
    assert (final.text, final.finish_reason) == (text, "eos_token")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("ab\né", min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=2),
    st.booleans(),
    st.integers(1, 5),
)
def test_several_samples_each_end_once_with_the_text_of_their_stream(texts, stops, keep, chunk):
    async def check() -> None:
        engine = FakeEngine(lambda request, index: Script([*ids_of(texts[index]), EOS], "eos_token", chunk=chunk))
        dialect = TGI if keep else OPENAI
        deltas, finals = await run(engine, prepare(dialect, n=len(texts), stop=stops))
        assert sorted(final.index for final in finals) == list(range(len(texts)))
        for final in finals:
            own = [delta for delta in deltas if delta.index == final.index]
            assert own[-1].final is final
            assert "".join(delta.text for delta in own) == final.text
            whole = texts[final.index]
            assert whole.startswith(final.text)
            if final.finish_reason == "eos_token":
                assert final.text == whole
                assert not any(stop in whole for stop in stops)
            else:
                assert final.stop_sequence in stops
                assert final.text.endswith(final.stop_sequence) or not keep

    asyncio.run(check())


async def test_complete_and_rank():
    def play(request: GenerateRequest, index: int) -> Script:
        return Script([*ids_of("abc"[: index + 1]), EOS], "eos_token", logprob=[-3.0, -1.0, -2.0][index])

    completions = await generation.complete(prepare(n=3, do_sample=True), FakeEngine(play), TOKENIZER)
    assert [(completion.index, completion.text) for completion in completions] == [(0, "a"), (1, "ab"), (2, "abc")]
    assert [completion.index for completion in generation.rank(completions)] == [1, 2, 0]


async def test_infinite_logprobs_become_none_and_rank_last():
    def play(request: GenerateRequest, index: int) -> Script:
        return Script([EOS], "eos_token", logprob=[-math.inf, -9.0][index])

    completions = await generation.complete(prepare(n=2, do_sample=True), FakeEngine(play), TOKENIZER)
    assert completions[0].tokens[0].logprob is None
    assert [completion.index for completion in generation.rank(completions)] == [1, 0]


async def test_rank_is_by_the_models_own_distribution():
    """What a warper leaves over says little of a text: where both are known, the model's own decides."""

    def play(request: GenerateRequest, index: int) -> Script:
        return Script(
            [*ids_of("ab"), EOS], "eos_token", logprob=[-0.1, -0.2, -0.3][index], own=[-5.0, -2.0, None][index]
        )

    completions = await generation.complete(prepare(n=3, do_sample=True), FakeEngine(play), TOKENIZER)
    assert [completion.index for completion in generation.rank(completions)] == [2, 1, 0]
    assert [completion.tokens[0].logprob for completion in completions] == [-0.1, -0.2, -0.3]
    assert [completion.mean_logprob for completion in completions] == pytest.approx([-5.0, -2.0, -0.3])


async def test_top_tokens():
    _, (final,) = await run(saying("a"), prepare(top_n_tokens=2))
    assert [(token.id, token.text, token.logprob) for token in final.tokens[0].top] == [
        (0, "<s>", -1.0),
        (1, "</s>", -2.0),
    ]


async def test_prefill():
    _, (final,) = await run(saying("a"), prepare(prompt="hé", decoder_input_details=True))
    assert [(token.text, token.logprob) for token in final.prefill] == [
        ("<s>", None), ("h", -1.0), ("\ufffd", -2.0), ("\ufffd", -3.0)
    ]  # fmt: skip
    dialect = OPENAI
    _, (final,) = await run(saying("a"), prepare(dialect, prompt="hé", decoder_input_details=True, top_n_tokens=2))
    assert [token.text for token in final.prefill] == ["<s>", "h", "", "é"]
    assert [len(token.top) for token in final.prefill] == [0, 2, 2, 2]


async def test_an_engine_error_is_the_requests():
    with pytest.raises(GenerationError) as caught:
        await run(saying("ab", error="the cache is full"), prepare())
    assert caught.value.text == "Request failed during generation: Server error: the cache is full"


async def test_an_error_of_one_sample_aborts_the_others():
    engine = FakeEngine(lambda request, index: Script([5] * 50, delay_s=0.001, error="bad" if index else None))
    with pytest.raises(GenerationError, match="bad"):
        await run(engine, prepare(n=2, max_new_tokens=60))
    assert engine.open_requests == 0


async def test_an_abort_nobody_asked_for_is_incomplete():
    with pytest.raises(IncompleteGenerationError):
        await run(saying("ab", finish="abort"), prepare())


async def test_a_dying_engine_ends_the_stream():
    engine = saying("abc", hang_after=2)
    batches = generation.stream(prepare(), engine, TOKENIZER)
    await anext(batches)
    engine.die("the engine is gone")
    with pytest.raises(GenerationError, match="the engine is gone"):
        async for _ in batches:
            pass


async def test_closing_the_stream_aborts():
    engine = saying("a" * 50, delay_s=0.001)
    async with aclosing(generation.stream(prepare(), engine, TOKENIZER)) as batches:
        await anext(batches)
    assert engine.aborts == [(1, -1)]
    assert engine.open_requests == 0


async def test_cancelling_a_whole_answer_aborts():
    engine = saying("abc", hang_after=1)
    task = asyncio.create_task(generation.complete(prepare(), engine, TOKENIZER))
    while not engine.open_requests:  # noqa: ASYNC110 (the fake has no event)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.aborts == [(1, -1)]


async def test_timings_add_up():
    _, (final,) = await run(saying("abc", delay_s=0.002), prepare())
    timings = final.timings
    assert 0 < timings.time_to_first_token <= timings.total
    assert timings.inference == pytest.approx(timings.time_per_token * final.generated_tokens)
    assert timings.queue + timings.inference == pytest.approx(timings.total)
