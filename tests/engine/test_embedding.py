"""Vectors of texts: transformers' hidden states pooled with numpy, and the same bits in whatever company."""

from __future__ import annotations

import json
import random
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.engine.harness import LocalEngine, Session
from tests.models.checkpoints import make_checkpoint
from tgi import LLM
from tgi.engine.plan import Pool
from tgi.engine.pooling import pool
from tgi.messages import EmbedRequest

KINDS = ("mean", "last", "cls")
MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
TOLERANCE = 5e-5
"""Largest difference of two hidden states relative to the largest, as for logits."""
BACKENDS = {"native": True, "reference": False}


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def checkpoint(request, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp(request.param), request.param, seed=random.randrange(1 << 30))


@pytest.fixture(scope="module", params=BACKENDS.values(), ids=BACKENDS.keys())
def engine(request, checkpoint):
    return LocalEngine(checkpoint, native_kernels=request.param)


def texts(count: int, longest: int = 150) -> list[list[int]]:
    """Of random lengths, some with a common beginning, one of one token."""
    shared = [random.randrange(5, 384) for _ in range(70)]
    found = [[random.randrange(5, 384) for _ in range(random.randrange(1, longest))] for _ in range(count - 1)]
    return [[7], *(shared + text if number % 3 == 0 else text for number, text in enumerate(found))]


def embed(session: Session, requests: list[EmbedRequest]) -> list[np.ndarray]:
    for request in requests:
        session.core.handle(request)
    session.drain()
    return [vector(session, request.request_id) for request in requests]


def vector(session: Session, request_id: int) -> np.ndarray:
    (event,) = session.events[request_id, 0]
    assert event.finish == "pooled", event.error
    return np.frombuffer(event.embedding, "<f4")


def pooled(hidden: np.ndarray, kind: str, dimensions: int, *, normalised: bool) -> np.ndarray:
    """The definition: hidden [tokens, hidden size] in float64."""
    found = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[kind]
    found = found[: dimensions or None]
    return found / np.linalg.norm(found) if normalised else found


def test_vectors_are_the_pooled_hidden_states_of_transformers(checkpoint, engine):
    oracle = AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    requests = [
        EmbedRequest(number, ids, random.choice(KINDS), random.choice((0, 0, 1, 17)), random.random() < 0.7)
        for number, ids in enumerate(texts(12))
    ]
    session = engine.session(max_step_tokens=64)
    for request, found in zip(requests, embed(session, requests), strict=True):
        with torch.inference_mode():
            hidden = oracle(torch.tensor([request.prompt_ids])).last_hidden_state[0].double().numpy()
        wanted = pooled(hidden, request.pooling, request.dimensions, normalised=request.normalised)
        assert found.shape == (request.dimensions or engine.info.hidden_size,)
        kept = pooled(hidden, request.pooling, request.dimensions, normalised=False)
        length = np.linalg.norm(kept) if request.normalised else 1.0  # by which an error of hidden states grows
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE * np.abs(hidden).max() / length, rtol=0)


COMPANY = {
    "chunks of 5": {"max_step_tokens": 5},
    "small batch": {"max_batch_size": 3},
    "preemption": {"num_blocks": 12, "max_step_tokens": 40},
    "no prefix cache": {"prefix_caching": False},
    "all together": {},
}


@pytest.mark.parametrize("limits", COMPANY.values(), ids=COMPANY.keys())
def test_the_same_bits_in_any_company(checkpoint, limits):
    """Beside other texts and streams, in chunks, after prefix hits: exactly what the text gives alone."""
    engine = LocalEngine(checkpoint)
    requests = [EmbedRequest(number, ids, random.choice(KINDS)) for number, ids in enumerate(texts(10))]
    alone = [embed(engine.session(), [request])[0] for request in requests]
    session = engine.session(**limits)
    for number in range(3):
        session.add(100 + number, [*requests[-1].prompt_ids[:40], number], new=24)
        session.step()
    for found, wanted in zip(embed(session, requests), alone, strict=True):
        assert found.tobytes() == wanted.tobytes()
    assert all(session.finish(100 + number) == "length" for number in range(3))


