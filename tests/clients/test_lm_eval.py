"""lm-eval's local-completions model, unmodified, against transformers on the same checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tests.clients.conftest import RunScript
from tests.e2e.launched import Launched
from tests.models.checkpoints import BOS_ID, CORPUS

TOLERANCE = 1e-3
LINES = CORPUS.split("\n")
PAIRS = [
    ("What is deep learning? It is", " a way of learning from examples with networks of many layers."),
    ("Counting: one, two, three,", " four"),
    ("Counting: one, two, three,", " Thursday"),
    ("Hello, ", "world!"),
    ("", "The quick brown fox"),
    ("Grüße an alle — 你好", " 👋🏽"),
    (" ".join(LINES[:3]), " ".join(LINES[3:])),
]
Score = Callable[[list[int], int], tuple[float, bool]]


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


@pytest.fixture(scope="module")
def score(checkpoint: Path) -> Score:
    """`score(ids, start)`: what transformers says of ids[start:] after ids[:start]; and whether each was the best."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    @torch.inference_mode()
    def compute(ids: list[int], start: int) -> tuple[float, bool]:
        logprobs = model(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)
        target = torch.tensor(ids[start:])
        own = logprobs.gather(-1, target.unsqueeze(-1)).sum()
        return own.item(), bool((logprobs.argmax(-1) == target).all())

    return compute


def encode(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], int]:
    """As lm-eval does: spaces at the end of a context belong to what follows; nothing is the prefix token."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    if not context:
        return [BOS_ID, *tokenizer.encode(continuation, add_special_tokens=False).ids], 1
    ids = tokenizer.encode(context + continuation, add_special_tokens=False).ids
    return ids, len(tokenizer.encode(context, add_special_tokens=False).ids)


def test_lm_eval(
    random_server: Launched, checkpoint: Path, run_script: RunScript, tokenizer: Tokenizer, score: Score
) -> None:
    answers = run_script("lm-eval", "lm_eval_client.py", random_server.url, str(checkpoint), json.dumps(PAIRS))
    expected = [score(*encode(tokenizer, *pair)) for pair in PAIRS]
    for mode in ("one_by_one", "batches"):
        for (logprob, greedy), (wanted, wanted_greedy) in zip(answers[mode], expected, strict=True):
            assert logprob == pytest.approx(wanted, abs=TOLERANCE)
            assert greedy == wanted_greedy
    for logprob, (context, continuation) in zip(answers["rolling"], PAIRS, strict=True):
        wanted, _ = score([BOS_ID, *tokenizer.encode(context + continuation, add_special_tokens=False).ids], 1)
        assert logprob == pytest.approx(wanted, abs=TOLERANCE)
    assert all("a" not in text for text in answers["generated"])


def test_greedy_continuation_is_called_greedy(random_server: Launched) -> None:
    """lm-eval compares a token's log-probability with the best alternative's: the same bits are needed."""
    parameters = {"max_new_tokens": 8, "decoder_input_details": True}
    details = random_server.post(inputs=PAIRS[0][0], parameters=parameters).json()["details"]
    ids = [token["id"] for token in details["prefill"] + details["tokens"]]
    for max_tokens in (0, 1):
        body = {"prompt": ids, "max_tokens": max_tokens, "temperature": 0, "echo": True, "logprobs": 1}
        answer = httpx.post(f"{random_server.url}/v1/completions", json=body, timeout=60).json()
        logprobs = answer["choices"][0]["logprobs"]
        own, top = logprobs["token_logprobs"][: len(ids)], logprobs["top_logprobs"][: len(ids)]
        assert [value == max(best.values()) for value, best in zip(own[-8:], top[-8:], strict=True)] == [True] * 8
        assert len(logprobs["tokens"]) == len(ids) + max_tokens
