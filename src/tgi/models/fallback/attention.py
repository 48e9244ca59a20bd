"""transformers' attention function over our paged cache: packed rows [1, tokens] of several sequences.

Owns which arguments it honours. Every other one that says something raises `UnhonouredError`, so that a model that
needs it takes another way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tgi.kernels.program import CacheLayer
from tgi.kernels.reference.attention import Plan, Span, attention, plan_attention
from tgi.kernels.types import KVCache, Paging
from tgi.models.fallback.masks import Rule, UnhonouredError

SILENT = frozenset(
    """
    cache_position position_embeddings use_cache output_attentions output_hidden_states output_router_logits return_dict
    logits_to_keep cu_seq_lens_q cu_seq_lens_k max_length_q max_length_k num_items_in_batch layer_idx deterministic
    """.split()  # noqa: SIM905
)
"""Arguments that do not change what attention gives: they ask for other results, or repeat what the rows say."""


class PagedAttention:
    """One function for all layers of one model, called with the layer's module."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._numbers: dict[int, int] = {}
        self.layers: list[CacheLayer] = []
        """What the layers keep, in the order of their first call."""
        self.calls: list[int] = []
        """Layers that were computed in this forward pass."""
        self._step: tuple[Paging, KVCache] | None = None
        self._plans: dict[int | None, Plan] = {}

    def begin(self, paging: Paging | None, cache: KVCache | None) -> None:
        """A forward pass begins; without a cache only what layers keep is noted."""
        self._step = None if paging is None or cache is None else (paging, cache)
        self._plans, self.calls = {}, []

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """query [1, heads, tokens, head_dim], key and value [1, kv_heads, tokens, ...] -> [1, tokens, heads, ...]."""
        number = self._number(module, key, value)
        self.calls.append(number)
        rule = self._rule(attention_mask, more)
        soft_cap, sinks = self._honour(more)
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        if self._step is None:
            return query.new_zeros((1, query.shape[2], query.shape[1], value.shape[-1])), None
        paging, cache = self._step
        width = self.layers[number].head_dim
        queries, keys, values = (_rows(part, width) for part in (query, key, value))
        cache.keys[number].flatten(0, 1)[paging.slots] = keys.to(cache.keys[number].dtype)
        cache.values[number].flatten(0, 1)[paging.slots] = values.to(cache.values[number].dtype)
        if rule.allows is None and sinks is None:
            plan = self._plans.get(rule.window)
            if plan is None:
                plan = plan_attention(self._block_size, paging, Span(rule.window))
                self._plans[rule.window] = plan
            out = attention(queries, cache, number, plan, scale, soft_cap).view(*queries.shape)
        else:
            out = _written_out(queries, cache, number, paging, rule, scale, soft_cap, sinks)
        return out[None, :, :, : value.shape[-1]], None

    def _number(self, module: Any, key: torch.Tensor, value: torch.Tensor) -> int:
        """The module's layer of the cache."""
        number = self._numbers.get(id(module))
        if number is None:
            if self._step is not None:
                raise UnhonouredError("an attention layer that was not there before")
            number = self._numbers[id(module)] = len(self.layers)
            self.layers.append(CacheLayer(key.shape[1], max(key.shape[-1], value.shape[-1])))
        return number

    def _rule(self, mask: torch.Tensor | None, more: dict[str, Any]) -> Rule:
        """What the mask says; without one the window that is asked for."""
        if mask is None:
            return Rule(more.get("sliding_window"))
        rule = getattr(mask, "rule", None)
        if rule is None:
            raise UnhonouredError("attention_mask, which the model builds itself")
        return rule

    def _honour(self, more: dict[str, Any]) -> tuple[float | None, torch.Tensor | None]:
        """Soft cap and sinks; raises for what says something else."""
        soft_cap, sinks = more.pop("softcap", None), None
        for name in ("s_aux", "sinks"):
            given = more.pop(name, None)
            sinks = given if sinks is None else sinks
        for name, value in more.items():
            if value is None or value is False or name in SILENT or name == "sliding_window":
                continue
            if name == "is_causal" and value is True:
                continue
            if name == "position_ids" and self._same_positions(value):
                continue
            raise UnhonouredError(f"`{name}`")
        if more.get("is_causal") is False:
            raise UnhonouredError("`is_causal` false")
        return soft_cap, sinks

    def _same_positions(self, value: Any) -> bool:
        if self._step is None:
            return True
        return isinstance(value, torch.Tensor) and bool((value == self._step[0].positions).all())


def _rows(part: torch.Tensor, width: int) -> torch.Tensor:
    """[1, heads, tokens, n] -> [tokens, heads, width], with zeros behind."""
    rows = part[0].transpose(0, 1)
    return F.pad(rows, (0, width - rows.shape[-1])) if rows.shape[-1] < width else rows


def _written_out(
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    paging: Paging,
    rule: Rule,
    scale: float,
    soft_cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with scores written out in float32, sequence by sequence: for rules and sinks of any kind.

    sinks [heads]: logits that take a share of the softmax and give nothing.
    """
    out, row = torch.empty_like(queries), 0
    heads = queries.shape[1]
    for number, (count, context) in enumerate(zip(paging.query_lens, paging.context_lens, strict=True)):
        blocks = paging.block_tables[number, : -(-context // cache.block_size)]
        keys = cache.keys[layer][blocks].flatten(0, 1)[:context].float()  # [keys, kv_heads, head_dim]
        values = cache.values[layer][blocks].flatten(0, 1)[:context].float()
        groups = heads // keys.shape[1]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        rows = slice(row, row + count)
        scores = torch.einsum("qhd,khd->hqk", queries[rows].float(), keys) * scale
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        seen = rule.visible(paging.positions[rows], torch.arange(context, device=keys.device))
        scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            column = sinks.float().reshape(-1, 1, 1).expand(heads, count, 1)
            weights = torch.cat((scores, column), -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        out[rows] = torch.einsum("hqk,khd->qhd", weights, values).to(out.dtype)
        row += count
    return out
