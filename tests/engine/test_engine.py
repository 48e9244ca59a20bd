"""The engine against transformers and against itself: batching, chunking, caching and preemption change nothing."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.engine.harness import LocalEngine
from tests.models.checkpoints import FAMILIES, make_checkpoint
from tgi.messages import PromptLogprobs, unpack_prompt

TOLERANCE = 1e-4
"""Largest difference of two logits relative to the largest logit, as for the models themselves."""


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """An engine and transformers' model of the same random checkpoint."""
    path = make_checkpoint(tmp_path_factory.mktemp(request.param), request.param, seed=random.randrange(1 << 30))
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    return LocalEngine(path), oracle


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return LocalEngine(make_checkpoint(tmp_path_factory.mktemp("llama"), "llama", seed=random.randrange(1 << 30)))


def random_prompt(length: int, vocab: int = 384) -> list[int]:
    return [random.randrange(5, vocab) for _ in range(length)]


@torch.inference_mode()
def assert_greedy(oracle, prompt: list[int], tokens: list[int]) -> None:
    """Every token is transformers' argmax given what came before it, or as good within the tolerance.

    One forward pass over the engine's own text: a near-tie decided differently does not make the rest wrong.
    """
    logits = oracle(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
    chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    slack = 2 * TOLERANCE * logits.abs().amax(1)
    assert (chosen >= logits.amax(1) - slack).all()


CASES = {
    "whole": {},
    "chunks of 7": {"max_step_tokens": 7},
    "small batch": {"max_batch_size": 3},
    "preemption": {"num_blocks": 12},
    "no prefix cache": {"prefix_caching": False},
}


@pytest.mark.parametrize("limits", CASES.values(), ids=CASES.keys())
def test_greedy_equals_transformers(pair, limits):
    """16 requests of mixed lengths, a third of them sharing a long prefix."""
    engine, oracle = pair
    session = engine.session(**limits)
    shared = random_prompt(64)
    prompts = [(shared if number % 3 == 0 else []) + random_prompt(random.randrange(1, 90)) for number in range(16)]
    for number, prompt in enumerate(prompts):
        session.add(number, prompt, new=64)
    session.drain()
    for number, prompt in enumerate(prompts):
        assert session.finish(number) == "length"
        assert_greedy(oracle, prompt, session.tokens(number))
    if "num_blocks" in limits:
        assert sum(stats.preemptions for stats in session.stats) > 0


def test_a_prefix_hit_changes_nothing(pair):
    engine, oracle = pair
    session = engine.session()
    prompt = random_prompt(100)
    for number in range(2):
        session.add(number, prompt, new=32)
        session.drain()
        assert_greedy(oracle, prompt, session.tokens(number))
    assert session.events[1, 0][0].cached_tokens == 96
    assert session.events[0, 0][0].cached_tokens == 0


def test_prompt_logprobs_equal_transformers(pair):
    engine, oracle = pair
    prompt = random_prompt(150)
    with torch.inference_mode():
        reference = oracle(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
    expected = reference[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    for limits in ({}, {"max_step_tokens": 7}):
        session = engine.session(**limits)
        session.add(1, prompt, new=1, prompt_logprobs=3)
        session.drain()
        result = PromptLogprobs(*map(list, zip(*unpack_prompt(session.events[1, 0][0].prompt), strict=True)))
        assert len(result.logprobs) == len(prompt) == len(result.top)
        assert result.logprobs[0] != result.logprobs[0] and result.top[0] == []
        assert torch.allclose(torch.tensor(result.logprobs[1:]), expected, atol=2e-2, rtol=1e-3)
        best = reference[:-1].topk(3).values
        assert torch.allclose(torch.tensor([[p for _, p in row] for row in result.top[1:]]), best, atol=2e-2, rtol=1e-3)


def test_128_streams_equal_their_solo_runs(llama):
    """Mixed lengths, seeds, parameters; the batch may not change anybody's text."""
    requests = []
    for number in range(128):
        sampling = random.choice(
            [
                {},
                {"do_sample": True, "temperature": 0.7},
                {"do_sample": True, "top_k": 20, "top_p": 0.9},
                {"do_sample": True, "typical_p": 0.8, "repetition_penalty": 1.2},
                {"do_sample": True, "frequency_penalty": 0.5, "eos_token_ids": (7, 8, 9)},
                {"watermark": True},
            ]
        )
        prompt = random_prompt(random.randrange(1, 120))
        requests.append((number, prompt, random.randrange(1, 48), (random.getrandbits(64),), sampling))
    together = llama.session(max_step_tokens=200, num_blocks=200)
    for number, prompt, new, seeds, sampling in requests:
        together.add(number, prompt, new, seeds, **sampling)
        if number % 5 == 0:
            together.step()
    together.drain()
    equal = 0
    for number, prompt, new, seeds, sampling in requests:
        alone = llama.session()
        alone.add(number, prompt, new, seeds, **sampling)
        alone.drain()
        same = alone.tokens(number) == together.tokens(number)
        equal += same
        if not same:
            assert_near_tie(llama, prompt, alone.tokens(number), together.tokens(number))
    assert equal >= 120, "near-ties are rare"


def assert_near_tie(engine: LocalEngine, prompt: list[int], left: list[int], right: list[int]) -> None:
    """Two texts may part only where the model itself is undecided between the two tokens... or a random
    number falls on the border between them; both are bounded by the difference of their probabilities."""
    index = next(i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    session = engine.session()
    session.add(0, prompt + left[:index], new=1, top_n_tokens=20, do_sample=True)
    session.drain()
    known = dict(session.events[0, 0][0].tokens[0].top)
    assert left[index] in known and right[index] in known


def test_samples_of_one_prompt_differ_and_share_blocks(llama):
    session = llama.session()
    prompt = random_prompt(64)
    session.add(1, prompt, 16, (11, 22, 33), do_sample=True, temperature=2.0)
    session.drain()
    texts = [tuple(session.tokens(1, index)) for index in range(3)]
    assert len(set(texts)) == 3
    assert [session.events[1, index][0].cached_tokens for index in range(3)] == [0, 32, 32]
    for index, seed in enumerate((11, 22, 33)):
        alone = llama.session()
        alone.add(1, prompt, 16, (seed,), do_sample=True, temperature=2.0)
        assert tuple(alone.drain().tokens(1)) == texts[index]


def test_abort_storm_returns_every_block(llama):
    session = llama.session(num_blocks=100)
    for round_ in range(6):
        for number in range(24):
            session.add(round_ * 24 + number, random_prompt(random.randrange(1, 80)), new=60, seeds=(1, 2))
        for _ in range(8):
            session.step()
            unfinished = session.core.scheduler.unfinished
            for sequence in random.sample(unfinished, min(5, len(unfinished))):
                for event in session.core.scheduler.abort(sequence.request_id):
                    session.events[event.request_id, event.index].append(event)
            session.core.scheduler.blocks.check(session.core.scheduler.unfinished)
    session.drain()
    assert session.core.scheduler.blocks.num_free == 100
    for events in session.events.values():
        assert sum(1 for event in events if event.finish) == 1


def test_finish_reasons_and_limits(llama):
    session = llama.session()
    prompt = random_prompt(20)
    session.add(1, prompt, new=12)
    session.drain()
    first = session.tokens(1)
    stop = next(i for i, token in enumerate(first) if token not in first[:i] and i >= 2)
    session.add(2, prompt, new=12, eos_token_ids=(first[stop],))
    session.add(3, prompt, new=12, eos_token_ids=tuple(range(384)), min_new_tokens=12)
    session.add(4, prompt, new=llama.info.max_total_tokens)
    session.drain()
    assert (session.finish(2), session.tokens(2)) == ("eos_token", first[: stop + 1])
    assert session.finish(1) == "length" and len(first) == 12
    assert session.finish(4) == "error"


def test_engine_describes_itself(llama):
    info = llama.info
    assert (info.model_type, info.dtype, info.device) == ("llama", "float32", "cpu")
    assert info.max_batch_total_tokens == info.block_size * info.num_blocks
    assert info.max_input_tokens < info.max_total_tokens == 512
    assert info.memory.cache_tokens == info.max_batch_total_tokens
    assert info.kernels and info.vocab_size == 384 and info.parameters > 0


def test_bfloat16_takes_12_bits_a_weight_where_that_loses_nothing(tmp_path, caplog):
    """What the plan expects; weights of all magnitudes keep 16, which is said and counted."""
    path = make_checkpoint(tmp_path, "llama", hidden_size=128, intermediate_size=256, dtype="bfloat16")
    caplog.set_level("INFO", "tgi.engine")
    usual = LocalEngine(path, dtype="bfloat16", kv_cache_bytes=None, memory_bytes=600 << 20).info
    if not usual.kernels["step"].startswith("native"):
        pytest.skip("no native kernels")
    assert usual.weight_bytes < 1.6 * usual.parameters
    assert "limits are computed anew" not in caplog.text

    tensors = load_file(path / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            magnitudes = torch.randint(-60, 0, tensor.shape)
            tensors[name] = (torch.randn(tensor.shape) * 2.0**magnitudes).bfloat16()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    strange = LocalEngine(path, dtype="bfloat16", kv_cache_bytes=None, memory_bytes=600 << 20).info
    assert strange.weight_bytes >= 2 * strange.parameters
    assert "limits are computed anew" in caplog.text
    assert _row(strange, "weights") == strange.weight_bytes
    assert _row(strange, "KV cache") <= _row(usual, "KV cache")


def _row(info, name: str) -> int:
    return next(row.bytes for row in info.memory.rows if row.name == name)
