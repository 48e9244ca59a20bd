"""Memory budgets: what is computed fits, what is lowered is said, what cannot fit names the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi.errors import StartupError
from tgi.memory.budget import CPU_CACHE_SHARE, RUNTIME_BYTES, ModelCost, Wanted, compute, size

MIB, GIB = 1 << 20, 1 << 30
COST = ModelCost(270 * MIB, 23_040, 100_000, 4 * MIB, 8192)
DEFAULTS = Wanted()


def limits(wanted: Wanted = DEFAULTS, cost: ModelCost = COST, available: int = 8 * GIB, device: str = "cpu"):
    return compute(cost, wanted, available_bytes=available, device=device, block_size=32)


def test_defaults_use_the_model_context_and_a_stated_share():
    result = limits()
    assert result.max_total_tokens == 8192 and result.max_input_tokens == 8191
    cache = result.num_blocks * 32 * COST.kv_bytes_per_token
    left = 8 * GIB - COST.weight_bytes - RUNTIME_BYTES["cpu"] - 4 * MIB - 512 * 100_000
    assert cache <= CPU_CACHE_SHARE * left < cache + 64 * COST.kv_bytes_per_token
    assert "50%" in result.memory.binding_limit and not result.memory.lowered


def test_an_encoders_input_counts():
    cost = replace(COST, max_positions=1024, encoder_positions=700)
    result = limits(cost=cost)
    assert (result.max_input_tokens, result.max_total_tokens, result.max_batch_prefill_tokens) == (700, 1724, 700)
    assert limits(Wanted(max_input_tokens=900), cost).max_input_tokens == 700
    assert limits(Wanted(max_batch_prefill_tokens=300), cost).max_input_tokens == 300
    far = limits(Wanted(max_total_tokens=4000, max_input_tokens=2000), replace(cost, positions_go_on=True))
    assert (far.max_input_tokens, far.max_total_tokens, far.max_batch_prefill_tokens) == (2000, 4000, 2000)
    small = limits(Wanted(max_batch_total_tokens=320), cost)
    assert small.max_total_tokens == 320 - 64, "whole blocks for each side, and what the decoder begins with"


def test_a_small_model_takes_no_more_than_it_can_use():
    cost = ModelCost(10 * MIB, 1024, 10_000, MIB, 2048)
    result = limits(Wanted(max_batch_size=4), cost)
    assert result.memory.cache_tokens == 4 * 2048
    assert "max_total_tokens" in result.memory.binding_limit


@settings(max_examples=300, deadline=None)
@given(
    weights=st.integers(1, 40 * GIB),
    kv=st.integers(64, 2 * MIB),
    per_token=st.integers(100, 4 * MIB),
    fixed=st.integers(0, 100 * MIB),
    positions=st.integers(8, 200_000),
    available=st.integers(64 * MIB, 64 * GIB),
    total=st.one_of(st.none(), st.integers(2, 300_000)),
    step=st.one_of(st.none(), st.integers(1, 100_000)),
    cache=st.one_of(st.none(), st.integers(1, 10_000_000)),
    batch=st.one_of(st.none(), st.integers(1, 512)),
    device=st.sampled_from(["cpu", "cuda", "cuda:1"]),
)
def test_whatever_is_asked_the_result_fits_or_is_refused(
    weights, kv, per_token, fixed, positions, available, total, step, cache, batch, device
):
    cost = ModelCost(weights, kv, per_token, fixed, positions)
    wanted = Wanted(
        max_total_tokens=total, max_batch_prefill_tokens=step, max_batch_total_tokens=cache, max_batch_size=batch
    )
    try:
        result = compute(cost, wanted, available_bytes=available, device=device, block_size=32)
    except StartupError as error:
        assert "fit" in str(error)
        return
    assert sum(row.bytes for row in result.memory.rows) == available
    assert result.memory.rows[-1].bytes >= -32 * kv  # a given size is rounded up to whole blocks
    assert 1 <= result.max_input_tokens < result.max_total_tokens <= min(positions, result.memory.cache_tokens)
    assert 1 <= result.max_batch_size <= result.max_batch_prefill_tokens
    for asked, given_, name in [
        (total, result.max_total_tokens, "max_total_tokens"),
        (step, result.max_batch_prefill_tokens, "max_batch_prefill_tokens"),
        (batch, result.max_batch_size, "max_batch_size"),
    ]:
        if asked is not None and given_ < asked:
            assert any(sentence.startswith(name) for sentence in result.memory.lowered), name


def test_what_is_asked_for_is_lowered_no_further_than_it_must():
    rest = COST.weight_bytes + RUNTIME_BYTES["cpu"] + COST.activation_bytes_fixed
    # A step that takes three quarters of what is left beside the cache that was asked for.
    wanted = Wanted(max_batch_prefill_tokens=3000, kv_cache_bytes=100 * MIB)
    result = limits(wanted, available=rest + 3000 * 100_000 + 101 * MIB)
    assert (result.max_batch_prefill_tokens, result.memory.lowered) == (3000, [])
    less = limits(wanted, available=rest + 2900 * 100_000 + 101 * MIB)
    assert 2890 <= less.max_batch_prefill_tokens <= 2910
    assert less.memory.lowered == [
        f"max_batch_prefill_tokens lowered from 3000 to {less.max_batch_prefill_tokens}: its activations would not fit"
    ]
    # A context that takes more than the share of the cache.
    wanted = Wanted(max_total_tokens=4001, max_batch_prefill_tokens=16)
    result = limits(wanted, available=rest + 16 * 100_000 + 4032 * COST.kv_bytes_per_token)
    assert (result.max_total_tokens, result.memory.cache_tokens, result.memory.lowered) == (4001, 4032, [])
    assert result.memory.binding_limit.startswith("--max-total-tokens")
    less = limits(wanted, available=rest + 16 * 100_000 + 3999 * COST.kv_bytes_per_token)
    assert less.max_total_tokens == 3968
    assert less.memory.lowered == ["max_total_tokens lowered from 4001 to 3968: the KV cache holds no more"]


def test_a_computed_step_gives_way_to_what_is_asked_for():
    rest = COST.weight_bytes + RUNTIME_BYTES["cpu"] + COST.activation_bytes_fixed
    available = rest + 600 * 100_000 + 4032 * COST.kv_bytes_per_token  # less than half is left for 512 tokens
    for wanted in (Wanted(max_total_tokens=4000), Wanted(max_batch_total_tokens=4000)):
        result = limits(wanted, available=available)
        assert (result.max_batch_prefill_tokens, result.memory.lowered) == (512, [])
        tighter = limits(wanted, available=available - 200 * 100_000)
        assert (tighter.max_batch_prefill_tokens, tighter.memory.lowered) == (256, [])
        hopeless = limits(wanted, available=available - 900 * 100_000)
        assert hopeless.max_batch_prefill_tokens >= 128, "a tiny step would not help"


def test_a_length_need_not_be_a_multiple_of_a_block():
    result = limits(Wanted(max_total_tokens=1000, max_batch_size=1))
    assert (result.max_total_tokens, result.memory.cache_tokens, result.memory.lowered) == (1000, 1024, [])


def test_weights_that_do_not_fit_are_named():
    with pytest.raises(StartupError, match="weights do not fit"):
        limits(available=GIB // 2)


def test_an_exact_cache_size_is_kept():
    result = limits(Wanted(kv_cache_bytes=512 * MIB))
    assert result.num_blocks == 512 * MIB // COST.kv_bytes_per_token // 32
    assert result.memory.binding_limit == "--kv-cache-memory"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (3 * GIB, "3.00 GiB")])
def test_sizes_are_readable(count, text):
    assert size(count) == text


def test_a_longer_context_may_be_asked_for_where_positions_go_on():
    """Linear and dynamic rope scaling; what is not asked for stays within the model's own context."""
    stretched = replace(COST, positions_go_on=True)
    result = limits(Wanted(max_total_tokens=20_000), stretched)
    assert (result.max_total_tokens, result.max_input_tokens) == (20_000, 19_999)
    assert result.memory.lowered == [
        "max_total_tokens 20000 is more than the model's context of 8192: its positions go on"
    ]
    assert limits(DEFAULTS, stretched).max_total_tokens == 8192
    assert limits(Wanted(max_total_tokens=8000), stretched).memory.lowered == []
    small = limits(Wanted(max_total_tokens=20_000, kv_cache_bytes=100 * MIB), stretched)
    assert small.max_total_tokens == small.memory.cache_tokens < 8192
    assert any("lowered from 20000" in sentence for sentence in small.memory.lowered)
    assert limits(Wanted(max_total_tokens=20_000)).max_total_tokens == 8192


