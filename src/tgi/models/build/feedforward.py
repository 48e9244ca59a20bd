"""The feed-forwards of a layer: a single one, or a mixture of experts. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.kernels.program import Activate, Add, Experts, Gate, Linear, RmsNorm, Scale
from tgi.kernels.weight import Vector, Weight, Within
from tgi.models.build.writer import Writer
from tgi.models.spec import ExpertsSpec, FeedForwardSpec

ALIKE = ["top", "normalise", "scores", "groups", "top_groups", "group_best", "scale", "weigh_inputs", "limit", "jitter"]
"""Fields that the spec of experts and their operation have in common."""


def inner(writer: Writer, x: str, spec: FeedForwardSpec, number: int, names: tuple[str, ...] | None = None) -> str:
    """activation(up(x)), or activation(gate(x)) * up(x) with gate and up as one product.

    names: of other modules than those of `Names.up`.
    """
    layer = writer.spec.names
    weight = Weight(
        tuple(name.format(number) for name in names or layer.up),
        (spec.inner, spec.inner) if spec.gated else (spec.inner,),
        writer.spec.hidden_size,
        bias=spec.bias,
        transposed=layer.transposed,
        split="rows",
    )
    up, out = writer.linear("up", x, weight), writer.value("inner", spec.inner)
    if spec.gated:
        writer.ops.append(Gate(out, up, spec.activation))
    else:
        learned = tuple(name.format(number) for name in layer.activation)
        writer.ops.append(Activate(out, up, spec.activation, Vector(learned, len(learned)) if learned else None))
    return out


def beside_dense(writer: Writer, hidden: str, spec: ExpertsSpec, product: str, number: int) -> str:
    """[norm] of the feed-forward's product plus [norm] of what experts make of [norm] hidden."""
    names, width, eps = writer.spec.names.beside_dense, writer.spec.hidden_size, writer.spec.norm.eps
    assert names is not None
    writer.norm(product, product, names.dense_post_norm, number)
    routed, scale = writer.value("routed", width), Vector((names.router_scale.format(number),), width)
    writer.ops += [RmsNorm(routed, hidden, scale, eps, width), Scale(routed, width**-0.5)]
    scales = Vector((names.expert_scales.format(number),), spec.count, exact=True)
    normed = writer.norm("normed", hidden, names.norm, number)
    mixed = experts(writer, normed, spec, number, "mixed", routed, scales)
    writer.norm(mixed, mixed, names.post_norm, number)
    writer.ops.append(Add(product, mixed))
    return product


def experts(
    writer: Writer,
    x: str,
    spec: ExpertsSpec,
    number: int,
    out: str = "product",
    routed: str | None = None,
    scales: Vector | None = None,
) -> str:
    """The sum of the chosen experts' products, and of the one beside them. routed: what the router reads, if not x."""
    names, hidden = writer.spec.names, writer.spec.hidden_size
    assert names.router is not None and names.expert_down is not None
    routers, rows = [names.router.format(number)], [spec.count]
    weights = [_expert(writer, spec, number, expert) for expert in range(spec.count)]
    if spec.shared:
        assert names.shared_router is not None and names.shared_down is not None
        routers.append(names.shared_router.format(number))
        rows.append(1)
        up = tuple(name.format(number) for name in names.shared_up)
        down = Weight((names.shared_down.format(number),), (hidden,), spec.shared, split="columns")
        weights.append((Weight(up, (spec.shared, spec.shared), hidden, split="rows"), down))
    router = writer.linear(
        "router", routed or x, Weight(tuple(routers), tuple(rows), hidden, bias=spec.bias, role="router")
    )
    correction = None
    if spec.correction:
        assert names.correction is not None
        correction = Vector((names.correction.format(number),), spec.count, exact=True)
    out = writer.value(out, hidden)
    up, down = (tuple(pair[part] for pair in weights) for part in (0, 1))
    alike = {name: getattr(spec, name) for name in ALIKE}
    more = {"shared": spec.shared > 0, "correction": correction, "scales": scales}
    writer.ops.append(Experts(out, x, router, up, down, function=spec.activation, **alike, **more))
    if spec.beside:
        assert names.shared_down is not None
        feedforward = FeedForwardSpec(inner=spec.beside, activation=spec.activation, gated=True)
        beside = inner(writer, x, feedforward, number, names.shared_up)
        down = Weight((names.shared_down.format(number),), (hidden,), spec.beside, split="columns")
        writer.ops.append(Linear(out, beside, down, add=True))
    return out


def _expert(writer: Writer, spec: ExpertsSpec, number: int, expert: int) -> tuple[Weight, Weight]:
    """Up, which is gate and up stacked, and down of one expert."""
    names, hidden = writer.spec.names, writer.spec.hidden_size
    assert names.expert_down is not None
    up_names = tuple(name.format(number, expert=expert) for name in names.expert_up)
    up = Weight(up_names, (spec.inner, spec.inner), hidden, bias=spec.bias, split="rows")
    down = Weight((names.expert_down.format(number, expert=expert),), (hidden,), spec.inner, spec.bias, split="columns")
    layout = names.expert_layout
    if layout is None:
        return up, down
    rows = 1 if layout.stacked else spec.inner
    within, suffixes = Within(expert * rows, spec.count * rows, layout.stacked), layout.suffixes
    groups = spec.inner if layout.alternate else 1
    up = replace(up, within=within, suffixes=suffixes, transposed=layout.transposed_up, groups=groups)
    return up, replace(down, within=within, suffixes=suffixes, transposed=layout.transposed_down)
