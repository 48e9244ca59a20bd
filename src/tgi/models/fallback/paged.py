"""A class whose attention can be plugged in: packed rows, our paged cache, any mix of chunks in a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tgi.kernels.outline import Outline
from tgi.kernels.types import KVCache, Paging
from tgi.models.fallback.attention import PagedAttention
from tgi.models.fallback.masks import Masks, UnhonouredError
from tgi.models.fallback.module import Divided
from tgi.models.fallback.source import outline_of


class PagedStep:
    """See `CompiledStep`. Raises UnhonouredError where the class does not go this way."""

    shares_blocks = True

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        if not getattr(type(model), "_supports_attention_backend", False):
            raise UnhonouredError("its class does not take other attention functions")
        self.model, self.device, self.dtype = model, device, dtype
        self._before = model.config._attn_implementation
        self._attention = PagedAttention(block_size)
        self._masks = Masks(outline_of(model, model.config).max_positions)
        self._divided = Divided(model)
        self._plug_in()
        ids = torch.arange(6, device=device)[None]
        self._run(ids, torch.arange(6, device=device), None, None)
        self.program: Outline = outline_of(model, model.config, tuple(self._attention.layers))
        self._check_calls()

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.model)

    @property
    def hidden_size(self) -> int:
        return self.program.hidden_size if self._divided.split else 0

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        raise AssertionError("there is no encoder")

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        hidden = self._run(token_ids[None], paging.positions, paging, cache)
        if self._attention.calls != list(range(len(self._attention.layers))):
            raise UnhonouredError("attention layers that are computed in some steps only")
        return hidden

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return self._divided.head(hidden)

    def profile(self) -> dict[str, float]:
        return {}

    def unplug(self) -> None:
        """Give the class its own attention back."""
        self.model.set_attn_implementation(self._before)

    def _plug_in(self) -> None:
        from transformers import AttentionInterface, AttentionMaskInterface

        name = f"tgi_paged_{id(self):x}"
        AttentionInterface.register(name, self._attention)
        AttentionMaskInterface.register(name, self._masks)
        try:
            self.model.set_attn_implementation(name)
        except Exception as error:
            raise UnhonouredError(f"its attention cannot be set ({type(error).__name__})") from error
        if self.model.config._attn_implementation != name:
            raise UnhonouredError("its attention cannot be set")

    def _run(
        self, ids: torch.Tensor, positions: torch.Tensor, paging: Paging | None, cache: KVCache | None
    ) -> torch.Tensor:
        self._masks.restart()
        self._attention.begin(paging, cache)
        # With a mask transformers does not look for packed sequences itself: it sees one, of rows that all count.
        hidden, _ = self._divided.body(ids, positions[None], mask=torch.ones_like(ids))
        return hidden[0]

    def _check_calls(self) -> None:
        """Our function is called once for each attention layer. Raises UnhonouredError."""
        called, there = len(self._attention.layers), sum(1 for _ in attention_modules(self.model))
        if called == 0:
            raise UnhonouredError("its attention passes the attention interface by")
        if self._attention.calls != list(range(called)):
            raise UnhonouredError("an attention layer calls the attention interface more than once")
        if there != called:
            raise UnhonouredError(f"{there - called} of {there} attention layers pass the attention interface by")


def attention_modules(model: Any) -> Iterator[Any]:
    """The outermost modules that are called an attention, but for linear ones, which keep a state."""

    def walk(module: Any) -> Iterator[Any]:
        for child in module.children():
            name = type(child).__name__
            if "Attention" in name and "Norm" not in name and any(True for _ in child.parameters()):
                yield child
            else:
                yield from walk(child)

    yield from walk(model)


def weight_bytes(model: Any) -> int:
    """Of parameters and buffers, each once."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
