"""What each layer reads of the token beside the residual, see `ModelSpec.layer_inputs`. Imports no torch."""

from __future__ import annotations

from tgi.kernels.program import Activate, Activation, Add, Embed, Multiply, Scale
from tgi.kernels.weight import Weight
from tgi.models.build.writer import Writer
from tgi.models.names import LayerInputNames

VALUE = "layer_inputs"


def layer_inputs(writer: Writer, hidden: str, names: LayerInputNames) -> None:
    """Of all layers, side by side: the mean of the token's row and of the normed product of its embedding, times the
    root of 2."""
    spec = writer.spec
    size, layers = spec.layer_inputs, len(spec.layers)
    own = writer.value(VALUE, layers * size)
    table = Weight((names.table,), (spec.vocab_size,), layers * size, role="table")
    writer.ops += [Embed(own, table), Scale(own, size**0.5, rounded=True)]
    product = writer.linear("layer_products", hidden, Weight((names.product,), (layers * size,), spec.hidden_size))
    writer.ops.append(Scale(product, spec.hidden_size**-0.5))
    writer.norm_op(product, product, (names.norm,), spec.norm, size, layers)
    writer.ops += [Add(own, product), Scale(own, 2**-0.5)]


def add_layer_input(writer: Writer, hidden: str, activation: Activation, names: LayerInputNames, number: int) -> None:
    """hidden += norm(out(activation(gate(hidden)) * the layer's input))"""
    size, width = writer.spec.layer_inputs, writer.spec.hidden_size
    gate = writer.linear("layer_gate", hidden, Weight((names.gate.format(number),), (size,), width))
    writer.ops += [Activate(gate, gate, activation), Multiply(gate, VALUE, number * size)]
    product = writer.linear("product", gate, Weight((names.out.format(number),), (width,), size))
    writer.norm(product, product, names.post_norm, number)
    writer.ops.append(Add(hidden, product))
