"""Reading matrices into packed layers, piece by piece."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import replace

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, GROUP, CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.native.eight import load_eight
from tgi.kernels.native.library import Arena, Feedback, Pool
from tgi.kernels.native.linear import Apart, PackedLinear
from tgi.kernels.native.parts import Layers, parts_of, separable
from tgi.kernels.native.stored import load_stored
from tgi.kernels.program import Program
from tgi.kernels.reference.backend import ReferenceBackend
from tgi.kernels.reference.walk import walk
from tgi.kernels.rotation import ROTATION
from tgi.kernels.types import WeightReader
from tgi.kernels.weight import Weight

logger = logging.getLogger(__name__)


class Loader:
    """Loads the matrices of one program, and remembers where rounding could make no use of the calibration text."""

    def __init__(self, pool: Pool, arena: Arena, weights: WeightReader) -> None:
        self._pool, self._arena, self._weights = pool, arena, weights
        self.layers: dict[Weight, PackedLinear] = {}
        self._unknown: list[str] = []
        self._worse: list[str] = []
        self._kept: Counter[str] = Counter()

    def load(self, weight: Weight, inputs: Inputs | None) -> PackedLinear:
        """Read a matrix and pack it. inputs: which it gets, as far as known."""
        format = self._weights.format_of(weight)
        wanted = bool(self._weights.calibration) and format is not None and format.feedback
        feedback = None
        if wanted and inputs is None:
            self._unknown.append(weight.names[0])
        elif wanted and inputs is not None:
            factors = feedback_factors(self._pool, inputs.importance)
            feedback = Feedback(factors.data_ptr(), inputs.importance.data_ptr())
        layer = load_layer(self._pool, self._arena, weight, self._weights, feedback)
        if feedback is not None and feedback.rounded_error > feedback.plain_error:
            self._worse.append(weight.names[0])
            for first, piece in self._weights.pieces(weight, rounded=False):
                if not isinstance(piece, CodedWeight):
                    layer.pack(piece, first)
        self.layers[weight] = layer
        self._kept[layer.format] += 1
        return layer

    def say(self) -> None:
        """Log what was rounded without feedback though it was wanted, and what a quantised checkpoint is kept as."""
        if self._weights.keeps_codes:
            kept = ", ".join(f"{count} in {name}" for name, count in self._kept.most_common())
            logger.info("Matrices of codes and beside them are kept as follows: %s", kept)
        for names, why in (
            (self._unknown, "the calibration text shows no inputs of them"),
            (self._worse, "feedback made their error on the calibration text larger"),
        ):
            if names:
                some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
                logger.warning("%d matrices are rounded without error feedback, since %s: %s", len(names), why, some)


def load_layers(pool: Pool, arena: Arena, program: Program, weights: WeightReader) -> Layers:
    """Every matrix of a program, packed; with a text to calibrate on, in the order in which it runs over that."""
    loader, parts = Loader(pool, arena, weights), {}
    apart = separable(program) if weights.stored_codes else set()
    threads = torch.get_num_threads()
    if weights.calibration or weights.keeps_codes:
        # Torch does little here; with one thread its sums, and so the codes, are the same wherever the model is loaded.
        # Of codes it does many small operations, after each of which its team would spin beside that which packs.
        torch.set_num_threads(1)
    try:
        if weights.calibration:
            walk(program, weights, loader.load, ReferenceBackend(torch.device("cpu")))
        for weight in program.weights():
            parts[weight] = parts_of(weight, weights) if weight in apart else (weight,)
            for part in parts[weight]:
                if part not in loader.layers:
                    loader.load(part, None)
    finally:
        torch.set_num_threads(threads)
    loader.say()
    return Layers(loader.layers, {weight: several for weight, several in parts.items() if len(several) > 1})


def load_layer(
    pool: Pool,
    arena: Arena,
    weight: Weight,
    weights: WeightReader,
    feedback: Feedback | None = None,
) -> PackedLinear:
    """Read a matrix and pack it, in codes where the reader says so. feedback: for floats that are rounded.

    Raises ModelError for codes that no packed format can hold; codes of a matrix that is to be floats are dequantised,
    but where the reader keeps codes and `stored` or `eight` can hold them.
    """
    format, layer = weights.format_of(weight), None
    if weights.keeps_codes and format is None:
        layer = load_stored(pool, arena, weight, weights) or load_eight(pool, arena, weight, weights)
        if layer is not None:
            finish(layer, weight, weights)
            return layer
    for first, piece in weights.pieces(weight, rounded=False):
        if isinstance(piece, CodedWeight) and format is not None:
            layer = layer or _layer_of_codes(pool, arena, weight, format, piece, weights.activations)
            pack_codes(layer, weight, piece, first)
            continue
        layer = layer or make_layer(pool, arena, weight, weights)
        layer.pack(piece.dequantise() if isinstance(piece, CodedWeight) else piece, first, feedback)
    layer = layer or make_layer(pool, arena, weight, weights)
    finish(layer, weight, weights)
    return layer


def feedback_factors(pool: Pool, importance: torch.Tensor) -> torch.Tensor:
    """`Inputs.factors` from importance [columns] float32."""
    factors = torch.empty((-(-len(importance) // ROTATION), ROTATION, ROTATION))
    call = pool.library.call
    call.tgi_feedback_factors(pool.handle, importance.data_ptr(), len(importance), factors.data_ptr())
    return factors


def make_layer(pool: Pool, arena: Arena, weight: Weight, weights: WeightReader) -> PackedLinear:
    """An empty layer for a matrix that comes as floats."""
    format = weights.format_of(weight)
    if format is None:
        name = str(weights.dtype).removeprefix("torch.")
        return PackedLinear(pool, arena, name, weight.columns, weight.rows, bias=weight.bias)
    return _layer(pool, arena, weight, format, weights.activations)


def finish(layer: PackedLinear, weight: Weight, weights: WeightReader) -> None:
    """What follows the last row."""
    bias = weights.bias(weight)
    if bias is not None:
        layer.set_bias(bias)
    layer.finish()


def _layer(
    pool: Pool, arena: Arena, weight: Weight, format: CodeFormat, activations: str, apart: Apart | None = None
) -> PackedLinear:
    group = format.group
    if apart is not None:
        group = math.gcd(apart.scale_group, GROUP) if apart.scale_group else GROUP
    return PackedLinear(
        pool,
        arena,
        format.name,
        weight.columns,
        weight.rows,
        group=group,
        apart=apart,
        rotated=format.rotated,
        bias=weight.bias,
        activations=activations,
    )


def _layer_of_codes(
    pool: Pool, arena: Arena, weight: Weight, format: CodeFormat, piece: CodedWeight, activations: str
) -> PackedLinear:
    """A layer for codes like those of the first piece."""
    columns = piece.group * format.scales
    if format.scales > 1 and columns != format.group:
        raise _refusal(weight, f"groups of {piece.group} columns in {format.name}")
    if columns % 16 and columns < weight.columns:
        raise _refusal(weight, f"groups of {piece.group} columns")
    shape = replace(format, group=0 if columns >= weight.columns and columns % 16 else columns, rotated=piece.rotated)
    zero_points = piece.zeros is not None and format.scales == 1 and not piece.rotated
    apart = Apart(shape.group, zero_bits=8) if zero_points else None
    return _layer(pool, arena, weight, shape, activations, apart)


def pack_codes(layer: PackedLinear, weight: Weight, piece: CodedWeight, first: int) -> None:
    """Pack rows first ... from codes. Raises ModelError, naming the matrix, for what the layer would have to drop."""
    format = CODE_FORMATS[layer.format]
    if piece.mins is not None:
        raise _refusal(weight, "minimums")
    if piece.order is not None:
        raise _refusal(weight, "columns in another order")
    group = layer.group if layer.apart is None else layer.apart.scale_group
    if piece.rotated != layer.rotated or (group and piece.group * format.scales != group):
        raise _refusal(weight, "rows of different forms")
    if piece.codebook is None and format.book is not None:
        raise _refusal(weight, f"codes without the values of {format.name}")
    if piece.codebook is not None and piece.codebook.tolist() != list(format.book or ()):
        raise _refusal(weight, f"a codebook other than that of {layer.format}")
    if int(piece.codes.max()) >> format.bits:
        raise _refusal(weight, f"codes beyond {format.bits} bits")
    zeros = _zero_points(weight, piece, format)
    if zeros is not None and layer.apart is None:
        if bool((zeros != format.zero).any()):
            raise _refusal(weight, "zero points in some rows only" if format.scales == 1 else "zero points")
        zeros = None
    if zeros is None and layer.apart is not None:
        zeros = torch.full_like(piece.scales, format.zero)
    layer.pack_codes(piece.codes, piece.scales, zeros, first=first)


def _zero_points(weight: Weight, piece: CodedWeight, format: CodeFormat) -> torch.Tensor | None:
    """Zero points as a layer takes them; None: the symmetric ones."""
    if piece.zeros is None:
        if format.book is None:
            raise _refusal(weight, "unsigned codes without zero points")
        return None
    if format.book is not None:
        raise _refusal(weight, "zero points beside a codebook")
    zeros = piece.zeros.float()
    if bool(((zeros != zeros.round()) | (zeros < 0) | (zeros > 255)).any()):
        raise _refusal(weight, "zero points that are no whole numbers from 0 to 255")
    return zeros


def _refusal(weight: Weight, what: str) -> ModelError:
    return ModelError(
        f"{weight.names[0]} is stored with {what}, which the native kernels cannot hold: "
        "serve it with --disable-custom-kernels, or serve the unquantised checkpoint"
    )