def test_the_default_cache_of_a_cpu_is_for_32_requests():
    """More than the share that it had before it never is, and both are said."""
    small = replace(COST, kv_bytes_per_token=4096)
    result = limits(DEFAULTS, small)
    assert result.memory.cache_tokens == 32 * 8192 and result.memory.full_length_requests == 32
    assert result.max_batch_size == 128 and result.memory.lowered == []
    assert result.memory.binding_limit.startswith("32 requests of full length (50% of what is left, 3.")
    half = limits(DEFAULTS)
    assert half.memory.binding_limit.startswith("memory: the cache may take 50% of what is left, 3.")
    assert half.memory.binding_limit.endswith("; 32 requests of full length need 5.62 GiB")
    assert limits(Wanted(max_batch_size=64), small).memory.cache_tokens == 64 * 8192
    assert limits(Wanted(max_batch_size=8), small).memory.cache_tokens == 8 * 8192
    assert limits(Wanted(max_total_tokens=1000), small).memory.cache_tokens == 32 * 1024
    assert limits(Wanted(kv_cache_bytes=GIB), small).memory.cache_tokens == GIB // 4096
    gpu = limits(DEFAULTS, small, device="cuda").memory
    assert gpu.cache_tokens == 128 * 8192
    row, other = (next(row for row in plan.rows if row.name == "KV cache") for plan in (result.memory, gpu))
    assert row.note == "262144 tokens x 4.00 KiB, taken as they are used"
    assert other.note == "1048576 tokens x 4.00 KiB"
