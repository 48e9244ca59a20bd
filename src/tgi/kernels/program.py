"""A model as a program: a list of named operations on named values, with references to weights.

Pure data. `models.build` writes a program from a `ModelSpec`, passes rewrite it, a backend loads and runs it; the
memory plan, parameter counts and `tgi plan` read it. A value holds one row of numbers for each token of a step. Imports
no torch.

To add an axis: a field in one operation here, its line in `reference.step`, its field in csrc/tgi.h and
`native.structs`, its kernel, and the builder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.rope_spec import RopeSpec
from tgi.kernels.weight import Vector, Weight

Activation: TypeAlias = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2", "quick_gelu", "xielu"]
"""Names of activation functions as Hugging Face configs have them."""


@dataclass(frozen=True, slots=True)
class Embed:
    """out = the row of `table` for the token's id, or for its position in the sequence plus `first`."""

    out: str
    table: Weight
    by_position: bool = False
    first: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """out += x"""

    out: str
    x: str


@dataclass(frozen=True, slots=True)
class Scale:
    """out *= factor. rounded: the factor is rounded to the serving dtype first, as some training code does.

    learned: a number that multiplies the factor.
    """

    out: str
    factor: float
    rounded: bool = False
    learned: Vector | None = None


@dataclass(frozen=True, slots=True)
class Clamp:
    """out = out, but -limit where it is less and limit where it is more."""

    out: str
    limit: float


@dataclass(frozen=True, slots=True)
class SoftCap:
    """out = cap * tanh(out / cap) (Bello et al. 2016)"""

    out: str
    cap: float


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019).

    width: numbers that are normalised together. With `heads` each of them, `width` numbers from `offset` on, is
    normalised by itself, and x must be out. each: every head has a part of `weight` for itself, which then holds
    `heads` times as many numbers.
    """

    out: str
    x: str
    weight: Vector | None
    eps: float
    width: int
    heads: int = 1
    offset: int = 0
    each: bool = False


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias (Ba et al. 2016); heads as in `RmsNorm`."""

    out: str
    x: str
    weight: Vector | None
    bias: Vector | None
    eps: float
    width: int
    heads: int = 1
    offset: int = 0
    each: bool = False


@dataclass(frozen=True, slots=True)
class Linear:
    """out = weight x + bias; with `add`: out += that."""

    out: str
    x: str
    weight: Weight
    add: bool = False


@dataclass(frozen=True, slots=True)
class HeadLinear:
    """Head h of out = weights[h] (head h of x), followed by head h of what x has from `rest` on, if `tail` is not 0.

    Heads of x are as wide as the weights' columns, those of what follows `tail` numbers.
    """

    out: str
    x: str
    weights: tuple[Weight, ...]
    stride: int
    """Numbers of x from one head to the next."""
    rest: int = 0
    tail: int = 0

    @property
    def width(self) -> int:
        """Numbers of a head of out."""
        return self.weights[0].rows + self.tail


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotate each of `heads` heads of `head_dim` numbers from `offset` on in x, in place (Su et al. 2021).

    rope: index into `Program.ropes`. adjacent: pairs are (x[2i], x[2i + 1]), else (x[i], x[i + half]).
    """

    x: str
    heads: int
    head_dim: int
    offset: int = 0
    rope: int = 0
    adjacent: bool = False


@dataclass(frozen=True, slots=True)
class Activate:
    """out = function(x); parameters: the learned numbers of xielu, see `reference.ops.xielu`."""

    out: str
    x: str
    function: Activation
    parameters: Vector | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """out = function(first half of x) * second half of x"""

    out: str
    x: str
    function: Activation


Scores: TypeAlias = Literal["softmax", "sigmoid", "sparsemixer"]
"""How a router's logits become scores, see `Experts`."""


@dataclass(frozen=True, slots=True)
class Experts:
    """out = sum over the chosen experts e of weight(e) * (down[e] (function(first half of h) * second half of h)),
    h = up[e] x (Shazeer et al. 2017).

    `router` has a logit for each expert, and `scores` says what their scores are: softmax over all, sigmoid of each, or
    those of sparsemixer (see `reference.routing`). Chosen are the `top` largest of score + `correction`, ties by lower
    number; of `groups` groups of experts only from the `top_groups` best, by the sum of their `group_best` largest
    (DeepSeek-V2, V3). Weights are the scores, divided by their sum where `normalise`, times `scale` and the expert's
    number of `scales`; with `weigh_inputs` x is multiplied by them and not what comes of it. With `shared` the last
    expert stands apart: it is always chosen, with the sigmoid of its logit as its weight. limit: the first half of h is
    cut above it, the second to -limit ... limit, and 1 is added to that. Sums are taken in the order of the experts'
    numbers, so that a row's result does not depend on the rows computed with it.
    """

    out: str
    x: str
    router: str
    up: tuple[Weight, ...]
    down: tuple[Weight, ...]
    top: int
    function: Activation
    normalise: bool
    shared: bool = False
    scores: Scores = "softmax"
    correction: Vector | None = None
    groups: int = 1
    top_groups: int = 1
    group_best: int = 1
    scale: float = 1.0
    weigh_inputs: bool = False
    limit: float | None = None
    jitter: float = 0.0
    """sparsemixer: experts further from the best than twice this part of it have no share."""
    scales: Vector | None = None


