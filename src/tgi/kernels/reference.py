"""The reference operations in torch: the definition of correct, on every device.

Owns the arithmetic of everything but attention, and the plain cache layout
[num_blocks, block_size, kv_heads, head_dim]; attention is in `reference_attention`. Chosen by
`ops.select`; tests compare every other implementation with this one.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from tgi.kernels.ops import Activation, CacheShape, KVCache, Ops
from tgi.kernels.reference_attention import attention, plan_attention


def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, table)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.linear(x, weight, bias)


def add(residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return residual + x


def scale(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x.mul_(factor)


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """Bello et al. 2016; in place, since logits are the largest tensor of a step."""
    return x.div_(cap).tanh_().mul_(cap)


def rms_norm(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """Zhang and Sennrich 2019."""
    if scale.dtype != x.dtype:
        return F.rms_norm(x.float(), (x.shape[-1],), scale.float(), eps).to(x.dtype)
    return F.rms_norm(x, (x.shape[-1],), scale, eps)


def layer_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    return F.layer_norm(x, (x.shape[-1],), scale, bias, eps)


def rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Su et al. 2021 in the half-split order of Hugging Face checkpoints; in float32, rounded once."""
    half = cos.shape[-1]
    pairs = x[..., : 2 * half].float().unflatten(-1, (2, half))  # [tokens, heads, 2, half]
    signed = torch.stack((-sin, sin), dim=1)[:, None]  # [tokens, 1, 2, half]
    turned = torch.addcmul(pairs * cos[:, None, None], pairs.flip(-2), signed).flatten(-2).to(x.dtype)
    return turned if 2 * half == x.shape[-1] else torch.cat((turned, x[..., 2 * half :]), dim=-1)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def gated(activation: Activation, gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return activation(gate) * up


_TANH_GELU = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": F.relu,
    "quick_gelu": quick_gelu,
}


def _block_shape(shape: CacheShape, block_size: int) -> tuple[int, int, int]:
    return block_size, shape.num_kv_heads, shape.head_dim


def allocate_cache(block_size: int, shape: CacheShape, num_blocks: int, device: torch.device) -> KVCache:
    """Zeros, so that no NaN lurks in blocks not yet used, written here so that memory is taken at the start.

    Pages that a CPU maps only when they are first used would let resident memory grow for hours, and a
    cache that does not fit would end the process under load and not while it starts.
    """
    dims = (num_blocks, *_block_shape(shape, block_size))

    def store() -> torch.Tensor:
        return torch.empty(dims, dtype=shape.dtype, device=device).zero_()  # `zeros` may leave pages unmapped

    keys = [store() for _ in range(shape.num_layers)]
    return KVCache(shape, num_blocks, block_size, keys, [store() for _ in range(shape.num_layers)])


def cache_bytes(block_size: int, shape: CacheShape, num_blocks: int) -> int:
    return 2 * shape.num_layers * num_blocks * math.prod(_block_shape(shape, block_size)) * shape.dtype.itemsize


def store_kv(cache: KVCache, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
    for store, rows in ((cache.keys[layer], keys), (cache.values[layer], values)):
        store.view(-1, *store.shape[2:]).index_copy_(0, slots, rows.to(store.dtype))


def make_ops(block_size: int) -> Ops:
    names = (
        "embedding linear add scale soft_cap rms_norm layer_norm rotary activation gated_activation store_kv attention"
    )
    return Ops(
        block_size=block_size,
        embedding=embedding,
        linear=linear,
        add=add,
        scale=scale,
        soft_cap=soft_cap,
        rms_norm=rms_norm,
        layer_norm=layer_norm,
        rotary=rotary,
        activations=ACTIVATIONS,
        gated_activations={name: partial(gated, activation) for name, activation in ACTIVATIONS.items()},
        allocate_cache=partial(allocate_cache, block_size),
        cache_bytes=partial(cache_bytes, block_size),
        store_kv=store_kv,
        plan_attention=partial(plan_attention, block_size),
        attention=attention,
        kernels=dict.fromkeys(names.split(), "reference"),
    )