def test_last_token_vectors_use_the_prefix_cache_and_means_do_not(checkpoint):
    session = LocalEngine(checkpoint).session()
    ids = [random.randrange(5, 384) for _ in range(200)]
    for number, kind in enumerate(("last", "last", "mean", "cls")):
        embed(session, [EmbedRequest(number, ids, kind)])
    hits = [session.events[number, 0][0].cached_tokens for number in range(4)]
    assert hits[0] == hits[2] == hits[3] == 0 and hits[1] > 0


def test_a_text_shares_blocks_with_prompts_of_its_salt_alone(checkpoint):
    session = LocalEngine(checkpoint).session()
    ids = [random.randrange(5, 384) for _ in range(100)]
    session.add(0, ids, new=4)
    session.drain()
    embed(session, [EmbedRequest(1, ids, "last"), EmbedRequest(2, ids, "last", cache_salt="other")])
    assert session.events[1, 0][0].cached_tokens > 0 and session.events[2, 0][0].cached_tokens == 0


def test_a_checkpoint_as_sentence_transformers_saves_it(tmp_path):
    """The model's body alone, without the head that its config promises, and mean pooling."""
    whole = make_checkpoint(tmp_path / "whole", "llama", seed=random.randrange(1 << 30))
    body = AutoModel.from_pretrained(whole, dtype=torch.float32, attn_implementation="eager").eval()
    path = tmp_path / "body"
    body.save_pretrained(path)
    for file in whole.glob("token*"):
        shutil.copy(file, path)
    modules = [{"type": f"sentence_transformers.models.{name}", "path": folder} for name, folder in MODULES]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    with LLM(str(path), kv_cache_memory="4MiB", threads=1) as llm:
        ids = [random.randrange(5, 384) for _ in range(30)]
        found = np.array(llm.embed(ids).embedding)
    with torch.inference_mode():
        hidden = body(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    np.testing.assert_allclose(found, pooled(hidden, "mean", 0, normalised=True), atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_has_the_same_bits_however_a_text_is_cut(dtype):
    for _ in range(30):
        count, width = random.randrange(1, 400), random.randrange(2, 70)
        rows = (torch.randn(count, width) * 10 ** random.uniform(-6, 6)).to(dtype)
        kind, dimensions = random.choice(KINDS), random.choice((0, width // 2))
        whole = pool(rows, Pool(kind, b"", count, True, dimensions, True))
        cuts = sorted(random.sample(range(1, count), min(random.randrange(6), count - 1)))
        before = b""
        for first, past in pairwise([0, *cuts, count]):
            before = pool(rows[first:past], Pool(kind, before, count, past == count, dimensions, True))
        assert before == whole
        wanted = pooled(rows.double().numpy(), kind, dimensions, normalised=True)
        np.testing.assert_allclose(np.frombuffer(before, "<f4"), wanted, atol=1e-6)


def test_numbers_that_are_none_fail_their_own_text_alone(tmp_path):
    """One token of the vocabulary has a damaged embedding."""
    path = make_checkpoint(tmp_path, "llama", seed=random.randrange(1 << 30))
    weights = load_file(path / "model.safetensors")
    weights["model.embed_tokens.weight"][99] = torch.nan
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    session = LocalEngine(path).session(max_step_tokens=16)
    for number, kind in enumerate(KINDS):
        session.core.handle(EmbedRequest(number, [99, *range(100, 140)], kind))
        session.core.handle(EmbedRequest(10 + number, list(range(100, 140)), kind))
    session.drain()
    for number in range(len(KINDS)):
        assert "computes no numbers" in str(session.events[number, 0][0].error)
        assert np.isfinite(vector(session, 10 + number)).all()


def test_what_cannot_be_embedded_is_refused(checkpoint):
    session = LocalEngine(checkpoint).session()
    for number, ids in enumerate(([], [7] * 100_000)):
        session.core.handle(EmbedRequest(number, ids, "mean"))
        session.drain()
        (event,) = session.events[number, 0]
        assert event.finish == "error" and "cannot be embedded" in str(event.error)
