"""`Decoder`: one decoder-only transformer, built from a `DecoderSpec`.

Owns the wiring. All branches are taken while building; `forward` is a straight line of operations of
`Ops` over explicit inputs, with no state but the weights, so that it can be recorded as a flat list.
Built by the loader, run by `engine.runner`.

    tokens -> embedding -> block * n -> norm -> head (-> soft cap)

    embedding       row [+ position] [* scale] [-> norm]
    block           x = x + [norm] attention(norm(x));  x = x + [norm] feedforward(norm(x))
    parallel block  x = x + [norm] attention(norm(x)) + [norm] feedforward(norm(x))

In brackets: only where the spec says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from tgi.kernels.ops import CacheShape, KVCache, Paging
from tgi.layers.attention import Attention, Step
from tgi.layers.embedding import AddPositions, Embed, Embedding, Normed, Scaled
from tgi.layers.feedforward import FeedForward
from tgi.layers.linear import Build, make_linear, make_table
from tgi.layers.norm import Norm, make_norm
from tgi.layers.rotary import NoRotary, Rotary, make_rotary
from tgi.models.spec import DecoderSpec
from tgi.quant.base import LinearCall, Table


class Decoder:
    """A model in place on its device.

    `forward` and `logits` are called under `torch.inference_mode`. Rows are those of `Paging`.
    """

    def __init__(self, spec: DecoderSpec, build: Build) -> None:
        self.spec, self.ops = spec, build.ops
        self.device, self.dtype = build.device, build.dtype
        name = spec.names.embedding
        self.table = make_table(build, name, spec.vocab_size, spec.hidden_size, head=spec.tied_head)
        self.embed = _embedding(spec, build, self.table)
        self.rotary = make_rotary(spec.rope, build.ops, build.device)
        kind = ParallelBlock if spec.parallel else Block
        self.layers = [kind(spec, build, self.rotary, layer) for layer in range(spec.num_layers)]
        self.norm = _norm(spec, build, spec.names.final_norm)
        self.head = self.table if spec.tied_head else _head(spec, build)
        cap = spec.logit_soft_cap
        self._finish = torch.Tensor.float if cap is None else partial(_capped, build.ops.soft_cap, cap)
        self.windows = tuple(dict.fromkeys(spec.windows))

    @property
    def cache_shape(self) -> CacheShape:
        """What `Ops.allocate_cache` needs for this model, keys and values in its serving dtype."""
        return CacheShape(self.spec.num_layers, self.spec.num_kv_heads, self.spec.head_dim, self.dtype)

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        """token_ids [tokens] int64 -> hidden states [tokens, hidden_size] after the last norm.

        Writes the rows' keys and values to `paging.slots` of `cache`.
        """
        plans = {window: self.ops.plan_attention(paging, window) for window in self.windows}
        step = Step(paging, cache, self.rotary.angles(paging.positions), plans)
        hidden = self.embed(token_ids, paging.positions)
        for layer in self.layers:
            hidden = layer(hidden, step)
        return self.norm(hidden)

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """hidden [rows, hidden_size] -> logits [rows, vocab_size] float32

        out: memory of that shape on a CPU, which an implementation may use for the result.
        """
        return self._finish(self.head(hidden))


class Block:
    """One pre-norm layer. The post norms pass through what they get where the spec has none."""

    def __init__(self, spec: DecoderSpec, build: Build, rotary: Rotary | NoRotary, layer: int) -> None:
        names = spec.names

        def here(name: str) -> str:
            return name.format(layer)

        def norm(name: str | None) -> Norm:
            return _norm(spec, build, name and here(name))

        self.attention_norm = norm(names.attention_norm)
        self.attention = Attention(
            build,
            tuple(map(here, names.qkv)),
            here(names.attention_out),
            rotary,
            layer=layer,
            hidden=spec.hidden_size,
            heads=spec.num_heads,
            kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            scale=spec.attention_scale,
            window=spec.windows[layer],
            soft_cap=spec.attention_soft_cap,
            alibi=spec.alibi,
            qkv_bias=spec.qkv_bias,
            out_bias=spec.attention_out_bias,
            transposed=names.transposed,
            by_head=names.qkv_by_head,
        )
        self.attention_post_norm = norm(names.attention_post_norm)
        self.feedforward_norm = norm(names.feedforward_norm)
        self.feedforward = FeedForward(
            build,
            tuple(map(here, names.up)),
            here(names.down),
            hidden=spec.hidden_size,
            inner=spec.intermediate_size,
            activation=spec.activation,
            gated=spec.gated,
            bias=spec.feedforward_bias,
            transposed=names.transposed,
        )
        self.feedforward_post_norm = norm(names.feedforward_post_norm)
        self._add = build.ops.add

    def __call__(self, hidden: torch.Tensor, step: Step) -> torch.Tensor:
        attended = self.attention_post_norm(self.attention(self.attention_norm(hidden), step))
        hidden = self._add(hidden, attended)
        return self._add(hidden, self.feedforward_post_norm(self.feedforward(self.feedforward_norm(hidden))))


class ParallelBlock(Block):
    """A layer whose attention and feed-forward read the same residual."""

    def __call__(self, hidden: torch.Tensor, step: Step) -> torch.Tensor:
        attended = self.attention_post_norm(self.attention(self.attention_norm(hidden), step))
        fed = self.feedforward_post_norm(self.feedforward(self.feedforward_norm(hidden)))
        return self._add(self._add(hidden, attended), fed)


def _embedding(spec: DecoderSpec, build: Build, table: Table) -> Embedding:
    embed: Embedding = Embed(table)
    if spec.names.positions is not None:
        positions = make_table(build, spec.names.positions, spec.max_positions, spec.hidden_size)
        embed = AddPositions(build, embed, positions)
    if spec.embedding_scale != 1:
        embed = Scaled(build, embed, spec.embedding_scale)
    if spec.embedding_norm:
        embed = Normed(embed, _norm(spec, build, spec.names.embedding_norm))
    return embed


def _norm(spec: DecoderSpec, build: Build, name: str | None) -> Norm:
    return make_norm(build, spec.norm, name, spec.hidden_size, spec.norm_eps, spec.norm_offset)


def _head(spec: DecoderSpec, build: Build) -> LinearCall:
    return make_linear(build, (spec.names.head,), spec.hidden_size, (spec.vocab_size,), bias=False, head=True)


def _capped(soft_cap: Callable[[torch.Tensor, float], torch.Tensor], cap: float, logits: torch.Tensor) -> torch.Tensor:
    return soft_cap(logits.float(), cap)
