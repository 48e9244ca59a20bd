"""`Writer`: the operations that every part of a model is written with. Imports no torch."""

from __future__ import annotations

from tgi.kernels.program import CacheLayer, LayerNorm, Linear, Op, RmsNorm
from tgi.kernels.rope_spec import RopeSpec
from tgi.kernels.weight import Vector, Weight
from tgi.models.spec import ModelSpec, NormSpec


class Writer:
    """Writes operations in order. Values are used again from layer to layer."""

    def __init__(self, spec: ModelSpec, decoder: ModelSpec | None = None) -> None:
        """decoder: of an encoder, whose layers have keys and values in the cache layers of that."""
        self.spec, self.decoder, whole = spec, decoder, decoder or spec
        self.cache_layers = len(whole.layers)
        layers = [*whole.layers, *(whole.encoder.layers if whole.encoder else ())]
        layers = [layer for layer in layers if layer.mixer is None]
        ropes = (rope for layer in layers for rope in (layer.attention.rope, layer.attention.query_rope))
        self.ropes: list[RopeSpec] = list(dict.fromkeys(filter(None, ropes)))
        self.values: dict[str, int] = {}
        self.ops: list[Op] = []
        self.cache: list[CacheLayer] = []
        self.cached: dict[int, int] = {}
        """Layer -> its layer of the cache."""
        self.states: list[int] = []

    def cache_layer(
        self, kv_heads: int, head_dim: int, number: int, keys_of: int | None = None, *, shared: bool = False
    ) -> int:
        """The number of one more layer of the cache; of an encoder's layer, that of a decoder's.

        keys_of: the layer whose one this layer reads. shared: see `CacheLayer`.
        """
        if self.decoder is not None:
            return number % self.cache_layers
        if keys_of is None:
            self.cache.append(CacheLayer(kv_heads, head_dim, shared))
        self.cached[number] = self.cached[keys_of] if keys_of is not None else len(self.cache) - 1
        return self.cached[number]

    def linear(self, out: str, x: str, weight: Weight) -> str:
        out = self.value(out, weight.rows)
        self.ops.append(Linear(out, x, weight))
        return out

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
            self.ops.append(RmsNorm(out, x, scale, norm.eps, width, heads, offset, each))
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
