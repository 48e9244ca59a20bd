"""A program for people: layers that are computed alike once, operations as short formulas, parameters by part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from tgi.commands.inspect.findings import Kind, Part
from tgi.kernels import program as ops
from tgi.kernels.program import Op, Program
from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.rope_spec import RopeSpec
from tgi.kernels.weight import Vector, Weight
from tgi.models.build.decoder import Builder
from tgi.models.build.layer_inputs import VALUE as LAYER_INPUTS
from tgi.models.names import Names
from tgi.models.passes.fuse import fuse_ops
from tgi.models.spec import ModelSpec

EMBEDDING = "embedding"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def kinds(spec: ModelSpec, program: Program, *, encoder: bool = False) -> list[Kind]:
    """What comes before the layers, the layers, those alike together, and what comes after. encoder: of that."""
    before, *layers, after = sections(spec, program, encoder=encoder)
    found: dict[tuple[str, ...], list[int]] = {}
    for number, written in enumerate(layers):
        found.setdefault(tuple(lines(written, program.ropes, number)), []).append(number)
    last = list(lines(after, program.ropes))
    if not encoder:
        last.append(_logits(program))
    result = [Kind("embedding", [], list(lines(before, program.ropes)))]
    result += [Kind("layer", numbers, list(text)) for text, numbers in found.items()]
    return [*result, Kind("for the decoder" if encoder else "head", [], last)]


def sections(spec: ModelSpec, program: Program, *, encoder: bool = False) -> list[tuple[Op, ...]]:
    """The operations before the layers, of each layer, and after them: together those of the program."""
    if encoder:
        assert spec.encoder is not None and program.encoder is not None
        builder, whole, layers = Builder(spec.encoder, spec), program.encoder.ops, spec.encoder.layers
    else:
        builder, whole, layers = Builder(spec), program.ops, spec.layers
    first = next(op for op in whole if isinstance(op, ops.Embed))
    hidden = builder.value("hidden", builder.spec.hidden_size)
    builder.embedding(hidden, first.table)
    found = [fuse_ops(builder.ops)]
    for number, layer in enumerate(layers):
        begin = len(builder.ops)
        builder.layer(hidden, layer, number)
        found.append(fuse_ops(builder.ops[begin:]))
    return [*found, whole[sum(map(len, found)) :]]


def parts(spec: ModelSpec, program: Program) -> list[Part]:
    """Parameters by part of the model, the largest first; what two places share counts once."""
    sides = [("", spec, program.ops)]
    if spec.encoder is not None and program.encoder is not None:
        sides.insert(0, ("encoder ", spec.encoder, program.encoder.ops))
    head = program.logits.weight
    sums: dict[str, int] = {}
    seen: set[Weight | Vector] = set()
    for place, side, written in sides:
        patterns = _patterns(side.names) + _patterns(spec.names)
        for op in written:
            for item in _items(op):
                if not isinstance(item, Weight | Vector) or item in seen:
                    continue
                seen.add(item)
                name = place + (f"{EMBEDDING}, which is the head too" if item == head else _part(op, item, patterns))
                sums[name] = sums.get(name, 0) + _count(item)
    if head not in seen:
        sums["head"] = _count(head)
    return [Part(name, count) for name, count in sorted(sums.items(), key=lambda item: -item[1]) if count]


def _patterns(names: Names) -> list[tuple[re.Pattern[str], str]]:
    """Names of modules -> the part that they belong to."""
    latent = names.latent
    latents = (latent.query_down, latent.query_up, latent.down, latent.up) if latent else ()
    inputs = names.layer_inputs
    given = (inputs.product, inputs.norm, inputs.gate, inputs.out, inputs.post_norm) if inputs else ()
    by_part: dict[str, tuple[str | None, ...]] = {
        "cross attention": (names.cross_query, *names.cross_keys_values, names.cross_out),
        "attention": (*names.qkv, names.attention_out, *latents),
        "feed-forward": (*names.up, names.down, *names.shared_up, names.shared_down),
        "experts": (*names.expert_up, names.expert_down),
        "routers": (names.router, names.shared_router, names.correction),
        "projections": (names.project_in, names.project_out),
        "activation functions": names.activation,
        "layer inputs": (*given, names.layer_scale),
    }
    found = [(re.compile(_any_number(name)), part) for part, some in by_part.items() for name in some if name]
    return [*found, *([(re.compile(_any_number(names.mixer) + ".*"), "state mixing")] if names.mixer else [])]


def _any_number(name: str) -> str:
    return re.sub(r"\\\{\w*\\\}", r"\\d+", re.escape(name))


def _part(op: Op, item: Weight | Vector, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str:
    if isinstance(op, ops.Embed):
        return EMBEDDING
    if isinstance(op, ops.Experts):
        return "experts" if isinstance(item, Weight) else "routers"
    for pattern, part in patterns:
        if pattern.fullmatch(item.names[0]):
            return part
    if isinstance(op, ops.RmsNorm | ops.LayerNorm):
        return "norms"
    return "attention" if isinstance(op, ops.Attention) else "other"


def _items(op: Op) -> Iterator[object]:
    for field in fields(op):
        value = getattr(op, field.name)
        value = value.table if isinstance(value, ops.RelativeBias) else value
        yield from value if isinstance(value, tuple) else (value,)


def _count(item: Weight | Vector) -> int:
    return item.distinct_rows * (item.columns + item.bias) if isinstance(item, Weight) else item.size


def lines(written: Iterable[Op], ropes: Sequence[RopeSpec], number: int | None = None) -> Iterator[str]:
    """A formula for each operation. number: of the layer, which its names then leave open."""
    for op in written:
        text, items = _formula(op, ropes)
        named = [_named(item, number) for item in items if item is not None]
        yield text + (f"    {'; '.join(named)}" if named else "")


def _named(item: Weight | Vector, number: int | None) -> str:
    """Modules of a matrix and its shape; of a layer without its number, of experts for all of them."""
    names = list(dict.fromkeys(_open(name, number) for name in item.names))
    if isinstance(item, Weight):
        bias = ", bias" if item.bias else ""
        return f"{_joined(names)} [{item.rows} x {item.columns}{bias}]"
    return f"{_joined([name.rpartition('.')[0] if name.endswith(('.weight', '.bias')) else name for name in names])}"


def _open(name: str, number: int | None) -> str:
    if number is None:
        return name
    first = _NUMBER.search(name)
    if first is None:
        return name
    rest = _NUMBER.sub("*", name[first.end() :])
    return f"{name[: first.start()]}{{}}{rest}"


def _joined(names: Sequence[str]) -> str:
    """model.layers.{}.self_attn.q_proj, k_proj, v_proj"""
    stem = names[0].rpartition(".")[0]
    return ", ".join([names[0], *(name.removeprefix(f"{stem}.") for name in names[1:])])


def _logits(program: Program) -> str:
    logits = program.logits
    scale = f"{logits.scale:g} * " if logits.scale != 1 else ""
    cap = f", capped at {logits.soft_cap:g}" if logits.soft_cap is not None else ""
    return f"logits = {scale}W {program.result}{cap}    {_named(logits.weight, None)}"


def _formula(op: Op, ropes: Sequence[RopeSpec]) -> tuple[str, tuple[Weight | Vector | None, ...]]:
    """The operation without its parameters, and these."""
    match op:
        case ops.Embed():
            return f"{op.out} = row of W" + (" for the position" if op.by_position else " for the token"), (op.table,)
        case ops.Linear():
            return f"{op.out} {'+=' if op.add else '='} W {op.x}", (op.weight,)
        case ops.HeadLinear():
            return f"{op.out} = W {op.x}, head by head", (op.weights[0],)
        case ops.RmsNorm() | ops.LayerNorm():
            name = "rms_norm" if isinstance(op, ops.RmsNorm) else "layer_norm"
            heads = f", {op.heads} heads of {op.width}" if op.heads > 1 else ""
            return f"{op.out} = {name}({op.x}{heads})", (op.weight,)
        case ops.Scale():
            learned = " * w" if op.learned is not None else ""
            return f"{op.out} *= {op.factor:g}{learned}", (op.learned,)
        case ops.Experts():
            return _experts(op), (op.up[0], op.down[0])
        case ops.Attention():
            return _attention(op), (op.sinks, op.bias.table if op.bias else None)
        case Scan() | DeltaRule() | Convolve():
            return _recurrence(op)
        case _:
            return _small(op, ropes), ()


def _small(op: Op, ropes: Sequence[RopeSpec]) -> str:
    """Operations without parameters."""
    match op:
        case ops.Add():
            return f"{op.out} += {op.x}"
        case ops.Clamp():
            return f"{op.out} = {op.out}, cut to -{op.limit:g} ... {op.limit:g}"
        case ops.SoftCap():
            return f"{op.out} = {op.cap:g} tanh({op.out} / {op.cap:g})"
        case ops.Rotary():
            rope = ropes[op.rope]
            kind = "" if rope.kind == "default" else f"{rope.kind}, "
            pairs = ", neighbours" if op.adjacent else ""
            heads = f"{op.heads} heads of {op.head_dim} from {op.offset}"
            return f"rotate {op.x}: {heads}, {kind}{rope.dim} turn{pairs}, base {rope.theta:g}"
        case ops.Activate():
            return f"{op.out} = {op.function}({op.x})"
        case ops.Gate():
            return f"{op.out} = {op.function}(first half of {op.x}) * second half"
        case ops.Multiply():
            source = f"{op.x} from {op.offset}" if op.offset else op.x
            source = f"the layer's part of {op.x}" if op.x == LAYER_INPUTS else source
            return f"{op.out} *= {op.function}({source})" if op.function else f"{op.out} *= {source}"
        case ops.StoreKV():
            kept = "keys that are the values too" if op.keys == op.values else "keys and values"
            return f"cache {op.x}: {kept} of {op.kv_heads} heads of {op.head_dim}"
        case _:
            return type(op).__name__


def _experts(op: ops.Experts) -> str:
    always = ", the last one always" if op.shared else ""
    groups = f" from {op.top_groups} of {op.groups} groups" if op.groups > 1 else ""
    scale = f", times {op.scale:g}" if op.scale != 1 else ""
    chosen = f"{op.top} of {len(op.up) - op.shared} experts{groups} by {op.scores} of {op.router}{always}"
    return f"{op.out} = {chosen}{scale}: down({op.function} gated up({op.x}))"


def _attention(op: ops.Attention) -> str:
    heads = f"{op.heads} heads of {op.head_dim}"
    if op.kv_heads != op.heads:
        heads += f" over {op.kv_heads}"
    details = [heads, f"scale {op.scale:.4g}"]
    details += [f"window {op.window}"] if op.window is not None else []
    details += [f"chunks of {op.chunk}"] if op.chunk is not None else []
    details += [f"capped at {op.soft_cap:g}"] if op.soft_cap is not None else []
    details += ["ALiBi"] if op.slopes else []
    details += ["sinks"] if op.sinks else []
    details += ["a bias for each distance"] if op.bias else []
    details += {"before": [], "all": ["all of the input"], "encoder": ["over the encoder's results"]}[op.sees]
    return f"{op.out} = attention({op.x}): {', '.join(details)}"


def _recurrence(op: Scan | DeltaRule | Convolve) -> tuple[str, tuple[Weight | Vector | None, ...]]:
    if isinstance(op, Convolve):
        function = f", then {op.function}" if op.function else ""
        return f"{op.out} = convolution of {op.kernel} rows of {op.x}{function}", (op.weight, op.bias)
    if isinstance(op, Scan):
        state = f"{op.heads} states of {op.head_dim} x {op.state_dim}"
        return f"{op.out} = state space({op.x}, {op.other}): {state}", (op.log_decay, op.dt_bias, op.skip)
    state = f"{op.heads} states of {op.key_dim} x {op.value_dim}"
    return f"{op.out} = delta rule({op.x}, {op.other}): {state}", (op.log_decay, op.dt_bias)
