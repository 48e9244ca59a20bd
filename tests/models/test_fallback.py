"""Architectures that are not native, by transformers' code: the logits and greedy tokens of each sequence alone,
whatever runs beside it; and the self-test, which refuses those that were made wrong on purpose.
"""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers

from tests.models.driver import Driver, Row
from tests.models.fallback_cases import FAST, OWN_CACHE, PAGED
from tests.models.test_parity import TOLERANCE, assert_close
from tgi.kernels.types import Paging
from tgi.models.fallback.attention import PagedAttention
from tgi.models.fallback.loader import TransformersBackend, choose
from tgi.models.fallback.masks import Masks, Rule, UnhonouredError
from tgi.models.fallback.own_cache import IDLE_STEPS, OwnCacheStep
from tgi.models.fallback.paged import PagedStep
from tgi.models.families.registry import FAMILIES
from tgi.models.loader import LoadedModel

VOCAB = 384
CPU = torch.device("cpu")
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "pad_token_id": 0,
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "intermediate_size": 80,
    "ffn_dim": 72,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "sliding_window": 19,
    "num_experts": 6,
    "num_local_experts": 6,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "n_shared_experts": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "state_size": 8,
    "conv_kernel": 4,
    "is_decoder": True,  # of the kin of BERT, which otherwise see later tokens
}

EXTRA: dict[str, dict[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "mlp"],
        "num_hidden_layers": 3,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 2,
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 8,
    },
    "bamba": {
        "attn_layer_indices": [1],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
    },
    "qwen3_5_moe_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 12,
        "linear_value_head_dim": 20,
        "shared_expert_intermediate_size": 32,
    },
    "recurrent_gemma": {"lru_width": 64, "attention_window_size": 19, "num_hidden_layers": 3},
}


