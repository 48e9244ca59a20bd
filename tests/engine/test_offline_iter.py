"""Very many prompts, one result after the other, and the same in an event loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

import pytest

from tests.models.checkpoints import make_checkpoint
from tgi import LLM, AsyncLLM, SamplingParams
from tgi.errors import StartupError, ValidationError
from tgi.offline import Output

SETTINGS = {"threads": 1, "kv_cache_memory": "4MiB", "max_batch_size": 8}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp("llama"), "llama"))


@pytest.fixture(scope="module")
def llm(checkpoint):
    with LLM(checkpoint, **SETTINGS) as llm:
        yield llm


def test_thousands_of_prompts_are_not_held(llm, monkeypatch):
    """Drawn as results are taken: never more than two batches ahead, whatever their number."""
    drawn = taken = most_held = 0
    made = []

    class Watched(Output):
        def __init__(self, *values, **named):
            super().__init__(*values, **named)
            made.append(weakref.ref(self))

    monkeypatch.setattr("tgi.offline.Output", Watched)

    def prompts():
        nonlocal drawn
        for drawn in range(1, 3_001):
            yield [drawn % 300 + 4, 7]

    for output in llm.generate_iter(prompts(), max_tokens=1):
        taken += 1
        assert drawn - taken <= 16
        if taken % 1000 == 0:
            gc.collect()
            most_held = max(most_held, sum(one() is not None for one in made))
        assert output.details.generated_tokens == 1
    assert (drawn, taken) == (3_000, 3_000)
    assert len(made) == 3_000
    assert most_held <= 24


def test_order_and_parameters_of_each(llm):
    prompts = [f"number {number}" for number in range(40)]
    params = [SamplingParams(max_new_tokens=number % 7 + 1, ignore_eos=True) for number in range(40)]
    outputs = list(llm.generate_iter(prompts, params))
    assert [output.prompt for output in outputs] == prompts
    assert [output.details.generated_tokens for output in outputs] == [one.max_new_tokens for one in params]
    assert [one.generated_text for one in outputs] == [one.generated_text for one in llm.generate(prompts, params)]
    with pytest.raises(ValueError, match="shorter"):
        list(llm.generate_iter(prompts, params[:3]))


def test_an_endless_source_may_be_left(llm):
    endless = (f"number {number}" for number in itertools.count())
    for output in llm.generate_iter(endless, max_tokens=200):
        assert output.prompt == "number 0"
        break
    assert llm.generate("x", max_tokens=1).details.generated_tokens == 1


def test_a_faulty_prompt_raises_when_its_turn_has_come(llm):
    results = llm.generate_iter(["fine", "b " * 5000, "fine"], max_tokens=1)
    assert next(results).prompt == "fine"
    with pytest.raises(ValidationError, match="inputs"):
        next(results)
    with pytest.raises(TypeError, match="use `generate`"):
        list(llm.generate_iter("one prompt"))


def test_batches_show_progress(llm, capsys):
    list(llm.generate_iter(["a", "b"], max_tokens=1, show_progress=True))
    assert "2/2" in capsys.readouterr().out


async def test_awaited(checkpoint, llm):
    prompts = [f"number {number}" for number in range(20)]
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async with AsyncLLM(checkpoint, **SETTINGS) as other:
        ticking = asyncio.create_task(tick())
        one, many = await asyncio.gather(
            other.generate("abc", max_tokens=30), other.generate(prompts, SamplingParams(max_tokens=4))
        )
        assert ticks > 3, "the event loop goes on meanwhile"
        ticking.cancel()
        assert one.generated_text == llm.generate("abc", max_tokens=30).generated_text
        assert [output.prompt for output in many] == prompts
        deltas = [delta async for delta in other.stream("abc", max_tokens=30)]
        assert "".join(delta.text for delta in deltas) == one.generated_text
        taken = [output async for output in other.generate_iter(iter(prompts), max_tokens=4)]
        assert [output.generated_text for output in taken] == [output.generated_text for output in many]
        chat = await other.chat([{"role": "user", "content": "hi"}], max_tokens=4)
        assert chat.message["role"] == "assistant"
        assert len((await other.embed("abc")).embedding) == 64
        with pytest.raises(ValidationError, match="temperature"):
            await other.generate(["fine", "x"], temperature=-1.0)
        with pytest.raises(TypeError, match="temprature"):
            _ = [delta async for delta in other.stream("x", temprature=1.0)]


async def test_cancelling_aborts(checkpoint):
    async with AsyncLLM(checkpoint, **SETTINGS) as llm:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(llm.generate("abc", max_tokens=400, ignore_eos=True), 0.005)
        async for _ in llm.stream("abc", max_tokens=400):
            break
        assert (await llm.generate("x", max_tokens=1)).details.generated_tokens == 1


async def test_what_is_wrong_shows_when_it_is_entered(tmp_path):
    with pytest.raises(StartupError, match="no directory"):
        async with AsyncLLM(str(tmp_path / "nothing")):
            pass
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncLLM(str(tmp_path)).generate("x")
    with pytest.raises(TypeError, match="async with"), AsyncLLM(str(tmp_path)):
        pass
