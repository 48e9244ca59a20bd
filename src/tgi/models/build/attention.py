"""Attention of a layer, before its output projection.

    heads    qkv [-> clip] [-> norm of q and k] [-> rotary], then softmax(q k) v
    latents  see `_latent`

In brackets: only where the spec says so. Imports no torch.
"""

from __future__ import annotations

from tgi.kernels.program import Attention, Clamp, HeadLinear, Multiply, RelativeBias, Rotary, StoreKV
from tgi.kernels.weight import Vector, Weight, Within
from tgi.models.build.writer import Writer
from tgi.models.spec import AttentionSpec, LatentSpec, LayerSpec, QkNormSpec


def attention(writer: Writer, x: str, spec: AttentionSpec, number: int) -> str:
    """The value that holds attention over x."""
    if spec.latent is not None:
        return _latent(writer, x, spec, spec.latent, number)
    queries, others = _queries_and_others(writer, x, spec, number)
    first = spec.query_size if queries == others else 0
    if spec.clip is not None:
        writer.ops += [Clamp(value, spec.clip) for value in dict.fromkeys((queries, others))]
    if spec.qk_norm is not None and not spec.qk_norm.after_rope:
        _qk_norm(writer, queries, others, spec, spec.qk_norm, number)
    _rotary(writer, queries, others, spec)
    if spec.qk_norm is not None and spec.qk_norm.after_rope:
        _qk_norm(writer, queries, others, spec, spec.qk_norm, number)
    if spec.value_norm is not None and spec.keys_of is None:
        writer.norm_op(others, others, (), spec.value_norm, spec.head_dim, spec.kv_heads, first + spec.kv_size)
    layer = writer.cache_layer(spec.kv_heads, spec.head_dim, number, spec.keys_of)
    if spec.keys_of is None:
        writer.ops.append(StoreKV(others, layer, spec.kv_heads, spec.head_dim, first, first + spec.kv_size))
    attended = writer.value("attended", spec.query_size)
    heads, scores = (spec.heads, spec.kv_heads, spec.head_dim), (spec.scale, spec.window, spec.soft_cap, spec.slopes)
    more = {"sinks": _sinks(writer, spec, number), "chunk": spec.chunk, "sees": spec.sees}
    bias = _relative_bias(writer, spec, number)
    writer.ops.append(Attention(attended, queries, layer, *heads, *scores, **more, bias=bias))
    if spec.gated:
        writer.ops.append(Multiply(attended, queries, spec.query_size, "sigmoid"))
    return attended


def _queries_and_others(writer: Writer, x: str, spec: AttentionSpec, number: int) -> tuple[str, str]:
    """The values that have queries, and keys and values: one for all, or two where queries come with gates."""
    names, hidden = writer.spec.names, writer.spec.hidden_size
    stored, others = [name.format(number) for name in names.qkv], (spec.kv_size, spec.kv_size)
    if spec.keys_are_values:
        stored[2] = stored[1]
    if spec.keys_of is not None:
        stored, others = stored[:1], ()
    if spec.gated:
        size = spec.query_size
        weight = Weight((stored[0],), (size, size), hidden, spec.qkv_bias, groups=spec.heads, split="rows")
        queries = writer.linear("queries", x, weight)
        weight = Weight(tuple(stored[1:]), others, hidden, spec.qkv_bias, gives_keys=True, split="rows")
        return queries, writer.linear("keys", x, weight)
    weight = Weight(
        tuple(stored),
        (spec.query_size, *others),
        hidden,
        bias=spec.qkv_bias,
        transposed=names.transposed,
        groups=spec.kv_heads if names.qkv_by_head else names.qkv_groups,
        order=names.qkv_order,
        gives_keys=True,
        split="rows",
    )
    qkv = writer.linear("qkv", x, weight)
    return qkv, qkv


def cross_attention(writer: Writer, hidden: str, layer: LayerSpec, spec: AttentionSpec, number: int) -> str:
    """Attention of the normed residual to the encoder's results, whose keys and values are in the cache."""
    names = writer.spec.names
    assert names.cross_query is not None
    normed = writer.norm("normed", hidden, None if layer.norm_sums else names.cross_norm, number)
    query_name, rows = (names.cross_query.format(number),), (spec.query_size,)
    weight = Weight(query_name, rows, writer.spec.hidden_size, bias=spec.qkv_bias, split="rows")
    query, attended = writer.linear("query", normed, weight), writer.value("attended", spec.query_size)
    heads = (spec.heads, spec.kv_heads, spec.head_dim)
    writer.ops.append(Attention(attended, query, number, *heads, spec.scale, sees="encoder"))
    return attended


def _relative_bias(writer: Writer, spec: AttentionSpec, number: int) -> RelativeBias | None:
    name, bias = writer.spec.names.relative_bias, spec.relative_bias
    if bias is None:
        return None
    assert name is not None
    table = Weight((name.format(number),), (bias.buckets,), spec.heads, role="table")
    return RelativeBias(table, bias.furthest, spec.sees == "all")