@dataclass(frozen=True, slots=True)
class Multiply:
    """out *= function(what x has from `offset` on); no function: x itself."""

    out: str
    x: str
    offset: int = 0
    function: Literal["silu", "sigmoid"] | None = None


@dataclass(frozen=True, slots=True)
class StoreKV:
    """Write keys and values of `kv_heads` heads, from these offsets of x, to the row's slot of cache layer `layer`.

    Where the layer shares them, only keys.
    """

    x: str
    layer: int
    kv_heads: int
    head_dim: int
    keys: int
    values: int


Sees: TypeAlias = Literal["before", "all", "encoder"]
"""Which keys a row of attention sees: those of its sequence up to its own, all of its sequence, or all that the encoder
left of the sequence's input."""


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """What is added to scores for the distance of the key, a number for each bucket of distances and each head
    (Raffel et al. 2020).

    The first half of the buckets are for one distance each; in the others distances grow by a factor, up to `furthest`.
    both_ways: keys that come later have the upper half of the buckets for themselves.
    """

    table: Weight
    """[buckets, heads]"""
    furthest: int
    both_ways: bool


@dataclass(frozen=True, slots=True)
class Attention:
    """out = attention of the queries at offset `queries` of x over cache layer `layer`.

    What rows see is already stored. With a window w the row at position p sees keys p - w + 1 .. p, with chunks of c
    those from the last multiple of c on.
    Scores are scale * q.k, then soft_cap * tanh(score / soft_cap), then, with ALiBi, plus slope * (key position - p), a
    slope for each head, or plus the bias of that distance; softmax in float32. sinks: a score for each head that is in
    the softmax and has no value.
    """

    out: str
    x: str
    layer: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    soft_cap: float | None = None
    slopes: tuple[float, ...] | None = None
    queries: int = 0
    sinks: Vector | None = None
    chunk: int | None = None
    sees: Sees = "before"
    bias: RelativeBias | None = None


Op: TypeAlias = (
    Embed
    | Add
    | Scale
    | Clamp
    | SoftCap
    | RmsNorm
    | LayerNorm
    | Linear
    | HeadLinear
    | Rotary
    | Activate
    | Gate
    | Experts
    | Multiply
    | Convolve
    | Scan
    | DeltaRule
    | StoreKV
    | Attention
)


@dataclass(frozen=True, slots=True)
class Logits:
    """The head: scale * weight x, then soft_cap * tanh(logit / soft_cap), in float32."""

    weight: Weight
    scale: float = 1.0
    soft_cap: float | None = None


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What one attention layer keeps for each token."""

    kv_heads: int
    head_dim: int
    shared: bool = False
    """The values are the keys, as of latents, and are kept once."""

    @property
    def stores(self) -> int:
        """How many rows of all heads a token takes."""
        return 1 if self.shared else 2


@dataclass(frozen=True, slots=True)
class Encoder:
    """What is run once over the input of a sequence, before its first step: it leaves keys and values in the cache.

    The layers of the cache are those of the steps: of the blocks that hold an input, the encoder's own attention uses
    them first, and then each has what the decoder's layer of that number attends to.
    """

    values: Mapping[str, int]
    ops: tuple[Op, ...]
    result: str
    max_positions: int
    """Longest input."""


@dataclass(frozen=True, slots=True)
class Program:
    """The step of a model: token ids in, `result` out, of whose sampling rows `logits` are taken."""

    values: Mapping[str, int]
    """Name of a value -> numbers in its row."""
    ops: tuple[Op, ...]
    result: str
    logits: Logits
    ropes: tuple[RopeSpec, ...]
    cache: tuple[CacheLayer, ...]
    max_positions: int
    """Longest sequence the model can run."""
    states: tuple[int, ...] = ()
    """Numbers of each state that a sequence has beside its keys and values, in float32."""
    positions_go_on: bool = False
    """Beyond it too there are positions, so that a longer one may be asked for."""
    encoder: Encoder | None = None

    @property
    def vocab_size(self) -> int:
        return self.logits.weight.rows

    @property
    def input_vocab_size(self) -> int:
        """Ids that an input may have: of the encoder, where there is one."""
        ops = self.ops if self.encoder is None else self.encoder.ops
        return next((op.table.rows for op in ops if isinstance(op, Embed) and not op.by_position), self.vocab_size)

    @property
    def all_ops(self) -> tuple[Op, ...]:
        """The encoder's first."""
        return (*(self.encoder.ops if self.encoder else ()), *self.ops)

    def weights(self) -> list[Weight]:
        """Every matrix once, in the order in which the encoder and a step read them."""
        found = [item for op in (*self.all_ops, self.logits) for item in _parameters(op) if isinstance(item, Weight)]
        return list(dict.fromkeys(found))

    def vectors(self) -> list[Vector]:
        """Every vector once: scales and biases of norms, numbers of activation functions."""
        found = [item for op in self.all_ops for item in _parameters(op) if isinstance(item, Vector)]
        return list(dict.fromkeys(found))

    @property
    def parameters(self) -> int:
        """Numbers in all weights, biases and vectors; a tied head counts once."""
        matrices = sum(weight.distinct_rows * (weight.columns + weight.bias) for weight in self.weights())
        return matrices + sum(vector.size for vector in self.vectors())


def _parameters(op: Op | Logits) -> Iterator[object]:
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, RelativeBias):
            value = value.table
        yield from value if isinstance(value, tuple) else (value,)
