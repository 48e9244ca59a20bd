"""Same logits as transformers, family by family, in every way a sequence can be computed.

Oracle: AutoModelForCausalLM in float32 with eager attention on the same files. Weights and tokens are
fresh in every run; a failure prints the seed. Tolerance: max error over max |logit| 1e-4.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import transformers

from tests.models.checkpoints import FAMILIES, Family, make_checkpoint
from tests.models.driver import Driver, Row, make_paging
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.program import Scale
from tgi.kernels.select import select
from tgi.kernels.types import Backend, CacheShape
from tgi.models.families.gemma import GEMMA2_NAMES
from tgi.models.loader import load_model
from tgi.models.weights import Weights
from tgi.quant.reader import ModelWeights

TOLERANCE = 1e-4
VOCAB = 384
CPU = torch.device("cpu")
BACKENDS = {"reference": select(CPU, torch.float32), "native": select(CPU, torch.float32, threads=2)}

VARIANTS: dict[str, tuple[Family, dict[str, Any]]] = {
    "llama-biases-tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-multi-query": ("llama", {"num_key_value_heads": 1, "head_dim": 20, "hidden_act": "gelu"}),
    "llama-llama3-rope": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "llama-linear-rope": ("llama", {"rope_scaling": {"type": "linear", "factor": 3.0}}),
    "llama-yarn-rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "rope_theta": ...,
        },
    ),
    "llama-as-old-configs-say": (
        "llama",
        {"pretraining_tp": 2, "hidden_act": "swish", "sliding_window": 16, "use_sliding_window": False},
    ),
    "llama-yarn-of-its-authors": (
        "llama",
        {"rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "finetuned": True}},
    ),
    "qwen2-no-window-to-use": ("qwen2", {"use_sliding_window": True, "sliding_window": None}),
    "gpt2-names-of-others": (
        "gpt2",
        {
            "n_head": ...,
            "num_attention_heads": 5,
            "activation_function": "gelu_fast",
            "reorder_and_upcast_attn": True,
        },
    ),
    "mistral-no-window": ("mistral", {"sliding_window": None}),
    "mistral-window-of-one-block": ("mistral", {"sliding_window": 32}),
    "qwen2-some-layers-windowed": ("qwen2", {"use_sliding_window": True, "sliding_window": 19}),
    "gpt2-inner-relu-untied": ("gpt2", {"n_inner": 100, "activation_function": "relu", "tie_word_embeddings": False}),
    "gpt2-unscaled": ("gpt2", {"scale_attn_weights": False}),
    "gpt_neox-sequential-tied": (
        "gpt_neox",
        {
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "tie_word_embeddings": True,
        },
    ),
    "gpt_neox-whole-rotary": ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 500, "hidden_act": "relu"}),
    "gpt_neox-rope-parameters": (
        "gpt_neox",
        {
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 2.0,
                "rope_theta": 3e3,
                "partial_rotary_factor": 0.5,
            },
            "rotary_emb_base": ...,
            "rotary_pct": ...,
            "hidden_act": "gelu_pytorch_tanh",
        },
    ),
    "bloom-old-keys-untied": (
        "bloom",
        {
            "hidden_size": ...,
            "n_embed": 80,
            "n_head": ...,
            "num_attention_heads": 8,
            "pretraining_tp": 4,
            "tie_word_embeddings": False,
        },
    ),
    "bloom-residual-after-norm": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "gemma2-no-caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma2-one-cap": ("gemma2", {"attn_logit_softcapping": None, "num_key_value_heads": 4}),
    "gemma2-layer-types-biases": (
        "gemma2",
        {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "attention_bias": True,
        },
    ),
    "gemma2-gelu-untied": ("gemma2", {"hidden_activation": "gelu", "tie_word_embeddings": False}),
}


@dataclass
class Case:
    """One checkpoint, loaded by both sides."""

    ours: Driver
    backend: Backend
    oracle: Any
    rng: random.Random

    def tokens(self, count: int) -> list[int]:
        return [self.rng.randrange(VOCAB) for _ in range(count)]

    def expected(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.oracle(torch.tensor([ids])).logits[0]


def load_case(path: Any, family: Family, backend: Backend, **overrides: Any) -> Case:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{family}: seed {seed}")  # shown by pytest when a test fails
    make_checkpoint(path, family, seed=seed, vocab_size=VOCAB, sharded=seed % 2 == 1, **overrides)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ours = Driver(load_model(path, None, backend), backend, seed=seed)
    return Case(ours, backend, oracle, random.Random(seed))


def backend_named(kind: str) -> Backend:
    """Native ones must be there where they were built: a silent fallback would test nothing."""
    if kind == "native" and not isinstance(BACKENDS[kind], NativeBackend):
        pytest.skip("the native kernels were not built")
    return BACKENDS[kind]


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == expected.shape
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    assert error <= tolerance, f"max error over max |logit| is {error:.2e}"


@pytest.fixture(scope="module", params=[(family, kind) for family in FAMILIES for kind in BACKENDS], ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    family, kind = request.param
    yield load_case(tmp_path_factory.mktemp(family), family, backend_named(kind))


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str, kind: str, tmp_path: Any) -> None:
    family, overrides = VARIANTS[name]
    case = load_case(tmp_path, family, backend_named(kind), **overrides)
    ids = case.tokens(90)
    assert_close(case.ours.run(ids, chunk=70), case.expected(ids))
    other = case.tokens(40)
    row = Row()
    got = torch.cat([case.ours.run(other[:35], row=row)] + [case.ours.step([(row, [t])])[0] for t in other[35:]])
    assert_close(got, case.expected(other))


def test_whole_prefill(case: Case) -> None:
    ids = case.tokens(150)
    assert_close(case.ours.run(ids), case.expected(ids))


def test_chunks_of_seven(case: Case) -> None:
    ids = case.tokens(100)
    assert_close(case.ours.run(ids, chunk=7), case.expected(ids))


def test_decode_sixteen_of_mixed_lengths(case: Case) -> None:
    """Prompts in one batch, then steps of sixteen single rows; a late prompt joins as chunks among them."""
    prompts = [case.tokens(case.rng.randint(1, 140)) for _ in range(16)]
    futures = [case.tokens(6) for _ in prompts]
    rows = [Row() for _ in prompts]
    collected = [[logits] for logits in case.ours.step(list(zip(rows, prompts, strict=True)))]
    late, late_ids, late_logits = Row(), case.tokens(60), []
    for at in range(6):
        work = [(row, [future[at]]) for row, future in zip(rows, futures, strict=True)]
        work.insert(case.rng.randrange(16), (late, late_ids[at * 10 : at * 10 + 10]))
        results = case.ours.step(work)
        place = next(index for index, (row, _) in enumerate(work) if row is late)
        late_logits.append(results.pop(place))
        for parts, logits in zip(collected, results, strict=True):
            parts.append(logits)
    for prompt, future, parts in zip(prompts, futures, collected, strict=True):
        assert_close(torch.cat(parts), case.expected(prompt + future))
    assert_close(torch.cat(late_logits), case.expected(late_ids))


def test_prefix_hit(case: Case) -> None:
    """A second sequence whose first two blocks are those of the first, which goes on living."""
    block = case.backend.block_size
    shared, first, second = case.tokens(2 * block), case.tokens(30), case.tokens(45)
    owner = Row()
    case.ours.run(shared + first, row=owner)
    hit = Row(table=owner.table[:2], computed=2 * block)
    expected = case.expected(shared + second)[2 * block :]
    assert_close(case.ours.run(second, row=hit), expected)
    more = case.tokens(1)
    assert_close(case.ours.run(more, row=owner), case.expected(shared + first + more)[-1:])


def test_after_preemption(case: Case) -> None:
    """A sequence loses its blocks in the middle of decoding; all is computed again in used ones, then it goes on."""
    ids = case.tokens(110)
    first = Row()
    case.ours.run(ids[:80], row=first)
    case.ours.step([(first, ids[80:81])])
    other_ids, other = case.tokens(70), Row(table=list(first.table))
    assert_close(case.ours.run(other_ids, row=other), case.expected(other_ids))
    again = Row(table=list(reversed(other.table)))  # its owner has ended
    parts = [case.ours.run(ids[:81], chunk=30, row=again)]
    parts += [case.ours.step([(again, [token])])[0] for token in ids[81:]]
    assert_close(torch.cat(parts), case.expected(ids))


def test_greedy_tokens(case: Case) -> None:
    """64 tokens; each is the oracle's choice given the tokens before, unless its two best are a near-tie."""
    prompt = case.tokens(20)
    row, ids = Row(), list(prompt)
    logits = case.ours.run(prompt, row=row)[-1]
    for _ in range(64):
        ids.append(int(logits.argmax()))
        logits = case.ours.step([(row, ids[-1:])])[0][0]
    expected = case.expected(ids)[len(prompt) - 1 : -1]
    best = expected.topk(2, dim=-1)
    margin = best.values[:, 0] - best.values[:, 1]
    clear = margin > TOLERANCE * expected.abs().max()
    assert clear.sum() >= 32, "random weights were meant to give clear choices"
    assert torch.equal(torch.tensor(ids[len(prompt) :])[clear], best.indices[:, 0][clear])


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.06), ("float16", 0.01)])
def test_half_types_stay_near_float32(family: Family, kind: str, dtype: str, tolerance: float, tmp_path: Any) -> None:
    """8 or 11 bits of mantissa through three layers: 6 or 1 % of the largest logit, on the files' own weights."""
    case = load_case(tmp_path, family, backend_named(kind), std=0.1)
    backend = select(CPU, getattr(torch, dtype), threads=2 if kind == "native" else None)
    assert isinstance(backend, NativeBackend) == (kind == "native")
    narrow = Driver(load_model(tmp_path, dtype, backend), backend)
    ids = case.tokens(80)
    row = Row()
    got = torch.cat([narrow.run(ids[:70], row=row)] + [narrow.step([(row, [token])])[0] for token in ids[70:]])
    assert got.dtype == torch.float32
    assert_close(got, case.expected(ids), tolerance=tolerance)