def _parts(queries: str, others: str, spec: AttentionSpec) -> tuple[tuple[str, int, int], ...]:
    """Value, first number and heads of queries and of keys that are the layer's own."""
    of_queries = (queries, 0, spec.heads)
    if spec.keys_of is not None:
        return (of_queries,)
    return of_queries, (others, spec.query_size if queries == others else 0, spec.kv_heads)


def _qk_norm(writer: Writer, queries: str, others: str, spec: AttentionSpec, norm: QkNormSpec, number: int) -> None:
    names = (writer.spec.names.query_norm, writer.spec.names.key_norm)
    parts = _parts(queries, others, spec)
    for name, (value, first, heads) in zip(names[: len(parts)], parts, strict=True):
        assert name is not None
        count, width = (1, heads * spec.head_dim) if norm.over == "all heads" else (heads, spec.head_dim)
        each = norm.over == "each head"
        stored = [name.format(number, head=head) for head in range(heads)] if each else [name.format(number)]
        writer.norm_op(value, value, tuple(dict.fromkeys(stored)), norm.norm, width, count, first, each)


def _rotary(writer: Writer, queries: str, others: str, spec: AttentionSpec) -> None:
    turns = [spec.query_rope or spec.rope, spec.rope]
    parts = list(_parts(queries, others, spec))
    if queries == others and turns[0] == turns[1] and len(parts) == 2:
        parts, turns = [(queries, 0, spec.heads + spec.kv_heads)], turns[:1]
    for rope, (value, first, heads) in zip(turns[: len(parts)], parts, strict=True):
        if rope is not None:
            index = writer.ropes.index(rope)
            writer.ops.append(Rotary(value, heads, spec.head_dim, first, index, adjacent=spec.rope_adjacent))


def _sinks(writer: Writer, spec: AttentionSpec, number: int) -> Vector | None:
    name = writer.spec.names.sinks
    assert name is not None or not spec.sinks
    return Vector((name.format(number),), spec.heads) if spec.sinks and name else None


def _latent(writer: Writer, x: str, spec: AttentionSpec, latent: LatentSpec, number: int) -> str:
    """Attention over latents. Head by head, with K and V the matrices that would make keys and values of latents c:

    (K c) q = c (K^T q), so that queries K^T q are compared with the latents themselves, and V (sum of p c) is the sum
    of p (V c). All heads share one key and one value, the latent and the turned part: a cache of one head. What of the
    turned part is weighed as if it were a value is dropped.
    """
    names, hidden = writer.spec.names.latent, writer.spec.hidden_size
    assert names is not None and spec.rope is not None
    plain, width, heads = spec.head_dim - latent.turning, latent.rank + latent.turning, spec.heads
    source, columns, query = x, hidden, writer.spec.names.qkv[0]
    if latent.query_rank is not None:
        source, columns, query = "query_latent", latent.query_rank, names.query_up
        down = Weight((names.query_down.format(number),), (columns,), hidden, bias=latent.bias)
        writer.linear(source, x, down)
        writer.norm_op(source, source, (names.query_norm.format(number),), latent.norm, columns)
    parts = (heads * plain, heads * latent.turning)
    queries = writer.linear(
        "queries", source, Weight((query.format(number),), parts, columns, groups=heads, split="rows")
    )
    down = Weight((names.down.format(number),), (latent.rank, latent.turning), hidden, bias=latent.bias)
    keys = writer.linear("latent", x, down)
    writer.norm_op(keys, keys, (names.norm.format(number),), latent.norm, latent.rank)
    rope = writer.ropes.index(spec.rope)
    for value, count, first in ((queries, heads, parts[0]), (keys, 1, latent.rank)):
        writer.ops.append(Rotary(value, count, latent.turning, first, rope, spec.rope_adjacent))
    size, up = heads * (plain + latent.value_dim), (names.up.format(number),)
    firsts = [head * (plain + latent.value_dim) for head in range(heads)]
    to_latents = [Weight(up, (latent.rank,), plain, transposed=True, within=Within(f, size)) for f in firsts]
    of_latents = [Weight(up, (latent.value_dim,), latent.rank, within=Within(f + plain, size)) for f in firsts]
    absorbed, weighed = (writer.value(name, heads * width) for name in ("absorbed", "weighed"))
    attended = writer.value("attended", heads * latent.value_dim)
    layer = writer.cache_layer(1, width, number, shared=True)
    writer.ops += [
        StoreKV(keys, layer, 1, width, 0, 0),
        HeadLinear(absorbed, queries, tuple(to_latents), plain, parts[0], latent.turning),
        Attention(weighed, absorbed, layer, heads, 1, width, spec.scale, spec.window),
        HeadLinear(attended, weighed, tuple(of_latents), width),
    ]
    return attended
