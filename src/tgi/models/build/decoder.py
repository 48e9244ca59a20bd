"""The program of a decoder-only model.

    tokens -> embedding -> layer * n -> norm -> head (-> soft cap)

    embedding       row [-> projection] [* scale] [+ row of its position] [-> norm]
    layer           x = x + [norm] attention([norm] x);  x = x + [norm] feedforward([norm] x)
    parallel layer  x = x + [norm] attention([norm] x) + [norm] feedforward([norm] x)
    attention       out(what `attention` makes);  feedforward: down(what `feedforward` makes), or a mixture of experts

With an encoder a layer has attention to its results in between, and they have a program of their own (`build.encoder`).

In brackets: only where the spec says so. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace

from tgi.kernels.program import Add, Embed, Logits, Program, Scale
from tgi.kernels.weight import Vector, Weight
from tgi.models.build.attention import attention, cross_attention
from tgi.models.build.encoder import encoder_of
from tgi.models.build.feedforward import beside_dense, experts, inner
from tgi.models.build.layer_inputs import add_layer_input, layer_inputs
from tgi.models.build.mixer import mixed
from tgi.models.build.writer import Writer
from tgi.models.passes.fuse import fuse_sums
from tgi.models.spec import LayerSpec, ModelSpec


def build(spec: ModelSpec) -> Program:
    """The step of this model, ready for a backend."""
    return fuse_sums(Builder(spec).program())


class Builder(Writer):
    def program(self) -> Program:
        spec, names = self.spec, self.spec.names
        vocabulary, width = (spec.vocab_size,), spec.embedding_size or spec.hidden_size
        table = Weight((names.embedding,), vocabulary, width, role="table")
        unit = spec.head_of_unit_rows
        head = Weight((names.head,), vocabulary, width, bias=spec.head_bias, role="head", unit_rows=unit, split="rows")
        if spec.tied_head:
            table = head = replace(head, names=(names.embedding,))
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
            cache=tuple(self.cache),
            states=tuple(self.states),
            max_positions=spec.max_positions,
            positions_go_on=spec.positions_go_on,
            encoder=encoder_of(spec, Builder(spec.encoder, spec), table) if spec.encoder else None,
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
        if names.layer_inputs is not None:
            layer_inputs(self, hidden, names.layer_inputs)

    def layer(self, hidden: str, layer: LayerSpec, number: int) -> None:
        names = self.spec.names
        self.blocks(hidden, layer, number)
        if names.layer_inputs is not None:
            add_layer_input(self, hidden, layer.feedforward.activation, names.layer_inputs, number)
        if layer.learned_scale:
            scale = Vector((str(names.layer_scale).format(number),), 1, exact=True)
            self.ops.append(Scale(hidden, 1.0, learned=scale))

    def blocks(self, hidden: str, layer: LayerSpec, number: int) -> None:
        """Attention or what mixes tokens in its place, and the feed-forward, each with its norms and residual."""
        names = self.spec.names
        before = (names.attention_norm, names.feedforward_norm)
        if layer.norm_sums:
            before = (None, None)
        out = self.projection(names.attention_out, number, layer.attention.out_size, layer.attention.out_bias)
        down = self.projection(names.down, number, layer.feedforward.inner, layer.feedforward.bias)
        target = hidden if layer.normed_residual else "normed"
        normed = self.norm(target, hidden, before[0], number)
        if layer.mixer is None:
            attended = attention(self, normed, layer.attention, number)
        else:
            attended, out = mixed(self, normed, layer.mixer, number)
        if layer.parallel:  # the feed-forward reads the residual before attention is added
            if before[1] != before[0]:
                normed = self.norm("normed", hidden, before[1], number)
            product = inner(self, normed, layer.feedforward, number)
            self.add_product(hidden, attended, out, names.attention_post_norm, layer, number)
        else:
            self.add_product(hidden, attended, out, names.attention_post_norm, layer, number)
            if layer.norm_sums:
                self.norm(hidden, hidden, names.attention_norm, number)
            if layer.cross is not None:
                cross = cross_attention(self, hidden, layer, layer.cross, number)
                out = self.projection(str(names.cross_out), number, layer.cross.query_size, layer.cross.out_bias)
                self.add_product(hidden, cross, out, None, layer, number)
                if layer.norm_sums:
                    self.norm(hidden, hidden, names.cross_norm, number)
            if layer.experts is None and not layer.feedforward.inner:
                return
            normed = self.norm(target, hidden, before[1], number)
            if layer.experts is not None and not layer.experts.beside_dense:
                product = experts(self, normed, layer.experts, number)
                self.add(hidden, product, names.feedforward_post_norm, layer, number)
                return
            product = inner(self, normed, layer.feedforward, number)
        if layer.experts is not None and layer.experts.beside_dense:
            product = beside_dense(self, hidden, layer.experts, self.linear("product", product, down), number)
            self.add(hidden, product, names.feedforward_post_norm, layer, number)
        else:
            self.add_product(hidden, product, down, names.feedforward_post_norm, layer, number)
        if layer.norm_sums:
            self.norm(hidden, hidden, names.feedforward_norm, number)

    def projection(self, name: str, number: int, columns: int, bias: bool) -> Weight:
        """A matrix back to the residual, whose columns ranks share."""
        names, rows = self.spec.names, (self.spec.hidden_size,)
        return Weight((name.format(number),), rows, columns, bias, names.transposed, split="columns")

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
