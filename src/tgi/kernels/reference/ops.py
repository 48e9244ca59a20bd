"""The arithmetic of the reference backend in torch, but for attention and the angles of rotation.

Tests compare every other implementation with these functions. Shapes: rows are [tokens, numbers].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F

from tgi.kernels.program import Logits, Scale
from tgi.kernels.rotation import rotate

ActivationFunction: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def embedding(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, table)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.linear(x, weight, bias)


def add(residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return residual + x


def scale(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x.mul_(factor)


def scale_factor(op: Scale, dtype: torch.dtype, learned: torch.Tensor | None) -> float:
    """What `Scale` multiplies with; learned [1]."""
    factor = torch.tensor(op.factor, dtype=dtype).item() if op.rounded else op.factor
    return factor if learned is None else factor * learned.item()


def finish_logits(logits: torch.Tensor, head: Logits) -> torch.Tensor:
    """What the head does after its product, in place."""
    if head.scale != 1:
        logits.mul_(head.scale)
    return logits if head.soft_cap is None else soft_cap(logits, head.soft_cap)


def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    """Bello et al. 2016; in place, since logits are the largest tensor of a step."""
    return x.div_(cap).tanh_().mul_(cap)


def rms_norm(x: torch.Tensor, scale: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Zhang and Sennrich 2019. scale [width], or [heads, width] for x [tokens, heads, width]."""
    if scale is None:
        return F.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype)
    if scale.dim() > 1:
        return (F.rms_norm(x.float(), (x.shape[-1],), None, eps) * scale.float()).to(x.dtype)
    if scale.dtype != x.dtype:
        return F.rms_norm(x.float(), (x.shape[-1],), scale.float(), eps).to(x.dtype)
    return F.rms_norm(x, (x.shape[-1],), scale, eps)


def layer_norm(x: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Ba et al. 2016. scale and bias as in `rms_norm`."""
    if scale is not None and (scale.dim() > 1 or scale.dtype != x.dtype):
        normed = F.layer_norm(x.float(), (x.shape[-1],), None, None, eps) * scale.float()
        return (normed if bias is None else normed + bias.float()).to(x.dtype)
    return F.layer_norm(x, (x.shape[-1],), scale, bias, eps)


def rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, adjacent: bool = False) -> torch.Tensor:
    """Su et al. 2021, in float32, rounded once.

    x [tokens, heads, head_dim]; cos, sin [tokens, half] float32. Rotates the pairs (x[i], x[i + half]) of each head as
    Hugging Face checkpoints have them, or (x[2i], x[2i + 1]); the rest of a head passes through.
    """
    half = cos.shape[-1]
    axis, sizes = (-1, (half, 2)) if adjacent else (-2, (2, half))
    pairs = x[..., : 2 * half].float().unflatten(-1, sizes)  # [tokens, heads, 2, half] or [tokens, heads, half, 2]
    signed = torch.stack((-sin, sin), dim=axis)[:, None]
    turned = torch.addcmul(pairs * cos[:, None].unsqueeze(axis), pairs.flip(axis), signed).flatten(-2).to(x.dtype)
    return turned if 2 * half == x.shape[-1] else torch.cat((turned, x[..., 2 * half :]), dim=-1)


def relu_squared(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x).square()


def xielu(x: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Huang and Schlag 2024: a x^2 + beta x above 0, b (exp(min(x, eps)) - 1 - x) + beta x below.

    parameters: p, n, beta, eps; a = softplus(p), b = beta + softplus(n).
    """
    p, n, beta, eps = parameters.float()
    wide = x.float()
    below = (torch.expm1(wide.minimum(eps)) - wide) * (beta + F.softplus(n))
    return (torch.where(wide > 0, F.softplus(p) * wide * wide, below) + beta * wide).to(x.dtype)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def gated(activation: ActivationFunction, gate_up: torch.Tensor, limit: float | None = None) -> torch.Tensor:
    """activation(gate) * up; limit: as in `program.Experts`."""
    gate, up = gate_up.chunk(2, dim=-1)
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit) + 1
    return activation(gate) * up


_TANH_GELU = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, ActivationFunction] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": F.relu,
    "relu2": relu_squared,
    "quick_gelu": quick_gelu,
}


def round_activations(x: torch.Tensor, group: int, *, rotated: bool = False) -> torch.Tensor:
    """x [tokens, columns] in int8 by row and group of columns: round(x / scale) * scale, scale = max |x| / 127.

    rotated: so are the rows of `kernels.rotation`, which are then rotated back.
    """
    columns, x = x.shape[-1], x.float()
    grouped = F.pad(rotate(x) if rotated else x, (0, -columns % group)).unflatten(-1, (-1, group))
    peak = grouped.abs().amax(-1, keepdim=True)
    inverse = torch.where(peak > 0, 127.0 / peak, 0.0)
    codes = (grouped * inverse).round().clamp(-127, 127)
    rounded = (codes * (peak / 127.0)).flatten(-2)[..., :columns]
    return rotate(rounded) if rotated else rounded
