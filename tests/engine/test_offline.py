"""`tgi.LLM`: the routes' parameters without a server."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
from typing import Literal

import pydantic
import pytest

from tests.models.checkpoints import make_checkpoint
from tgi import LLM, Grammar, SamplingParams
from tgi.errors import StartupError, ValidationError
from tgi.progress_bars import LoadingBar


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = make_checkpoint(tmp_path_factory.mktemp("llama"), "llama")
    with LLM(str(path), threads=1, kv_cache_memory="4MiB") as llm:
        yield llm


def test_one_prompt_gives_one_output(llm):
    output = llm.generate("Hello, ", max_new_tokens=8)
    assert output.details.generated_tokens == 8 and output.details.finish_reason == "length"
    assert output.details.seed is None, "named parameters without sampling are greedy, as on /generate"
    full = llm.generate("Hello, ", max_new_tokens=8, return_full_text=True)
    assert full.generated_text == "Hello, " + output.generated_text


def test_many_prompts_keep_their_order_and_equal_single_calls(llm, capsys):
    prompts = [f"number {n}" for n in range(20)]
    outputs = llm.generate(prompts, SamplingParams(max_new_tokens=5), show_progress=False)
    assert [output.prompt for output in outputs] == prompts
    assert outputs[7].generated_text == llm.generate(prompts[7], max_new_tokens=5).generated_text
    assert not capsys.readouterr().out


def test_parameters_for_each_prompt(llm):
    outputs = llm.generate(["a", "b"], [SamplingParams(max_new_tokens=1), SamplingParams(max_new_tokens=2)])
    assert [output.details.generated_tokens for output in outputs] == [1, 2]
    with pytest.raises(ValueError, match="1 sampling parameters for 2 prompts"):
        llm.generate(["a", "b"], [SamplingParams()])


def test_token_ids_and_logprobs(llm):
    ids = llm.generate("Hello", max_new_tokens=1, decoder_input_details=True).details.prefill
    output = llm.generate([token.id for token in ids], max_new_tokens=3, top_n_tokens=2)
    assert all(len(token.top) == 2 for token in output.details.tokens)
    assert output.details.input_length == len(ids)


def test_seeds_and_several_samples(llm):
    one = llm.generate("x", max_new_tokens=12, do_sample=True, seed=3, temperature=2.0)
    assert one.generated_text == llm.generate("x", max_new_tokens=12, temperature=2.0, seed=3).generated_text
    many = llm.generate("x", max_new_tokens=12, do_sample=True, n=3, temperature=2.0)
    assert len(many.samples) == 3 and len({sample.text for sample in many.samples}) > 1
    best = llm.generate("x", max_new_tokens=12, do_sample=True, best_of=2)
    means = [sum(t.logprob for t in s.tokens) / len(s.tokens) for s in best.samples]
    assert means == sorted(means, reverse=True)


def test_chat_uses_the_template(llm):
    messages = [{"role": "user", "content": "hi"}]
    one = llm.chat(messages, max_new_tokens=4)
    assert one.prompt.endswith("<|im_start|>assistant\n")
    assert llm.chat([messages, messages], max_new_tokens=4)[1].generated_text == one.generated_text


def test_parameters_have_the_names_of_the_routes(llm):
    ends = llm.generate("abc", max_new_tokens=12, stop_token_ids=list(range(384))).details
    assert (ends.generated_tokens, ends.finish_reason) == (1, "eos_token")
    later = llm.generate("abc", max_new_tokens=12, min_tokens=5, stop_token_ids=[ends.tokens[0].id]).details
    assert later.generated_tokens >= 5
    messages = [{"role": "user", "content": "hi"}]
    one = llm.chat(messages, max_tokens=4, top_logprobs=2)
    assert one.generated_text == llm.chat(messages, max_new_tokens=4).generated_text
    assert all(len(token.top) == 2 for token in one.details.tokens)


def test_a_string_may_stop(llm):
    text = llm.generate("abc", max_new_tokens=20).generated_text
    stop = text[3:6]
    for output in (
        llm.generate("abc", max_new_tokens=20, stop=stop),
        llm.generate("abc", SamplingParams(max_new_tokens=20, stop=stop)),  # pyright: ignore[reportArgumentType]
    ):
        assert output.generated_text == text[: text.index(stop) + 3]


def test_stream_adds_up_and_may_be_left(llm):
    whole = llm.generate("abc", max_new_tokens=10).generated_text
    deltas = list(llm.stream("abc", max_new_tokens=10))
    assert "".join(delta.text for delta in deltas) == whole and deltas[-1].final.text == whole
    for _ in llm.stream("abc", max_new_tokens=400):
        break
    assert llm.generate("abc", max_new_tokens=10).generated_text == whole


def test_errors_name_the_field(llm):
    with pytest.raises(ValidationError, match="temperature"):
        llm.generate(["fine", "x"], temperature=-1.0)
    with pytest.raises(ValidationError, match="temperature"):
        list(llm.stream("x", temperature=-1.0))
    with pytest.raises(TypeError, match="temprature"):
        llm.generate("x", temprature=1.0)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("max_completion_tokens", "max_new_tokens"),
        ("max_length", "max_new_tokens"),
        ("max_new_token", "max_new_tokens"),
        ("logprobs", "top_n_tokens"),
        ("stop_sequences", "stop"),
        ("repetition_penality", "repetition_penalty"),
        ("num_return_sequences", "n"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(llm, given, right):
    message = f"there is no parameter `{given}`: use `{right}`"
    for call in (
        lambda: llm.generate("x", **{given: 1}),
        lambda: llm.generate(["x", "y"], SamplingParams(max_new_tokens=1), **{given: 1}),
        lambda: list(llm.stream("x", **{given: 1})),
        lambda: SamplingParams(**{given: 1}),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == message


def test_a_name_like_no_other_lists_all(llm):
    with pytest.raises(TypeError, match="there is no parameter `zzz`: there are best_of, temperature,"):
        llm.generate("x", zzz=1)


def test_max_tokens_is_another_name(llm):
    assert SamplingParams(max_tokens=3) == SamplingParams(max_new_tokens=3)
    assert llm.generate("x", max_tokens=3).details.generated_tokens == 3
    assert llm.generate("x", SamplingParams(max_tokens=3)).details.generated_tokens == 3
    assert llm.generate("x", SamplingParams(max_new_tokens=3), max_tokens=4).details.generated_tokens == 4
    assert len(list(llm.stream("x", max_tokens=2))) == 2


def test_parameters_can_be_copied():
    params = SamplingParams(max_new_tokens=3, stop=["a"])
    assert copy.deepcopy(params) == pickle.loads(pickle.dumps(params)) == dataclasses.replace(params) == params


def test_loading_shows_progress(tmp_path, capsys):
    """On standard error, on a terminal or when asked for."""
    path = str(make_checkpoint(tmp_path, "gpt2"))
    LLM(path, threads=1, kv_cache_memory="1MiB", show_progress=True).close()
    captured = capsys.readouterr()
    assert "Loaded" in captured.err and "kB" in captured.err.replace("KiB", "kB") and not captured.out
    LLM(path, threads=1, kv_cache_memory="1MiB").close()
    captured = capsys.readouterr()
    assert not captured.err and not captured.out, "nobody watches a pipe"


def test_progress_of_loading_follows_the_weights(monkeypatch):
    """On a terminal: bytes while they are read, then what else is done."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with LoadingBar(None) as bar:
        assert not bar._progress.disable
        bar.read(25, 100)
        assert bar._progress.tasks[0].percentage == 25
        bar.enter_phase("warmup")
        assert bar._progress.tasks[0].description == "Warming up"
    assert bar._progress.tasks[0].description == "Loaded"


