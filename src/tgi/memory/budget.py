"""Token budgets without trial and error: what fits the memory, and which limit binds.

One pure function from numbers to limits, for the engine at start and for `tgi plan` (which knows
the same numbers from config.json alone). Whoever calls it says the result; nothing is lowered in
silence. Imports no torch.

    available = weights + runtime + activations of one step + KV cache + states + left free
"""

from __future__ import annotations

from dataclasses import dataclass

from tgi.errors import StartupError
from tgi.memory.cost import ModelCost
from tgi.messages import MemoryPlan, MemoryRow
from tgi.settings.config import EngineConfig
from tgi.shorten import size

CPU_CACHE_SHARE = 0.5
"""Share of what is left on a CPU that the cache may take: other programs live there too."""
CPU_CACHE_REQUESTS = 32
"""Requests of full length for which a CPU's cache has room by default: more would hardly run at once."""
CUDA_CACHE_SHARE = 0.9
"""Share of what is left on a GPU; the rest is for the allocator's fragments."""
CPU_STEP_TOKENS = 512
CUDA_STEP_TOKENS = 4096
DEFAULT_BATCH_SIZE = 128
RUNTIME_BYTES = {"cpu": 450 << 20, "cuda": 800 << 20}
"""Interpreter, libraries and device context of the engine before any weight."""
MIN_STEP_TOKENS = 16
STATES_PER_SEQUENCE = 3
"""Slots of states for each sequence of a batch: one that a step reads, one that it writes, and one to be saved."""
CPU_STATE_SEQUENCES = 32
"""Sequences for whose states there is room by default on a CPU."""


def wanted_of(config: EngineConfig) -> Wanted:
    """What the flags ask for."""
    return Wanted(
        max_input_tokens=config.max_input_tokens,
        max_total_tokens=config.max_total_tokens,
        max_batch_prefill_tokens=config.max_batch_prefill_tokens,
        max_batch_total_tokens=config.max_batch_total_tokens,
        max_batch_size=config.max_batch_size,
        kv_cache_bytes=config.kv_cache_bytes,
        memory_fraction=config.cuda_memory_fraction if (config.device or "").startswith("cuda") else 1.0,
    )


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None means "compute it"."""

    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None
    kv_cache_bytes: int | None = None
    memory_fraction: float = 1.0


@dataclass(frozen=True)
class Limits:
    """What the engine runs with."""

    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    max_batch_size: int
    num_blocks: int
    memory: MemoryPlan
    num_states: int = 0
    """Slots of states beside the cache."""


def compute(cost: ModelCost, wanted: Wanted, *, available_bytes: int, device: str, block_size: int) -> Limits:
    """The largest limits that fit `available_bytes`, with the reasons.

    Raises `StartupError` naming what does not fit (weights, activations or KV cache) and the one
    direction that helps.
    """
    kind = device.split(":")[0]
    available = int(available_bytes * wanted.memory_fraction)
    runtime = RUNTIME_BYTES.get(kind, RUNTIME_BYTES["cpu"])
    lowered: list[str] = []
    after_weights = _after_weights(cost, runtime, available)
    step_tokens = _step_tokens(cost, wanted, after_weights, kind, block_size, lowered)
    batch_size = _batch_size(wanted, step_tokens, lowered)
    left = after_weights - _activations(cost, step_tokens)
    batch_size = _batch_of_states(cost, wanted, batch_size, left, kind, lowered)
    num_states = STATES_PER_SEQUENCE * batch_size if cost.state_bytes else 0
    left -= num_states * cost.state_bytes
    context = _context(cost, wanted, lowered)
    longest = _held(cost, context, block_size)
    tokens, binding = _cache_tokens(cost, wanted, left, kind, longest, batch_size, lowered)
    num_blocks = _cache_blocks(cost, wanted, tokens, left, block_size)
    cache_tokens = num_blocks * block_size
    max_total = _total(cost, wanted, context, cache_tokens, block_size, lowered)
    max_input = _input(cost, wanted, max_total, step_tokens, lowered)
    memory = MemoryPlan(
        rows=_rows(cost, runtime, step_tokens, cache_tokens, num_states, available, kind),
        available_bytes=available,
        kv_bytes_per_token=cost.kv_bytes_per_token,
        cache_tokens=cache_tokens,
        full_length_requests=cache_tokens / max_total,
        binding_limit=binding,
        lowered=lowered,
    )
    return Limits(max_input, max_total, step_tokens, batch_size, num_blocks, memory, num_states)


def _after_weights(cost: ModelCost, runtime: int, available: int) -> int:
    """Bytes left for activations and cache."""
    left = available - cost.weight_bytes - runtime
    if left <= 0:
        raise StartupError(
            f"the weights do not fit: {size(cost.weight_bytes)} of weights and {size(runtime)} of runtime, "
            f"{size(available)} available. Use a smaller model, a quantised one, or more memory"
        )
    return left


def _activations(cost: ModelCost, step_tokens: int) -> int:
    return cost.activation_bytes_fixed + cost.activation_bytes_per_token * step_tokens


def _step_tokens(cost: ModelCost, wanted: Wanted, left: int, kind: str, block_size: int, lowered: list[str]) -> int:
    """Tokens of a step: as many as asked that fit beside the cache, or the device's default, halved until it does."""
    asked = wanted.max_batch_prefill_tokens or (CUDA_STEP_TOKENS if kind == "cuda" else CPU_STEP_TOKENS)
    if cost.encoder_positions and not wanted.max_batch_prefill_tokens:  # an encoder reads its input in one step
        asked = max(asked, wanted.max_input_tokens or cost.encoder_positions)
    room = left - block_size * cost.kv_bytes_per_token
    most = _activation_room(cost, wanted, room, block_size)
    tokens = asked
    if wanted.max_batch_prefill_tokens:
        fits = (most - cost.activation_bytes_fixed) // max(cost.activation_bytes_per_token, 1)
        tokens = min(asked, max(fits, MIN_STEP_TOKENS))
    else:
        while tokens > MIN_STEP_TOKENS and _activations(cost, tokens) > most:
            tokens //= 2
    if _activations(cost, tokens) > room:
        raise StartupError(
            f"the activations do not fit: a step of {tokens} tokens takes {size(_activations(cost, tokens))}, "
            f"{size(max(room, 0))} left beside the weights. Give more memory or use a smaller model"
        )
    if tokens < asked and wanted.max_batch_prefill_tokens:
        lowered.append(f"max_batch_prefill_tokens lowered from {asked} to {tokens}: its activations would not fit")
    return tokens


