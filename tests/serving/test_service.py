"""The service as routes use it: loading, preparing, chat prompts, tokenising, health."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest
from tokenizers import Regex, pre_tokenizers

from tests import small_tokenizers as build
from tests.fake_engine import FakeEngine, engine_info
from tgi.errors import TemplateError, ValidationError
from tgi.messages import StepStats
from tgi.serving import service as service_module
from tgi.serving.dialect import OPENAI, TGI
from tgi.serving.service import Service
from tgi.serving.types import SamplingParams
from tgi.settings.config import ApiConfig

USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def engine():
    return FakeEngine.saying([10, 11, 1], finish="eos_token", delay_s=0.0)


@pytest.fixture
def service(tmp_path, engine):
    path = build.write_checkpoint(tmp_path / "model")
    loaded = Service.load(ApiConfig("m", str(path), health_stall_s=5.0), engine)
    yield loaded
    loaded.close()


async def test_prepare(service):
    prepared = await service.prepare("hello", SamplingParams(truncate=3, seed=5, do_sample=True), TGI, started=1.0)
    assert prepared.request.prompt_ids == service.tokenizer.encode("hello", True, 3)
    assert (prepared.prompt, prepared.input_length, prepared.started) == ("hello", 3, 1.0)
    assert (prepared.request.seeds, prepared.request.sampling.eos_token_ids) == ((5,), (1, 3))
    assert prepared.request.sampling.max_new_tokens == 2048 - 3
    other = await service.prepare("hello", SamplingParams(), OPENAI, add_special_tokens=False)
    assert other.request.prompt_ids == service.tokenizer.encode("hello", False)
    assert other.request.request_id != prepared.request.request_id


async def test_token_ids_are_taken_as_they_are(service):
    ids = service.tokenizer.encode("hello é")
    prepared = await service.prepare(ids, SamplingParams(truncate=2), OPENAI)
    assert prepared.request.prompt_ids == ids[-2:]
    assert prepared.prompt == "<s>hello é"
    with pytest.raises(ValidationError) as caught:
        await service.prepare([1, 1000], SamplingParams(), OPENAI)
    assert caught.value.param == "prompt"


async def test_exactly_the_longest_input_is_accepted(service, engine):
    engine.info = engine_info(max_input_tokens=8, max_total_tokens=16)
    text = "q" * 7  # and <s>
    assert (await service.prepare(text, SamplingParams(), TGI)).input_length == 8
    with pytest.raises(ValidationError, match=r"less than 8 tokens\. Given: 9"):
        await service.prepare(text + "q", SamplingParams(), TGI)
    with pytest.raises(ValidationError, match=r"less than 8 tokens\. Given: at least"):
        await service.prepare("q" * 10_000, SamplingParams(), TGI)


async def test_stream_and_complete(service):
    prepared = await service.prepare("hello", SamplingParams(), TGI)
    (completion,) = await service.complete(prepared)
    prepared = await service.prepare("hello", SamplingParams(), TGI)
    deltas = [delta async for batch in service.stream(prepared) for delta in batch]
    assert "".join(delta.text for delta in deltas) == completion.text
    assert completion.finish_reason == "eos_token"


async def test_render_chat_continues_the_assistant(service):
    assert await service.render_chat(USER) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    talk = [*USER, {"role": "assistant", "content": "So"}]
    assert (await service.render_chat(talk)).endswith("<|im_start|>assistant\nSo")
    assert (await service.render_chat(talk, continue_final_message=False)).endswith(
        "So<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_a_template_without_end_is_given_up(service, monkeypatch):
    monkeypatch.setattr(service_module, "RENDER_SECONDS", 0.2)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    service.chat_template = type(service.chat_template)({"default": loop})
    task = asyncio.create_task(service.render_chat(USER))
    beats = 0
    while not task.done():
        await asyncio.sleep(0.01)
        beats += 1
    with pytest.raises(TemplateError, match="did not finish"):
        await task
    assert beats > 2  # the loop ran on


async def test_tokenize(service):
    spans = await service.tokenize("é x")
    assert [span.id for span in spans] == service.tokenizer.encode("é x")
    assert list(await service.tokenize("é x", add_special_tokens=False)) == spans[1:]


def test_health(service, engine):
    engine.stats = StepStats(step=3, running=1)
    assert service.health().steps == 3
    engine.last_step_at = time.monotonic() - 10
    assert service.health().ok, "idle: no step is due"
    engine.open_requests = 1
    assert not service.health().ok
    engine.last_step_at = time.monotonic()
    assert service.health().ok
    assert service.health().open_requests == 1
    engine.alive = False
    assert not service.health().ok


LAST = "<last>"
"""Added at the end of the vocabulary, where the model's embedding may end."""


