"""`CompiledDecoder`: a decoder whose step is one call of the native kernels.

Owns the way from the modules of a `Decoder` to a `Program`: the same wiring, as a list. Built by the loader
where `Ops.native` is there.
"""

from __future__ import annotations

import torch

from tgi.kernels.ops import KVCache, PackedLayer, Paging
from tgi.kernels.program import ACTIVATIONS, Code, Program
from tgi.layers.embedding import AddPositions, Embed, Embedding, Normed, Scaled
from tgi.layers.linear import Build
from tgi.layers.norm import LayerNorm, NoNorm, Norm, RmsNorm
from tgi.models.decoder import Block, Decoder
from tgi.models.spec import DecoderSpec
from tgi.quant.base import LinearCall, Table
from tgi.quant.packed import PackedTable

ANGLES = 4096
"""Positions by which the tables of angles grow."""


class CompiledDecoder(Decoder):
    """Called as `Decoder` is; hidden states are float32 whatever the weights are."""

    def __init__(self, spec: DecoderSpec, build: Build) -> None:
        super().__init__(spec, build)
        assert build.ops.native is not None
        self.program = build.ops.native.compile(make_program(self))
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._head = self.head.layer if isinstance(self.head, PackedTable) else _packed(self.head)

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        return self.program(token_ids, paging, cache, self._angles(max(paging.context_lens)))

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            out = torch.empty((len(hidden), self.spec.vocab_size))
        self._head.run(hidden, out)
        return self._finish(out)

    def _angles(self, positions: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """cos and sin of every position up to the longest context so far."""
        if self.spec.rope is not None and (not self._tables or len(self._tables[0][0]) < positions):
            count = min(-(-positions // ANGLES) * ANGLES, max(self.spec.max_positions, positions))
            angles = self.rotary.angles(torch.arange(count))
            assert angles is not None
            self._tables = [(angles[0].contiguous(), angles[1].contiguous())]
        return self._tables


def make_program(decoder: Decoder) -> Program:
    """The step of this decoder as a list of operations."""
    spec = decoder.spec
    program = Program(spec.num_heads, spec.num_kv_heads, spec.head_dim)
    hidden, normed = program.buffer(spec.hidden_size), program.buffer(spec.hidden_size)
    qkv = program.buffer(spec.query_size + 2 * spec.kv_size)
    attended = program.buffer(spec.query_size)
    up = program.buffer(spec.intermediate_size * (2 if spec.gated else 1))
    inner = program.buffer(spec.intermediate_size)
    _embed(program, hidden, normed, decoder.embed)
    for block in decoder.layers:
        _norm(program, normed, hidden, block.attention_norm)
        _attention(program, spec, block, normed, qkv, attended)
        if spec.parallel:  # the second norm reads the residual before attention is added
            _norm(program, normed, hidden, block.feedforward_norm)
            program.linear(up, normed, _packed(block.feedforward.up))
        _add(program, hidden, attended, block.attention.out, block.attention_post_norm, normed)
        if not spec.parallel:
            _norm(program, normed, hidden, block.feedforward_norm)
            program.linear(up, normed, _packed(block.feedforward.up))
        code = Code.GATED if spec.gated else Code.ACTIVATION
        program.add(code, inner, up, width=spec.intermediate_size, a=ACTIVATIONS[spec.activation])
        _add(program, hidden, inner, block.feedforward.down, block.feedforward_post_norm, normed)
    _norm(program, normed, hidden, decoder.norm)
    program.result = normed
    return program


def _embed(program: Program, output: int, spare: int, embed: Embedding) -> None:
    """The embedding and the steps around it; spare: a buffer as wide as the output."""
    width = program.widths[output]
    if isinstance(embed, Embed):
        program.add(Code.EMBED, output, weight=_table(embed.table))
        return
    assert isinstance(embed, AddPositions | Scaled | Normed)
    _embed(program, output, spare, embed.inner)
    if isinstance(embed, AddPositions):
        program.add(Code.EMBED, spare, a=1, weight=_table(embed.positions))
        program.add(Code.ADD, output, spare, width=width)
    elif isinstance(embed, Scaled):
        program.add(Code.SCALE, output, width=width, x=embed.factor)
    else:
        _norm(program, output, output, embed.norm)


def _add(program: Program, hidden: int, input: int, layer: LinearCall, post_norm: Norm, spare: int) -> None:
    """hidden += post_norm(layer(input))"""
    if isinstance(post_norm, NoNorm):
        program.linear(hidden, input, _packed(layer), add=True)
        return
    program.linear(spare, input, _packed(layer))
    _norm(program, spare, spare, post_norm)
    program.add(Code.ADD, hidden, spare, width=program.widths[hidden])


def _attention(program: Program, spec: DecoderSpec, block: Block, normed: int, qkv: int, attended: int) -> None:
    attention = block.attention
    layer, values = attention.layer, spec.query_size + spec.kv_size
    program.linear(qkv, normed, _packed(attention.qkv))
    if spec.rope is not None:
        program.rotary(qkv, spec.num_heads + spec.num_kv_heads)
    program.add(Code.STORE_KV, qkv, qkv, a=layer, b=spec.query_size, c=values)
    cap, window = attention.soft_cap or 0.0, attention.window or 0
    program.add(Code.ATTENTION, attended, qkv, a=layer, c=window, x=attention.scale, y=cap, weight=attention.slopes)


def _norm(program: Program, output: int, input: int, norm: Norm) -> None:
    if isinstance(norm, RmsNorm):
        program.rms_norm(output, input, norm.scale, norm.eps)
    else:
        assert isinstance(norm, LayerNorm)
        program.layer_norm(output, input, norm.scale, norm.bias, norm.eps)


def _packed(layer: LinearCall) -> PackedLayer:
    return layer  # type: ignore[return-value]  # `quant.packed` made it


def _table(table: Table) -> PackedLayer:
    assert isinstance(table, PackedTable)
    return table.layer
