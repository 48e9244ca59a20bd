"""The sampler's semantics once more, slowly: transformers' processors, plain formulas, Python integers."""

from __future__ import annotations

import uuid

import numpy as np
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tgi.engine.plan import Draw
from tgi.messages import Sampling

HASH_KEY = 15485863


def sequence(token_ids=(1, 2, 3), num_prompt=None, seed=0, **sampling) -> Draw:
    """The draw of a sequence with these sampling parameters; all of `token_ids` is prompt unless said otherwise."""
    sampling.setdefault("max_new_tokens", 1000)
    ids = list(token_ids)
    known = len(ids) if num_prompt is None else num_prompt
    return Draw(uuid.uuid4().int, Sampling(**sampling), seed, known, len(ids), ids)


def processed(row: torch.Tensor, s: Draw) -> torch.Tensor:
    """Logits before temperature: [vocabulary] float64."""
    sampling, scores = s.sampling, row.double().clone()
    if sampling.watermark:
        generator = torch.Generator().manual_seed(HASH_KEY * s.token_ids[-1])
        green = torch.randperm(len(row), generator=generator)[: int(0.5 * len(row))]
        scores[green] += 2.0
    if sampling.repetition_penalty != 1.0:
        penalty = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        scores = penalty(torch.tensor([s.token_ids]), scores[None])[0]
    generated = s.token_ids[s.num_prompt :]
    for token in set(generated):
        scores[token] -= generated.count(token) * sampling.frequency_penalty + sampling.presence_penalty
    for token, bias in sampling.logit_bias.items():
        scores[token] += bias
    if len(generated) < sampling.min_new_tokens:
        scores[list(sampling.eos_token_ids)] = -torch.inf
    return scores


def warped(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Log-probabilities after temperature and warpers: [vocabulary] float64."""
    ids, scores = torch.zeros(1, 1, dtype=torch.long), scores[None]
    scores = TemperatureLogitsWarper(float(sampling.temperature))(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.typical_p < 1:
        scores = TypicalLogitsWarper(sampling.typical_p)(ids, scores)
    return scores[0].log_softmax(-1)


def philox(seed: int, position: int) -> list[int]:
    """Philox-4x32-10 with Python integers: four 32-bit words."""
    word = (1 << 32) - 1
    counter = [position & word, position >> 32, 0, 0]
    key = [seed & word, seed >> 32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * counter[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 1 << 32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) & word, (key[1] + 0xBB67AE85) & word]
    return counter


def uniform(seed: int, position: int) -> float:
    words = philox(seed, position)
    return ((words[0] >> 5) * (1 << 26) + (words[1] >> 6)) / (1 << 53)


def expect(row: torch.Tensor, s: Draw) -> tuple[int, torch.Tensor]:
    """The token and the log-probabilities [vocabulary] that the sampler must report."""
    scores = processed(row, s)
    logprobs = warped(scores, s.sampling)
    if s.sampling.do_sample:
        cumulative = np.cumsum(logprobs.exp().numpy())
        number = uniform(s.seed, len(s.token_ids)) * cumulative[-1]
        token = int(np.searchsorted(cumulative, number, side="right"))
    else:
        token = int(logprobs.argmax())
    return token, row.double().log_softmax(-1) if s.sampling.raw_logprobs else logprobs