async def prepare_with(path, engine, prompt, params=None, **config):
    loaded = Service.load(ApiConfig("m", str(build.write_checkpoint(path, **config))), engine)
    try:
        return await loaded.prepare(prompt, params or SamplingParams(), TGI)
    finally:
        loaded.close()


@pytest.mark.parametrize(
    ("prompt", "params"),
    [
        (f"a{LAST}b", None),
        (LAST, None),
        (f"{'a' * 40}{LAST}", SamplingParams(truncate=3)),
        (["a", LAST], None),
        ("a", SamplingParams(stop_token_ids=(329,))),
        ("a", SamplingParams(logit_bias={329: 1.0})),
    ],
)
async def test_tokens_beyond_the_embedding_are_refused(tmp_path, engine, prompt, params):
    engine.info = engine_info(vocab_size=329)
    if isinstance(prompt, list):
        prompt = [329 if part == LAST else 5 for part in prompt]
    with pytest.raises(ValidationError, match=r"329\b.* is out of vocabulary: (the model's )?ids are >= 0 and < 329"):
        await prepare_with(tmp_path, engine, prompt, params, extra_special_tokens=[LAST])
    engine.info = engine_info(vocab_size=330)
    prepared = await prepare_with(tmp_path, engine, prompt, params, extra_special_tokens=[LAST])
    assert max(prepared.request.prompt_ids) <= 329


async def test_a_refused_token_is_named(tmp_path, engine):
    engine.info = engine_info(vocab_size=329)
    with pytest.raises(ValidationError, match="`inputs` holds the token '<last>' with id 329") as caught:
        await prepare_with(tmp_path, engine, f"a{LAST}b", extra_special_tokens=[LAST])
    assert caught.value.param == "inputs"


async def test_a_token_put_before_each_text_is_checked_too(tmp_path, engine):
    engine.info = engine_info(vocab_size=329)
    path = build.write_checkpoint(tmp_path)
    stored = json.loads((path / "tokenizer.json").read_text())
    stored["post_processor"]["special_tokens"]["<s>"]["ids"] = [30_000_000]
    (path / "tokenizer.json").write_text(json.dumps(stored))
    loaded = Service.load(ApiConfig("m", str(path)), engine)
    with pytest.raises(ValidationError, match="id 30000000"):
        await loaded.prepare("a", SamplingParams(), TGI)
    assert (await loaded.prepare("a", SamplingParams(), TGI, add_special_tokens=False)).input_length == 1
    loaded.close()


async def test_a_text_on_which_the_tokenizer_gives_up_is_refused(tmp_path, engine):
    fast = build.byte_level()
    fast.pre_tokenizer = pre_tokenizers.Split(Regex("(ж+ж+)+я"), "isolated")
    loaded = Service.load(ApiConfig("m", str(build.write_checkpoint(tmp_path, fast))), engine)
    for call in (loaded.prepare("ж" * 80, SamplingParams(), TGI), loaded.tokenize("ж" * 80)):
        with pytest.raises(ValidationError, match=r"tokenizer error .* needs too many steps"):
            await call
    loaded.close()


async def test_end_tokens_beyond_the_model_are_left_out(tmp_path, engine, caplog):
    engine.info = engine_info(vocab_size=329)
    caplog.set_level("INFO")
    path = build.write_checkpoint(tmp_path, extra_special_tokens=[LAST])
    (path / "generation_config.json").write_text('{"eos_token_id": [329, 1]}')
    loaded = Service.load(ApiConfig("m", str(path)), engine)
    loaded.compare_with_model()
    prepared = await loaded.prepare("a", SamplingParams(min_tokens=2), TGI)
    assert prepared.request.sampling.eos_token_ids == (1, 3)
    assert "no embedding for 1 of the tokenizer's tokens, the first is '<last>' with id 329 of 329" in caplog.text
    assert "The end token 329 of generation_config.json is not one of the model's 329" in caplog.text
    assert (
        "Answers end with '</s>' (1, generation_config.json, tokenizer), '<|im_end|>' (3, chat template)" in caplog.text
    )
    loaded.close()


def test_serving_imports_neither_torch_nor_transformers():
    code = "import sys, tgi.serving.service\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