def _activation_room(cost: ModelCost, wanted: Wanted, room: int, block_size: int) -> int:
    """Bytes of `room` that activations may take: half, but what is asked for goes before what is computed.

    A step that is asked for may take all but the cache (asked for, or of one request of full length);
    a computed one gives way to a cache that is asked for, if that helps.
    """
    longest = _context(cost, wanted, [])
    cache = wanted.kv_cache_bytes
    if cache is None:
        tokens = wanted.max_batch_total_tokens or longest
        cache = _blocks(tokens, block_size) * block_size * cost.kv_bytes_per_token
    if wanted.max_batch_prefill_tokens:
        return max(room // 2, room - cache)
    asked = wanted.max_total_tokens or wanted.max_batch_total_tokens or wanted.kv_cache_bytes
    if asked and room - cache >= _activations(cost, MIN_STEP_TOKENS):
        return min(room // 2, room - cache)
    return room // 2


def _batch_size(wanted: Wanted, step_tokens: int, lowered: list[str]) -> int:
    """Sequences of a step, each of which takes at least a token of it."""
    asked = wanted.max_batch_size
    batch_size = min(asked or DEFAULT_BATCH_SIZE, step_tokens)
    if asked and batch_size < asked:
        lowered.append(f"max_batch_size lowered from {asked} to {batch_size}: a step has no more tokens")
    return batch_size


def _batch_of_states(cost: ModelCost, wanted: Wanted, batch_size: int, left: int, kind: str, lowered: list[str]) -> int:
    """As many sequences as have room for their states in half of what is left."""
    if not cost.state_bytes:
        return batch_size
    one = STATES_PER_SEQUENCE * cost.state_bytes
    if one > left // 2:
        raise StartupError(
            f"the states of a sequence do not fit: they take {size(one)}, {size(max(left, 0) // 2)} left for them. "
            "Lower --max-batch-prefill-tokens or give more memory"
        )
    most = batch_size if wanted.max_batch_size or kind == "cuda" else min(batch_size, CPU_STATE_SEQUENCES)
    fits = min(most, left // 2 // one)
    if wanted.max_batch_size and fits < batch_size:
        lowered.append(
            f"max_batch_size lowered from {batch_size} to {fits}: the states of more sequences would not fit"
        )
    return fits


def _context(cost: ModelCost, wanted: Wanted, lowered: list[str]) -> int:
    """Tokens of a request as far as the model goes, whatever the cache holds."""
    asked, context = wanted.max_total_tokens or cost.context, cost.context
    if asked > context and cost.positions_go_on:
        lowered.append(f"max_total_tokens {asked} is more than the model's context of {context}: its positions go on")
        return asked
    if asked > context:
        lowered.append(f"max_total_tokens lowered from {asked} to {context}: the model's context ends there")
    return min(asked, context)


def _blocks(tokens: int, block_size: int) -> int:
    """Blocks that hold `tokens` tokens."""
    return -(-tokens // block_size)


def _cache_tokens(
    cost: ModelCost, wanted: Wanted, left: int, kind: str, longest: int, batch_size: int, lowered: list[str]
) -> tuple[int, str]:
    """Tokens of the cache and the limit that binds them; a request holds at most `longest`."""
    fits = left // cost.kv_bytes_per_token
    if wanted.kv_cache_bytes is not None or wanted.max_batch_total_tokens is not None:
        flag, asked = "max_batch_total_tokens", wanted.max_batch_total_tokens or 0
        if wanted.kv_cache_bytes is not None:
            flag, asked = "kv_cache_memory", wanted.kv_cache_bytes // cost.kv_bytes_per_token
        if asked > fits:
            lowered.append(f"{flag} lowered from {asked} to {max(fits, 0)} tokens: the memory holds no more")
            return max(fits, 0), "memory"
        return asked, f"--{flag.replace('_', '-')}"
    share = CUDA_CACHE_SHARE if kind == "cuda" else CPU_CACHE_SHARE
    tokens = int(left * share) // cost.kv_bytes_per_token
    requests = batch_size if kind == "cuda" or wanted.max_batch_size else min(batch_size, CPU_CACHE_REQUESTS)
    needed, has = longest * requests, f"{share:.0%} of what is left, {size(tokens * cost.kv_bytes_per_token)}"
    if tokens >= needed and requests == batch_size:
        return needed, "batch size x max_total_tokens: more cache could not be used at once"
    if tokens >= needed:
        return needed, f"{requests} requests of full length ({has}, is not needed; --kv-cache-memory gives more)"
    if wanted.max_total_tokens and tokens < longest and kind != "cuda":  # a GPU's allocator needs its rest
        why = f"--max-total-tokens: one request needs more than {share:.0%} of what is left"
        return max(min(longest, fits), 0), why
    wish = f"; {requests} requests of full length need {size(needed * cost.kv_bytes_per_token)}"
    return max(tokens, 0), f"memory: the cache may take {has}{wish}"


def _cache_blocks(cost: ModelCost, wanted: Wanted, tokens: int, left: int, block_size: int) -> int:
    """Whole blocks of the cache; a number of tokens that was asked for and fits is rounded up."""
    num_blocks = tokens // block_size
    if wanted.max_batch_total_tokens and tokens == wanted.max_batch_total_tokens:
        num_blocks = _blocks(tokens, block_size)
    if num_blocks * block_size < 2:
        raise StartupError(
            f"the KV cache does not fit: {size(max(left, 0))} left for it, a block of {block_size} tokens takes "
            f"{size(block_size * cost.kv_bytes_per_token)}. {_remedy(wanted)}"
        )
    return num_blocks


def _remedy(wanted: Wanted) -> str:
    """What to do when there is no room for a single block."""
    if wanted.kv_cache_bytes is not None:
        return "Raise --kv-cache-memory"
    if wanted.max_batch_total_tokens is not None:
        return "Raise --max-batch-total-tokens, or give more memory"
    return "Lower --max-batch-prefill-tokens or give more memory"


def _total(
    cost: ModelCost, wanted: Wanted, context: int, cache_tokens: int, block_size: int, lowered: list[str]
) -> int:
    """Tokens of a request, which must fit the cache alone."""
    fits = cache_tokens - (_held(cost, 1, block_size) - block_size)
    if fits >= context:
        return context
    if fits < 2:
        raise StartupError(f"the KV cache of {cache_tokens} tokens holds no request. {_remedy(wanted)}")
    if wanted.max_total_tokens:
        lowered.append(f"max_total_tokens lowered from {context} to {fits}: the KV cache holds no more")
    return fits


def _input(cost: ModelCost, wanted: Wanted, total: int, step_tokens: int, lowered: list[str]) -> int:
    """Tokens of a prompt."""
    most, why = total - 1, f"max_total_tokens is {total}"
    if cost.encoder_positions and step_tokens < most:
        most, why = step_tokens, "the encoder reads an input in one step (--max-batch-prefill-tokens)"
    if cost.encoder_positions and not cost.positions_go_on and cost.encoder_positions < most:
        most, why = cost.encoder_positions, "the encoder has no more positions"
    asked = wanted.max_input_tokens or most
    if asked > most:
        lowered.append(f"max_input_tokens lowered from {asked} to {most}: {why}")
    return min(asked, most)


def _held(cost: ModelCost, tokens: int, block_size: int) -> int:
    """Tokens of the blocks that a request of so many tokens holds.

    With an encoder each side has blocks of its own, and the decoder begins with up to two tokens more.
    """
    return (_blocks(tokens, block_size) + (2 if cost.encoder_positions else 0)) * block_size


def _rows(
    cost: ModelCost, runtime: int, step_tokens: int, cache_tokens: int, num_states: int, available: int, kind: str
) -> list[MemoryRow]:
    """The table: what takes how much at most, and the rest."""
    taken = "" if kind == "cuda" else ", taken as they are used"
    activations = _activations(cost, step_tokens)
    cache_bytes = cache_tokens * cost.kv_bytes_per_token
    states = num_states * cost.state_bytes
    rows = [
        MemoryRow("weights", cost.weight_bytes),
        MemoryRow("runtime", runtime, "interpreter, libraries"),
        MemoryRow("activations", activations, f"a step of {step_tokens} tokens"),
        MemoryRow("KV cache", cache_bytes, f"{cache_tokens} tokens x {size(cost.kv_bytes_per_token)}{taken}"),
    ]
    if states:
        rows.append(MemoryRow("states", states, f"{num_states} x {size(cost.state_bytes)}{taken}"))
    return [*rows, MemoryRow("left free", available - sum(row.bytes for row in rows))]
