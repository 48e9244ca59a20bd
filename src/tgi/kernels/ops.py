"""The seam between the model code and the arithmetic: a record of callables, and who is chosen.

Owns the names, shapes and meaning of the operations, and which implementation serves a device.
`reference` in torch is the definition of correct and runs on every device; `select` starts from it
and replaces what the device offers. `Ops` also owns the layout of the KV cache and the block size, so
that nobody else knows how a block is stored. Called by `layers` while a model is built; the engine
calls `select`, `allocate_cache` and `cache_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tgi.kernels.program import Program, Tables

DEFAULT_BLOCK_SIZE = 32


@dataclass(slots=True)
class Paging:
    """Where the rows of a batch stand in their sequences and in the paged cache.

    Rows of one sequence are contiguous and in order of position. Tensors are on the model's device;
    the lists repeat what the host knows, so that no kernel has to ask the device for a length.
    """

    positions: torch.Tensor  # [tokens] int64, position of the row in its sequence
    slots: torch.Tensor  # [tokens] int64, block * block_size + offset where the row's K and V go
    block_tables: torch.Tensor  # [sequences, max_blocks] int64, padded with 0
    query_lens: list[int]  # rows of each sequence
    context_lens: list[int]  # position after the last row: keys each sequence attends to
    query_starts: torch.Tensor  # [sequences + 1] int64
    contexts: torch.Tensor  # [sequences] int64, context_lens on the device


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What the KV cache must hold, whatever its layout."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class KVCache:
    """The paged keys and values of all layers. Opaque outside `kernels`: each `Ops` has its own layout."""

    shape: CacheShape
    num_blocks: int
    block_size: int
    keys: list[torch.Tensor] = field(repr=False)  # one a layer
    values: list[torch.Tensor] = field(repr=False)


class AllocateCache(Protocol):
    def __call__(self, shape: CacheShape, num_blocks: int, device: torch.device) -> KVCache:
        """An empty cache. Memory errors of the device pass through."""
        ...


class StoreKV(Protocol):
    def __call__(
        self, cache: KVCache, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
    ) -> None:
        """Write `keys` and `values` [tokens, kv_heads, head_dim] to `slots` [tokens] of one layer."""
        ...


class PlanAttention(Protocol):
    def __call__(self, paging: Paging, window: int | None) -> Any:
        """What `attention` needs to know of a step, worked out once for all layers with this window."""
        ...


class Attention(Protocol):
    def __call__(
        self,
        queries: torch.Tensor,
        cache: KVCache,
        layer: int,
        plan: Any,
        scale: float,
        soft_cap: float | None = None,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Causal attention of `queries` [tokens, heads, head_dim] over the cache -> [tokens, heads * head_dim].

        The rows' own keys and values are already stored. With a window w (part of `plan`) the row at
        position p sees keys p - w + 1 .. p. Scores are `scale * q.k`, then `soft_cap * tanh(s / soft_cap)`,
        then plus `alibi_slopes[head] * (key position - p)`; softmax is taken in float32. A row's result
        depends on its own sequence only, whatever blocks of others contain.
        """
        ...