def test_closing_is_final_and_may_be_repeated(tmp_path):
    llm = LLM(str(make_checkpoint(tmp_path, "gpt2")), threads=1, kv_cache_memory="1MiB")
    llm.close()
    llm.close()
    with pytest.raises(RuntimeError, match="closed"):
        llm.generate("x")


def test_what_cannot_start_says_why(tmp_path):
    with pytest.raises(StartupError, match="no directory"):
        LLM(str(tmp_path / "nothing"))
    with pytest.raises(StartupError, match="max_totl_tokens"):
        LLM(str(tmp_path), max_totl_tokens=4)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(StartupError, match="nonsense"):
        LLM(str(tmp_path))
    engines = [thread for thread in threading.enumerate() if thread.name == "llm-engine"]
    assert len(engines) <= 1, "a failed start leaves no thread beside the fixture's"


@pytest.mark.parametrize("dtype", ["int8", "fp8_e4m3fn", "fp8_e5m2"])
def test_a_cache_of_8_bits_needs_no_native_kernels(dtype):
    settings = {"device": "cpu", "threads": 1, "disable_custom_kernels": True, "kv_cache_memory": "4MiB"}
    logprobs = []
    for chosen in (None, dtype):
        with LLM(**settings, kv_cache_dtype=chosen) as llm:
            tokens = llm.generate("How are you?", max_new_tokens=4).samples[0].tokens
            logprobs.append(tokens[-1].logprob)
    assert logprobs[0] != logprobs[1] == pytest.approx(logprobs[0], abs=0.5)