def build(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny model with weights large enough for clear choices."""
    known = transformers.AutoConfig.for_model(model_type).to_dict()
    given = {name: value for name, value in COMMON.items() if name in known} | EXTRA.get(model_type, {})
    config = transformers.AutoConfig.for_model(model_type, **{**given, **changes})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * 0.2
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return model


def step_of(model: Any) -> tuple[PagedStep | OwnCacheStep, TransformersBackend]:
    backend = TransformersBackend(CPU)
    return choose(model, torch.float32, backend), backend


TOLERANCES = {"nemotron_h": 5e-3}
"""Of those whose steps of one token differ from whole sequences in transformers itself."""


class Expected:
    """Each sequence alone, by the same class before anything was changed in it."""

    def __init__(self, model_type: str, seed: int) -> None:
        self.model = build(model_type, seed)
        self.tolerance = TOLERANCES.get(model_type, TOLERANCE)

    def __call__(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


@pytest.mark.parametrize(
    "model_type",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in (*PAGED, *OWN_CACHE)],
)
def test_logits_and_greedy_tokens(model_type: str) -> None:
    assert model_type not in FAMILIES, "native by now: take another one"
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{model_type}: seed {seed}")
    step, backend = step_of(build(model_type, seed))
    assert isinstance(step, PagedStep if model_type in PAGED else OwnCacheStep)
    rng, expected = random.Random(seed), Expected(model_type, seed)
    driver = Driver(LoadedModel(step, None), backend, seed=seed)
    ids = [rng.randrange(3, VOCAB) for _ in range(100)]
    wanted = expected(ids)
    assert_close(driver.run(ids), wanted)
    assert_close(driver.run(ids, chunk=7), wanted, expected.tolerance)
    coming_and_going(driver, expected, rng)
    greedy(driver, expected, ids[:20])


def coming_and_going(driver: Driver, expected: Expected, rng: random.Random) -> None:
    """Sixteen sequences, of which some run in each step, by one token or several, and are preempted now and then."""
    sequences = [[rng.randrange(3, VOCAB) for _ in range(rng.randint(4, 60))] for _ in range(16)]
    rows, parts = [Row() for _ in sequences], [[] for _ in sequences]
    while any(row.computed < len(ids) for row, ids in zip(rows, sequences, strict=True)):
        work = []
        for number, (row, ids) in enumerate(zip(rows, sequences, strict=True)):
            if row.computed == len(ids) or rng.random() < 0.2:
                continue
            if row.computed and rng.random() < 0.02:  # preempted: begun again in other blocks
                driver.free[:0], rows[number], parts[number] = row.table, (row := Row()), []
            count = 1 if row.computed and rng.random() < 0.8 else rng.randint(1, 20)
            work.append((number, row, ids[row.computed : row.computed + count]))
        if work:
            logits = driver.step([(row, ids) for _, row, ids in work])
            for (number, _, _), part in zip(work, logits, strict=True):
                parts[number].append(part)
    for ids, part in zip(sequences, parts, strict=True):
        assert_close(torch.cat(part), expected(ids), expected.tolerance)


def greedy(driver: Driver, expected: Expected, prompt: list[int]) -> None:
    row, ids = Row(), list(prompt)
    logits = driver.run(prompt, row=row)[-1]
    for _ in range(64):
        ids.append(int(logits.argmax()))
        logits = driver.step([(row, ids[-1:])])[0][0]
    wanted = expected(ids)[len(prompt) - 1 : -1]
    best = wanted.topk(2, dim=-1)
    clear = best.values[:, 0] - best.values[:, 1] > expected.tolerance * wanted.abs().max()
    assert clear.sum() >= 32
    assert torch.equal(torch.tensor(ids[len(prompt) :])[clear], best.indices[:, 0][clear])


@pytest.mark.parametrize("together", [True, False])
def test_a_step_that_failed_can_be_run_again(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    step, backend = step_of(build("biogpt", seed))
    assert isinstance(step, OwnCacheStep)
    rng, expected, driver = random.Random(seed), Expected("biogpt", seed), Driver(LoadedModel(step, None), backend)
    sequences = [[rng.randrange(3, VOCAB) for _ in range(length)] for length in (12, 17)][: 2 if together else 1]
    rows = [Row() for _ in sequences]
    driver.step([(row, ids[:-2]) for row, ids in zip(rows, sequences, strict=True)])
    driver.step([(row, ids[-2:-1]) for row, ids in zip(rows, sequences, strict=True)])
    last = [(row, ids[-1:]) for row, ids in zip(rows, sequences, strict=True)]
    body = step._divided.body

    def late(*arguments: Any, **more: Any) -> Any:
        body(*arguments, **more)  # its caches have grown by now
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(step._divided, "body", late)
        driver.step(last)
    for ids, logits in zip(sequences, driver.step(last), strict=True):
        assert_close(logits, expected(ids)[-1:])


def drops_scaling(attention: Any) -> Any:
    """Other attention functions than its own get no scale."""
    inner, scale = attention.forward, attention.scaling

    def forward(*arguments: Any, **more: Any) -> Any:
        attention.scaling = scale * (0.5 if attention.config._attn_implementation.startswith("tgi") else 1.0)
        return inner(*arguments, **more)

    return forward


def bypasses(attention: Any) -> Any:
    """Never asks for the attention function that is set."""
    own = transformers.AutoConfig.for_model("llama")

    def forward(*arguments: Any, **more: Any) -> Any:
        config, mask = attention.config, more.pop("attention_mask", None)
        own.__dict__.update(config.__dict__)
        own._attn_implementation = "sdpa"
        attention.config = own
        try:
            return type(attention).forward(attention, *arguments, attention_mask=None if own else mask, **more)
        finally:
            attention.config = config

    return forward


def adds_a_bias(attention: Any) -> Any:
    """Hands something to its attention function that ours does not know."""
    inner = attention.forward

    def forward(*arguments: Any, **more: Any) -> Any:
        return inner(*arguments, own_bias=torch.zeros(1), **more)

    return forward


@pytest.mark.parametrize(
    ("wrong", "layers", "why"),
    [
        (drops_scaling, (0, 1), "logits were off by"),
        (drops_scaling, (1,), "logits were off by"),
        (bypasses, (1,), "1 of 2 attention layers pass the attention interface by"),
        (bypasses, (0, 1), "passes the attention interface by"),
        (adds_a_bias, (0,), "`own_bias`"),
    ],
)
def test_what_is_wrong_on_purpose_does_not_get_our_cache(
    wrong: Any, layers: tuple[int, ...], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("llama", num_key_value_heads=4)
    for layer in layers:
        attention = model.model.layers[layer].self_attn
        attention.forward = wrong(attention)
    with caplog.at_level(logging.INFO):
        step, _ = step_of(model)
    assert isinstance(step, OwnCacheStep)
    assert why in caplog.text and "runs through transformers, with its own cache" in caplog.text


def test_the_route_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        step_of(build("llama"))
    assert "LlamaForCausalLM runs through transformers, with attention over the paged cache" in caplog.text


def test_arguments_that_are_not_honoured() -> None:
    attention, rows = PagedAttention(32), torch.zeros(1, 2, 3, 4)
    paging = Paging(torch.arange(3), torch.arange(3), torch.zeros(1, 1, dtype=torch.int64), [3], [3],
                    torch.tensor([0, 3]), torch.tensor([3]))  # fmt: skip
    backend = TransformersBackend(CPU)
    attention.begin(None, None)
    module = torch.nn.Identity()
    attention(module, rows, rows, rows)
    from tgi.kernels.types import CacheShape

    cache = backend.allocate_cache(CacheShape(tuple(attention.layers), torch.float32), 1)
    refused: dict[str, Any] = {
        "position_bias": torch.zeros(1), "indices": torch.zeros(1), "is_causal": False, "a_new_one": 1,
        "position_ids": torch.tensor([[0, 1, 5]]), "attention_mask": torch.zeros(1, 1, 3, 3),
    }  # fmt: skip
    for name, value in refused.items():
        attention.begin(paging, cache)
        with pytest.raises(UnhonouredError, match=name):
            attention(module, rows, rows, rows, **{name: value})
    for more in ({"is_causal": True}, {"position_ids": torch.arange(3)[None]}, {"use_cache": False}, {"indices": None}):
        attention.begin(paging, cache)
        attention(module, rows, rows, rows, **more)


def test_rules_are_found_near_and_far() -> None:
    from transformers import masking_utils as masking

    def rule(function: Any, last: int = 5000) -> Rule:
        return Masks(last)(q_length=1, kv_length=1, mask_function=function, device=CPU).rule

    assert rule(masking.causal_mask_function) == Rule()
    for window in (1, 2, 5, 4096):
        assert rule(masking.sliding_window_causal_mask_function(window)) == Rule(window)
    chunked = rule(masking.chunked_causal_mask_function(512, torch.zeros(1, dtype=torch.int64)))
    assert chunked.allows is not None
    seen = chunked.visible(torch.tensor([511, 512, 700]), torch.arange(701))
    assert seen.sum(-1).tolist() == [512, 1, 189]
    with pytest.raises(UnhonouredError, match="after them"):
        rule(masking.bidirectional_mask_function)


@pytest.mark.parametrize(("model_type", "kind"), [("persimmon", PagedStep), ("doge", OwnCacheStep)])
def test_bfloat16(model_type: str, kind: type) -> None:
    """The self-test has room for its roundings, and what is served is no further from float32 than the model is."""
    exact = Expected(model_type, 1)
    rounded, backend = build(model_type, 1).bfloat16(), TransformersBackend(CPU)
    ids = list(range(40, 90))
    with torch.inference_mode():
        own = rounded(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    step = choose(rounded, torch.bfloat16, backend)
    assert isinstance(step, kind) and step.dtype == torch.bfloat16
    found, wanted = Driver(LoadedModel(step, None), backend).run(ids, chunk=7), exact(ids)
    assert (found - wanted).norm() < 1.5 * (own - wanted).norm()


def test_caches_of_sequences_that_do_not_run_go() -> None:
    """Nothing says that a sequence has ended; one that comes back after all is computed from its first token."""
    step, backend = step_of(build("doge", 2))
    assert isinstance(step, OwnCacheStep)
    driver, expected = Driver(LoadedModel(step, None), backend), Expected("doge", 2)
    sequences = [[*range(5 + 9 * number, 45 + 11 * number)] for number in range(4)]
    rows = [Row() for _ in sequences]
    driver.step([(row, ids[:-2]) for row, ids in zip(rows, sequences, strict=True)])
    driver.step([(row, ids[-2:-1]) for row, ids in zip(rows, sequences, strict=True)])
    for token in range(IDLE_STEPS):
        driver.step([(rows[0], [token + 3])])
    assert [kept.cache is None for kept in step._kept.values()] == [False, True, True, True] and not step._joined
    assert_close(driver.step([(rows[2], sequences[2][-1:])])[0], expected(sequences[2])[-1:])


def test_a_dropped_sequence_takes_no_memory() -> None:
    """What is kept of a sequence goes when one of its blocks is another's, or when it begins anew."""
    step, backend = step_of(build("doge"))
    assert isinstance(step, OwnCacheStep)
    driver = Driver(LoadedModel(step, None), backend, num_blocks=6)
    rows = [Row() for _ in range(3)]
    for row in rows:
        driver.run(list(range(5, 45)), row=row)
    driver.free = [rows[0].table[1], rows[1].table[1]]
    driver.run(list(range(5, 45)), row=Row())
    assert len(step._kept) == 2
    for first, second in pairwise([*step._kept.values()]):
        assert not first.blocks & second.blocks
