"""The program of a decoder-only model.

    tokens -> embedding -> layer * n -> norm -> head (-> soft cap)

    embedding       row [-> projection] [* scale] [+ row of its position] [-> norm]
    layer           x = x + [norm] attention([norm] x);  x = x + [norm] feedforward([norm] x)
    parallel layer  x = x + [norm] attention([norm] x) + [norm] feedforward([norm] x)
    attention       qkv [-> clip] [-> norm of q and k] [-> rotary], then out(softmax(q k) v)

In brackets: only where the spec says so. Imports no torch.
"""

from __future__ import annotations

from tgi.kernels.program import (
    Activate,
    Add,
    Attention,
    CacheLayer,
    Clamp,
    Embed,
    Experts,
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
from tgi.models.spec import AttentionSpec, ExpertsSpec, FeedForwardSpec, LayerSpec, ModelSpec, NormSpec, QkNormSpec


def build(spec: ModelSpec) -> Program:
    """The step of this model, ready for a backend."""
    return fuse_sums(_Builder(spec).program())


class _Builder:
    """Writes the operations in order. Values are used again from layer to layer."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        ropes = (rope for layer in spec.layers for rope in (layer.attention.rope, layer.attention.query_rope))
        self.ropes: list[RopeSpec] = list(dict.fromkeys(filter(None, ropes)))
        self.values: dict[str, int] = {}
        self.ops: list[Op] = []

    def program(self) -> Program:
        spec, names = self.spec, self.spec.names
        vocabulary, width = (spec.vocab_size,), spec.embedding_size or spec.hidden_size
        table = Weight((names.embedding,), vocabulary, width, role="table")
        head = Weight((names.head,), vocabulary, width, bias=spec.head_bias, role="head", split="rows")
        if spec.tied_head:
            table = head = Weight((names.embedding,), vocabulary, width, role="head", split="rows")
        hidden = self.value("hidden", spec.hidden_size)
        self.embedding(hidden, table)
        for number, layer in enumerate(spec.layers):
            self.layer(hidden, layer, number)
        result = self.norm("normed", hidden, names.final_norm)
        if names.project_out is not None:
            result = self.linear("projected", result, Weight((names.project_out,), (width,), spec.hidden_size))
        return Program(
            values=self.values,
            ops=tuple(self.ops),
            result=result,
            logits=Logits(head, spec.logit_scale, spec.logit_soft_cap),
            ropes=tuple(self.ropes),
            cache=tuple(CacheLayer(layer.attention.kv_heads, layer.attention.head_dim) for layer in spec.layers),
            max_positions=spec.max_positions,
            positions_go_on=spec.positions_go_on,
        )

    def embedding(self, hidden: str, table: Weight) -> None:
        spec, names = self.spec, self.spec.names
        if names.project_in is None:
            self.ops.append(Embed(hidden, table))
        else:
            self.ops.append(Embed(self.value("embedded", table.columns), table))
            self.linear(hidden, "embedded", Weight((names.project_in,), (spec.hidden_size,), table.columns))
        if spec.embedding_scale != 1:
            self.ops.append(Scale(hidden, spec.embedding_scale, spec.embedding_scale_rounded))
        if names.positions is not None:
            first, rows = spec.first_position, self.value("positions", spec.hidden_size)
            table = Weight((names.positions,), (spec.max_positions + first,), spec.hidden_size, role="table")
            self.ops += [Embed(rows, table, by_position=True, first=first), Add(hidden, rows)]
        if names.embedding_norm is not None:
            self.norm(hidden, hidden, names.embedding_norm)

    def layer(self, hidden: str, layer: LayerSpec, number: int) -> None:
        names = self.spec.names
        before = (names.attention_norm, names.feedforward_norm)
        if layer.norm_sums:
            before = (None, None)
        out = self.projection(names.attention_out, number, layer.attention.query_size, layer.attention.out_bias)
        down = self.projection(names.down, number, layer.feedforward.inner, layer.feedforward.bias)
        target = hidden if layer.normed_residual else "normed"
        normed = self.norm(target, hidden, before[0], number)
        attended = self.attention(normed, layer.attention, number)
        if layer.parallel:  # the feed-forward reads the residual before attention is added
            if before[1] != before[0]:
                normed = self.norm("normed", hidden, before[1], number)
            inner = self.inner(normed, layer.feedforward, number)
            self.add_product(hidden, attended, out, names.attention_post_norm, layer, number)
        else:
            self.add_product(hidden, attended, out, names.attention_post_norm, layer, number)
            if layer.norm_sums:
                self.norm(hidden, hidden, names.attention_norm, number)
            normed = self.norm(target, hidden, before[1], number)
            if layer.experts is not None:
                product = self.experts(normed, layer.experts, number)
                return self.add(hidden, product, names.feedforward_post_norm, layer, number)
            inner = self.inner(normed, layer.feedforward, number)
        self.add_product(hidden, inner, down, names.feedforward_post_norm, layer, number)
        if layer.norm_sums:
            self.norm(hidden, hidden, names.feedforward_norm, number)

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
            groups=spec.kv_heads if names.qkv_by_head else names.qkv_groups,
            order=names.qkv_order,
            split="rows",
        )
        qkv = self.linear("qkv", x, weight)
        if spec.clip is not None:
            self.ops.append(Clamp(qkv, spec.clip))
        if spec.qk_norm is not None and not spec.qk_norm.after_rope:
            self.qk_norm(qkv, spec, spec.qk_norm, number)
        self.rotary(qkv, spec)
        if spec.qk_norm is not None and spec.qk_norm.after_rope:
            self.qk_norm(qkv, spec, spec.qk_norm, number)
        keys, values = spec.query_size, spec.query_size + spec.kv_size
        self.ops.append(StoreKV(qkv, number, spec.kv_heads, spec.head_dim, keys, values))
        attended = self.value("attended", spec.query_size)
        heads = (spec.heads, spec.kv_heads, spec.head_dim)
        self.ops.append(
            Attention(attended, qkv, number, *heads, spec.scale, spec.window, spec.soft_cap, spec.slopes)
        )
        return attended

    def qk_norm(self, qkv: str, spec: AttentionSpec, norm: QkNormSpec, number: int) -> None:
        names = self.spec.names
        for name, first, heads in ((names.query_norm, 0, spec.heads), (names.key_norm, spec.query_size, spec.kv_heads)):
            assert name is not None
            count, width = (1, heads * spec.head_dim) if norm.over == "all heads" else (heads, spec.head_dim)
            each = norm.over == "each head"
            stored = [name.format(number, head=head) for head in range(heads)] if each else [name.format(number)]
            self.norm_op(qkv, qkv, tuple(dict.fromkeys(stored)), norm.norm, width, count, first, each)

    def rotary(self, qkv: str, spec: AttentionSpec) -> None:
        if spec.rope is None:
            return
        heads, index = spec.heads, self.ropes.index(spec.rope)
        if spec.query_rope is None:
            heads += spec.kv_heads
            self.ops.append(Rotary(qkv, heads, spec.head_dim, rope=index, adjacent=spec.rope_adjacent))
            return
        for rope, count, first in ((spec.query_rope, heads, 0), (spec.rope, spec.kv_heads, spec.query_size)):
            index = self.ropes.index(rope)
            self.ops.append(Rotary(qkv, count, spec.head_dim, first, index, adjacent=spec.rope_adjacent))

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
        up, inner = self.linear("up", x, weight), self.value("inner", spec.inner)
        if spec.gated:
            self.ops.append(Gate(inner, up, spec.activation))
        else:
            learned = tuple(name.format(number) for name in names.activation)
            self.ops.append(Activate(inner, up, spec.activation, Vector(learned, len(learned)) if learned else None))
        return inner

    def experts(self, x: str, spec: ExpertsSpec, number: int) -> str:
        """The sum of the chosen experts' products."""
        names, hidden = self.spec.names, self.spec.hidden_size
        assert names.router is not None and names.expert_down is not None
        routers, rows = [names.router.format(number)], [spec.count]
        modules = [(names.expert_up, names.expert_down, expert, spec.inner) for expert in range(spec.count)]
        if spec.shared:
            assert names.shared_router is not None and names.shared_down is not None
            routers.append(names.shared_router.format(number))
            rows.append(1)
            modules.append((names.shared_up, names.shared_down, 0, spec.shared))
        router = self.linear("router", x, Weight(tuple(routers), tuple(rows), hidden, role="router"))
        up, down = [], []
        for up_names, down_name, expert, inner in modules:
            stored = tuple(name.format(number, expert=expert) for name in up_names)
            up.append(Weight(stored, (inner, inner), hidden, split="rows"))
            down.append(Weight((down_name.format(number, expert=expert),), (hidden,), inner, split="columns"))
        out = self.value("product", hidden)
        chosen = (spec.top, spec.activation, spec.normalise, spec.shared > 0)
        self.ops.append(Experts(out, x, router, tuple(up), tuple(down), *chosen))
        return out

    def projection(self, name: str, number: int, columns: int, bias: bool) -> Weight:
        """A matrix back to the residual, whose columns ranks share."""
        names, rows = self.spec.names, (self.spec.hidden_size,)
        return Weight((name.format(number),), rows, columns, bias, names.transposed, split="columns")

    def linear(self, out: str, x: str, weight: Weight) -> str:
        out = self.value(out, weight.rows)
        self.ops.append(Linear(out, x, weight))
        return out

    def add_product(
        self, hidden: str, x: str, weight: Weight, post_norm: str | None, layer: LayerSpec, number: int
    ) -> None:
        """hidden += [norm] (weight x) [* scale]"""
        self.add(hidden, self.linear("product", x, weight), post_norm, layer, number)

    def add(self, hidden: str, product: str, post_norm: str | None, layer: LayerSpec, number: int) -> None:
        self.norm(product, product, post_norm, number)
        if layer.residual_scale != 1:
            self.ops.append(Scale(product, layer.residual_scale))
        self.ops.append(Add(hidden, product))

    def norm(self, out: str, x: str, name: str | None, number: int = 0) -> str:
        """The value that holds norm(x): x itself where there is no norm."""
        if name is None:
            return x
        width = self.spec.hidden_size
        return self.norm_op(self.value(out, width), x, (name.format(number),), self.spec.norm, width)

    def norm_op(
        self,
        out: str,
        x: str,
        names: tuple[str, ...],
        norm: NormSpec,
        width: int,
        heads: int = 1,
        offset: int = 0,
        each: bool = False,
    ) -> str:
        """out = norm(x), of `heads` times `width` numbers from `offset` on."""
        size = heads * width if each else width
        scale = Vector(tuple(f"{name}.weight" for name in names), size, norm.offset) if norm.scale else None
        if norm.kind == "rms":
            assert scale is not None
            self.ops.append(RmsNorm(out, x, scale, norm.eps, heads, offset, each))
        else:
            bias = Vector(tuple(f"{name}.bias" for name in names), size) if norm.bias else None
            self.ops.append(LayerNorm(out, x, scale, bias, norm.eps, width, heads, offset, each))
        return out

    def value(self, name: str, width: int) -> str:
        """The value of this name, or one of its own for layers in which it is not as wide."""
        if self.values.setdefault(name, width) != width:
            name = f"{name}_{width}"
            self.values[name] = width
        return name
