"""The program of a decoder-only model.

    tokens -> embedding -> layer * n -> norm -> head (-> soft cap)

    embedding       row [* scale] [+ row of its position] [-> norm]
    layer           x = x + [norm] attention(norm(x));  x = x + [norm] feedforward(norm(x))
    parallel layer  x = x + [norm] attention(norm(x)) + [norm] feedforward(norm(x))

In brackets: only where the spec says so. Imports no torch.
"""

from __future__ import annotations

from tgi.kernels.program import (
    Activate,
    Add,
    Attention,
    CacheLayer,
    Embed,
    Gate,
    LayerNorm,
    Linear,
    Logits,
    Op,
    Program,
    RmsNorm,
    Rotary,
    Scale,
    StoreKV,
)
from tgi.kernels.rope_spec import RopeSpec
from tgi.kernels.weight import Vector, Weight
from tgi.models.passes.fuse import fuse_sums
from tgi.models.spec import AttentionSpec, FeedForwardSpec, LayerSpec, ModelSpec


def build(spec: ModelSpec) -> Program:
    """The step of this model, ready for a backend."""
    return fuse_sums(_Builder(spec).program())


class _Builder:
    """Writes the operations in order. Values are used again from layer to layer."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.ropes: list[RopeSpec] = list(dict.fromkeys(a.attention.rope for a in spec.layers if a.attention.rope))
        self.values: dict[str, int] = {}
        self.ops: list[Op] = []

    def program(self) -> Program:
        spec, names = self.spec, self.spec.names
        table = Weight((names.embedding,), (spec.vocab_size,), spec.hidden_size, role="table")
        head = Weight((names.head,), (spec.vocab_size,), spec.hidden_size, role="head", split="rows")
        if spec.tied_head:
            table = head = Weight((names.embedding,), (spec.vocab_size,), spec.hidden_size, role="head", split="rows")
        hidden = self.value("hidden", spec.hidden_size)
        self.embedding(hidden, table)
        for number, layer in enumerate(spec.layers):
            self.layer(hidden, layer, number)
        result = self.norm("normed", hidden, names.final_norm)
        return Program(
            values=self.values,
            ops=tuple(self.ops),
            result=result,
            logits=Logits(head, spec.logit_soft_cap),
            ropes=tuple(self.ropes),
            cache=tuple(CacheLayer(layer.attention.kv_heads, layer.attention.head_dim) for layer in spec.layers),
            max_positions=spec.max_positions,
            positions_go_on=spec.positions_go_on,
        )

    def embedding(self, hidden: str, table: Weight) -> None:
        spec, names = self.spec, self.spec.names
        self.ops.append(Embed(hidden, table))
        if names.positions is not None:
            positions = Weight((names.positions,), (spec.max_positions,), spec.hidden_size, role="table")
            rows = self.value("positions", spec.hidden_size)
            self.ops += [Embed(rows, positions, by_position=True), Add(hidden, rows)]
        if spec.embedding_scale != 1:
            self.ops.append(Scale(hidden, spec.embedding_scale))
        if names.embedding_norm is not None:
            self.norm(hidden, hidden, names.embedding_norm)

    def layer(self, hidden: str, layer: LayerSpec, number: int) -> None:
        names = self.spec.names

        def feedforward() -> str:
            normed = self.norm("normed", hidden, names.feedforward_norm.format(number))
            return self.inner(normed, layer.feedforward, number)

        normed = self.norm("normed", hidden, names.attention_norm.format(number))
        attended = self.attention(normed, layer.attention, number)
        out = self.projection(names.attention_out, number, layer.attention.query_size, layer.attention.out_bias)
        down = self.projection(names.down, number, layer.feedforward.inner, layer.feedforward.bias)
        if layer.parallel:  # the second norm reads the residual before attention is added
            inner = feedforward()
            self.add_product(hidden, attended, out, names.attention_post_norm, number)
        else:
            self.add_product(hidden, attended, out, names.attention_post_norm, number)
            inner = feedforward()
        self.add_product(hidden, inner, down, names.feedforward_post_norm, number)

    def attention(self, x: str, spec: AttentionSpec, number: int) -> str:
        """Attention over x, before its output projection."""
        names, hidden = self.spec.names, self.spec.hidden_size
        parts = (spec.query_size, spec.kv_size, spec.kv_size)
        weight = Weight(
            tuple(name.format(number) for name in names.qkv),
            parts,
            hidden,
            bias=spec.qkv_bias,
            transposed=names.transposed,
            groups=spec.kv_heads if names.qkv_by_head else 1,
            split="rows",
        )
        qkv = self.value("qkv", sum(parts))
        self.ops.append(Linear(qkv, x, weight))
        if spec.rope is not None:
            rope = self.ropes.index(spec.rope)
            self.ops.append(Rotary(qkv, spec.heads + spec.kv_heads, spec.head_dim, rope=rope))
        keys, values = spec.query_size, spec.query_size + spec.kv_size
        self.ops.append(StoreKV(qkv, number, spec.kv_heads, spec.head_dim, keys, values))
        attended = self.value("attended", spec.query_size)
        self.ops.append(
            Attention(
                attended,
                qkv,
                number,
                spec.heads,
                spec.kv_heads,
                spec.head_dim,
                spec.scale,
                spec.window,
                spec.soft_cap,
                spec.alibi,
            )
        )
        return attended

    def inner(self, x: str, spec: FeedForwardSpec, number: int) -> str:
        """activation(up(x)), or activation(gate(x)) * up(x) with gate and up as one product."""
        names = self.spec.names
        weight = Weight(
            tuple(name.format(number) for name in names.up),
            (spec.inner, spec.inner) if spec.gated else (spec.inner,),
            self.spec.hidden_size,
            bias=spec.bias,
            transposed=names.transposed,
            split="rows",
        )
        up, inner = self.value("up", weight.rows), self.value("inner", spec.inner)
        self.ops.append(Linear(up, x, weight))
        self.ops.append((Gate if spec.gated else Activate)(inner, up, spec.activation))
        return inner

    def projection(self, name: str, number: int, columns: int, bias: bool) -> Weight:
        """A matrix back to the residual, whose columns ranks share."""
        names, rows = self.spec.names, (self.spec.hidden_size,)
        return Weight((name.format(number),), rows, columns, bias, names.transposed, split="columns")

    def add_product(self, hidden: str, x: str, weight: Weight, post_norm: str | None, number: int) -> None:
        """hidden += [norm] (weight x)"""
        product = self.value("product", self.spec.hidden_size)
        self.ops.append(Linear(product, x, weight))
        if post_norm is not None:
            self.norm(product, product, post_norm.format(number))
        self.ops.append(Add(hidden, product))

    def norm(self, out: str, x: str, name: str) -> str:
        spec, out = self.spec, self.value(out, self.spec.hidden_size)
        scale = Vector(f"{name}.weight", spec.hidden_size, spec.norm_offset)
        if spec.norm == "rms":
            self.ops.append(RmsNorm(out, x, scale, spec.norm_eps))
        else:
            self.ops.append(LayerNorm(out, x, scale, Vector(f"{name}.bias", spec.hidden_size), spec.norm_eps))
        return out

    def value(self, name: str, width: int) -> str:
        """The value of this name, or one of its own for layers in which it is not as wide."""
        if self.values.setdefault(name, width) != width:
            name = f"{name}_{width}"
            self.values[name] = width
        return name