def test_weights_are_rounded_without_native_kernels_too(caplog):
    with LLM(device="cpu", quantize="int4", disable_custom_kernels=True, kv_cache_memory="4MiB") as llm:
        rounded = llm.generate("Hello, ", max_new_tokens=3)
    assert "--quantize int4 rounds the weights" in caplog.text and "no memory is saved" in caplog.text
    with LLM(device="cpu", disable_custom_kernels=True, kv_cache_memory="4MiB") as llm:
        plain = llm.generate("Hello, ", max_new_tokens=3)
    assert rounded.samples[0].tokens[0].logprob != plain.samples[0].tokens[0].logprob


def test_vectors_of_texts(llm):
    texts = [f"text number {number}, " * (number % 5) + "end" for number in range(50)]
    many = llm.embed(texts, show_progress=False)
    one = llm.embed(texts[7])
    assert one.data == many[7].data and len(one.embedding) == 64
    assert abs(sum(number * number for number in one.embedding) - 1) < 1e-5
    short = llm.embed(texts[7], dimensions=8).embedding
    length = sum(number * number for number in one.embedding[:8]) ** 0.5
    assert short == pytest.approx([number / length for number in one.embedding[:8]], abs=1e-6)
    ids = [token.id for token in llm.generate("Hello", max_new_tokens=1, decoder_input_details=True).details.prefill]
    assert llm.embed([ids, ids])[1].data == llm.embed("Hello").data and many[7].prompt_tokens > 1
    with pytest.raises(ValidationError, match=r"`input\[1\]` must have at most"):
        llm.embed(["a", "b " * 5000])
    with pytest.raises(ValidationError, match="`dimensions` must be"):
        llm.embed("a", dimensions=65)


def test_grammars(llm):
    class Point(pydantic.BaseModel, extra="forbid"):
        x: bool
        y: Literal["north", "south"]

    given = [
        Point,
        Point.model_json_schema(),
        {"type": "json", "value": Point.model_json_schema()},
        {"type": "json_schema", "json_schema": {"name": "p", "schema": Point.model_json_schema()}},
        Grammar("json_schema", json.dumps(Point.model_json_schema())),
    ]
    outputs = llm.generate(["a"] * len(given), [SamplingParams(max_new_tokens=200, grammar=one) for one in given])
    for output in outputs:
        assert Point.model_validate_json(output.generated_text) and output.details.finish_reason == "eos_token"
    assert llm.generate("a", grammar={"type": "regex", "value": "abc"}, max_new_tokens=9).generated_text == "abc"
    with pytest.raises(ValidationError, match="grammar is not valid: invalid regex"):
        llm.generate("a", grammar=Grammar("regex", "("))