@pytest.mark.parametrize("kind", BACKENDS)
def test_embedding_scale_is_rounded_as_in_training(kind: str, tmp_path: Any) -> None:
    """Bit by bit in bfloat16, where the root of 76 is 8.6875."""
    case = load_case(tmp_path, "gemma2", backend_named(kind), dtype="bfloat16")
    backend = select(CPU, torch.bfloat16, threads=2 if kind == "native" else None)
    program = load_model(tmp_path, None, backend).step.program
    assert isinstance(program.ops[1], Scale)
    embedding = replace(program, ops=program.ops[:2], result=program.ops[1].out)
    ids = torch.arange(VOCAB)
    paging = make_paging([list(range(-(-VOCAB // backend.block_size)))], [0], [VOCAB], backend.block_size)
    cache = backend.allocate_cache(CacheShape(program.cache, torch.bfloat16), 1)
    with Weights(tmp_path, GEMMA2_NAMES) as source, torch.inference_mode():
        got = backend.load(embedding, ModelWeights(source, torch.bfloat16)).forward(ids, paging, cache)
        assert torch.equal(got.bfloat16(), case.oracle.bfloat16().get_input_embeddings()(ids))
        table = case.oracle.get_input_embeddings().weight
        torch.testing.assert_close(got.float(), table.float() * 8.6875, rtol=2**-8, atol=0)
