"""Layers that keep a state in place of keys and values: short convolutions, Mamba 2, gated delta nets. No torch."""

from __future__ import annotations

from tgi.kernels.program import Multiply
from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.weight import Vector, Weight, Within
from tgi.models.build.writer import Writer
from tgi.models.spec import DeltaSpec, MambaSpec, Mixer, NormSpec, ShortConvSpec


def mixed(writer: Writer, x: str, spec: Mixer, number: int) -> tuple[str, Weight]:
    """The value that holds what the mixer makes of x, and the matrix back to the residual."""
    assert writer.spec.names.mixer is not None
    module = writer.spec.names.mixer.format(number)
    if isinstance(spec, ShortConvSpec):
        inner, width, bias = _short_conv(writer, x, spec, module), writer.spec.hidden_size, spec.bias
    elif isinstance(spec, MambaSpec):
        inner, width, bias = _mamba(writer, x, spec, module), spec.inner, spec.bias
    else:
        inner, width, bias = _delta_net(writer, x, spec, module), spec.heads * spec.value_dim, False
    return inner, Weight((f"{module}.out_proj",), (writer.spec.hidden_size,), width, bias, split="columns")


def _short_conv(writer: Writer, x: str, spec: ShortConvSpec, module: str) -> str:
    """in_proj has b, c and x."""
    width, stored = writer.spec.hidden_size, (f"{module}.in_proj",)
    size = 3 * width
    gates = writer.linear("gates", x, Weight(stored, (2 * width,), width, spec.bias, within=Within(0, size)))
    given = writer.linear("given", x, Weight(stored, (width,), width, spec.bias, within=Within(2 * width, size)))
    writer.ops.append(Multiply(given, gates))
    value, _, _ = _convolved(writer, "convolved", given, f"{module}.conv", width, spec.kernel, spec.bias, 0)
    writer.ops.append(Multiply(value, gates, width))
    return value


def _convolved(
    writer: Writer, out: str, x: str, module: str, width: int, kernel: int, bias: bool, more: int, **options: object
) -> tuple[str, int, int]:
    """A convolution of x with a state that has room for `more` numbers: its value, the state, where these begin."""
    writer.states.append((kernel - 1) * width + more)
    state, value = len(writer.states) - 1, writer.value(out, width)
    shift = Vector((f"{module}.bias",), width, exact=True) if bias else None
    taps = Vector((f"{module}.weight",), width * kernel, exact=True)
    writer.ops.append(Convolve(value, x, taps, shift, kernel, state, **options))  # type: ignore[arg-type]
    return value, state, (kernel - 1) * width


def _mamba(writer: Writer, x: str, spec: MambaSpec, module: str) -> str:
    """Of the product of x: the gate, what is convolved, and a step for each head."""
    inner, convolved = spec.inner, spec.inner + 2 * spec.groups * spec.state_dim
    parts = (inner, convolved, spec.heads)
    product = writer.linear("projected", x, Weight((f"{module}.in_proj",), parts, writer.spec.hidden_size, spec.bias))
    more = spec.heads * spec.head_dim * spec.state_dim
    value, state, at = _convolved(
        writer, "convolved", product, f"{module}.conv1d", convolved, spec.kernel, spec.conv_bias, more,
        offset=inner, function="silu",
    )  # fmt: skip
    names = ("A_log", "dt_bias", "D")
    log_decay, dt_bias, skip = (Vector((f"{module}.{name}",), spec.heads, exact=True) for name in names)
    out = writer.value("scanned", inner)
    writer.ops.append(
        Scan(
            out,
            value,
            product,
            log_decay,
            dt_bias,
            skip,
            heads=spec.heads,
            head_dim=spec.head_dim,
            state_dim=spec.state_dim,
            groups=spec.groups,
            state=state,
            at=at,
            offset=inner + convolved,
            least=spec.least_step,
            most=spec.most_step,
        )
    )
    writer.ops.append(Multiply(out, product, 0, "silu"))
    norm = NormSpec(kind="rms", eps=writer.spec.norm.eps)
    writer.norm_op(out, out, (f"{module}.norm",), norm, inner // spec.groups, spec.groups, each=True)
    return out


def _delta_net(writer: Writer, x: str, spec: DeltaSpec, module: str) -> str:
    """Of the products of x: queries, keys and values, which are convolved, a gate; a step and a decay for each head."""
    hidden, keys, values = writer.spec.hidden_size, spec.key_heads * spec.key_dim, spec.heads * spec.value_dim
    if spec.stacked:
        weight = Weight((f"{module}.in_proj_qkvz",), (keys, keys, values, values), hidden, groups=spec.key_heads)
        gates = Weight((f"{module}.in_proj_ba",), (spec.heads, spec.heads), hidden, groups=spec.key_heads)
    else:
        weight = Weight((f"{module}.in_proj_qkv", f"{module}.in_proj_z"), (2 * keys + values, values), hidden)
        gates = Weight((f"{module}.in_proj_b", f"{module}.in_proj_a"), (spec.heads, spec.heads), hidden)
    product, other = writer.linear("projected", x, weight), writer.linear("gates", x, gates)
    value, state, at = _convolved(
        writer, "convolved", product, f"{module}.conv1d", 2 * keys + values, spec.kernel, False,
        spec.heads * spec.key_dim * spec.value_dim, function="silu",
    )  # fmt: skip
    out = writer.value("scanned", values)
    decay, bias = (Vector((f"{module}.{name}",), spec.heads, exact=True) for name in ("A_log", "dt_bias"))
    shape = (spec.heads, spec.key_heads, spec.key_dim, spec.value_dim)
    writer.ops.append(DeltaRule(out, value, other, decay, bias, *shape, state, at))
    norm = NormSpec(kind="rms", eps=writer.spec.norm.eps)
    writer.norm_op(out, out, (f"{module}.norm",), norm, spec.value_dim, spec.heads)
    writer.ops.append(Multiply(out, product, 2 * keys + values, "silu"))
    return out