class PackedLayer(Protocol):
    """The weights of a linear layer in an implementation's own layout, filled while a checkpoint is read."""

    @property
    def bytes(self) -> int: ...

    def pack(self, weight: torch.Tensor, first: int = 0) -> None:
        """Take `weight` [rows, in], of any strides and float dtype, as rows first ... of the layer."""
        ...

    def set_bias(self, bias: torch.Tensor, first: int = 0) -> None: ...

    def finish(self) -> None:
        """All rows have been packed."""
        ...

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """The weights of rows `ids` [count] after rounding, [count, in] float32."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, in] -> [tokens, out] of the same dtype."""
        ...

    def run(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """The same, written to `out` [tokens, out] float32."""
        ...


class RunProgram(Protocol):
    def __call__(
        self, token_ids: torch.Tensor, paging: Paging, cache: KVCache | None, tables: Tables = ()
    ) -> torch.Tensor:
        """token_ids [tokens] int64 -> the program's result [tokens, width] float32."""
        ...

    def profile(self) -> dict[str, float]:
        """Seconds that one thread has spent in each kind of operation, and waiting, since the first call of this."""
        ...


class Vocabulary(Protocol):
    """Work on rows of logits [rows, vocab] float32. A row's result depends on that row alone, bit for bit."""

    def rank(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and ids [rows, count] of the best by (value descending, id ascending); a NaN is before all."""
        ...

    def rank_and_mass(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`rank`, and the `log_mass` of each row."""
        ...

    def best_and_mass(self, logits: torch.Tensor) -> tuple[list[int], list[float]]:
        """The first id of `rank` and the `log_mass` of each row."""
        ...

    def log_mass(self, logits: torch.Tensor, best: torch.Tensor, divisors: torch.Tensor | None = None) -> torch.Tensor:
        """log(sum(exp(logits / divisor - best logit / divisor))) [rows] float64; NaN if the best is not finite.

        best: the ids [rows] of the best logits; divisors [rows] float32. Relative to the best logit, since
        huge logits would swallow it.
        """
        ...

    def pick(
        self, logits: torch.Tensor, uniform: torch.Tensor, divisors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From softmax(logits / divisor) the first id whose cumulative probability exceeds `uniform` [rows] float64.

        ids [rows] int64 and their log-probabilities [rows] float64, NaN where no token can be picked.
        """
        ...


class Native(Protocol):
    """What an implementation offers beyond single operations: packed weights and whole steps in one call."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def pack(
        self,
        format: str,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        activations: str = "int8",
    ) -> PackedLayer:
        """An empty layer. format: float32, bfloat16, float16, int8, int6 or int4.

        activations: what the last three round activations to by row and group, int8, or float32 for not at all.
        """
        ...

    @property
    def weight_bytes(self) -> int:
        """Memory taken by packed layers."""
        ...

    def compile(self, program: Program) -> RunProgram: ...


Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Ops:
    """One implementation of everything a decoder computes. All outputs are new tensors unless said."""

    block_size: int
    """Tokens of one block of the KV cache."""
    embedding: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(ids [tokens] int64, table [rows, dim]) -> [tokens, dim]"""
    linear: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    """(x [tokens, in], weight [out, in], bias [out] or None) -> [tokens, out]"""
    add: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(residual, x) -> their sum; may be written into `residual`"""
    scale: Callable[[torch.Tensor, float], torch.Tensor]
    """(x, factor) -> x * factor; may be written into `x`"""
    soft_cap: Callable[[torch.Tensor, float], torch.Tensor]
    """(x, cap) -> cap * tanh(x / cap); may be written into `x`"""
    rms_norm: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    """(x [tokens, dim], scale [dim], eps): x / sqrt(mean(x^2) + eps) * scale, the mean in float32; `scale` may
    be float32 where x is not, and is then not rounded"""
    layer_norm: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]
    """(x [tokens, dim], scale [dim], bias [dim] or None, eps)"""
    rotary: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """(x [tokens, heads, head_dim], cos, sin [tokens, rotary_dim / 2] float32): rotates the pairs
    (x[i], x[i + rotary_dim / 2]) of each head, passes the rest through"""
    activations: Mapping[str, Activation]
    """name as in Hugging Face configs -> x [tokens, inner] -> [tokens, inner]"""
    gated_activations: Mapping[str, Activation]
    """name -> [gate | up] [tokens, 2 * inner] -> activation(gate) * up [tokens, inner]"""
    allocate_cache: AllocateCache
    cache_bytes: Callable[[CacheShape, int], int]
    """(shape, num_blocks) -> bytes `allocate_cache` takes"""
    store_kv: StoreKV
    plan_attention: PlanAttention
    attention: Attention
    kernels: Mapping[str, str]
    """Operation -> implementation chosen, for the log and `EngineInfo`."""
    native: Native | None = None
    """Where there is one, linear layers are packed and decoders compiled; else Python calls each operation."""


def select(
    device: torch.device, dtype: torch.dtype, block_size: int | None = None, *, threads: int | None = None
) -> Ops:
    """The best implementation of each operation for tensors of `dtype` on `device`.

    threads: how many the native kernels of a CPU may use; None: reference operations only.
    """
    from tgi.kernels import cpu, reference  # here, since implementations import this module's types

    if device.type == "cpu" and threads is not None and block_size in (None, cpu.BLOCK_SIZE) and dtype in cpu.DTYPES:
        ops = cpu.make_ops(threads)
        if ops is not None:
            return ops
    return reference.make_ops(block_size or DEFAULT_BLOCK_SIZE)
