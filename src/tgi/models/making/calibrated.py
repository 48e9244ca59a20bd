"""`--method gptq` and `awq`: checkpoints that other servers read as well, matrix by matrix along a text.

What a matrix gives is compared with what it gave in the original, and with it what all matrices before it have lost:
where its outputs are added to a sum of earlier ones, it makes up for these, too.
"""

from __future__ import annotations

import logging
from collections import Counter

import torch

from tgi.errors import ModelError
from tgi.kernels.program import Linear
from tgi.kernels.weight import Weight
from tgi.models.loader import Opened, opened
from tgi.models.making.files import awq_settings, gptq_settings
from tgi.models.making.folds import find_folds, folded_tensors
from tgi.models.making.job import Job
from tgi.models.making.modules import refuse_quantised, rows_by_module, stored_module, stored_weights
from tgi.models.making.output import Output
from tgi.models.making.report import Report, Say
from tgi.models.making.stream import CPU, Inputs, read_matrix, stream
from tgi.models.weight_files import some
from tgi.quant.calibration import calibration_texts
from tgi.quant.making.awq import column_scales
from tgi.quant.making.gptq import Rounded, corrected, gptq, nearest
from tgi.quant.making.grid import Grid
from tgi.quant.making.layouts import Layout, awq_layout, gptq_layout
from tgi.quant.reader import ModelWeights

logger = logging.getLogger(__name__)
CORRECTION_DAMPING = 0.3
"""Of the mean of a Hessian's diagonal: with less, matrices learn the text by heart."""
FEWEST = 64
"""Rows of inputs; fewer say too little, and the nearest codes are taken."""


def make(job: Job, say: Say) -> Report:
    """Write the checkpoint. Raises ModelError."""
    output = Output(job)
    with opened(job.source, None, CPU) as it:
        refuse_quantised(it)
        if it.program.encoder is not None:
            raise ModelError(f"--method {job.method} is for decoders, and the model has an encoder: use --method int4")
        maker = Maker(job, it, output)
        texts = calibration_texts(output.source, job.calibration, it.program.vocab_size, job.tokens)
        count = len(it.program.ops)
        stream(it.program, maker.weights, texts, maker.round, lambda done: say(done, count, "Quantising"))
        maker.round_the_rest()
        say(count, count, "Writing")
        return maker.finish()


class Maker:
    """Rounds each matrix as it comes, and writes it down."""

    def __init__(self, job: Job, it: Opened, output: Output) -> None:
        """Raises ModelError where there is nothing that the settings fit."""
        self._job, self._it, self._output = job, it, output
        self.weights = ModelWeights(it.source, torch.float32)
        awq = job.method == "awq"
        self._grid = Grid(job.bits, job.group, job.symmetric, least_zero=0 if awq else 1)
        self._layout: Layout = awq_layout() if awq else gptq_layout(job.bits, job.group)
        uses = Counter(op.weight for op in it.program.ops if isinstance(op, Linear))
        fit, unfit = [], []
        for weight in it.program.weights():
            if weight.role == "layer":
                (fit if uses[weight] <= 1 and self._fits(weight) else unfit).append(weight)
        self._fit, self._left = set(fit), unfit
        if not fit:
            raise ModelError(
                f"no matrix can be kept in {job.bits} bits with --groupsize {job.group}: {self._why(unfit)}"
            )
        if unfit:
            logger.warning("%d matrices stay floats: %s", len(unfit), self._why(unfit))
        self._folds = {
            weight: fold
            for weight, fold in (find_folds(it.program) if awq else {}).items()
            if weight in self._fit and (fold.matrix is None or fold.matrix in self._fit)
        }
        self._made: set[Weight] = set()
        self._report = Report()

    def round(self, weight: Weight, matrix: torch.Tensor, inputs: Inputs | None) -> torch.Tensor:
        """See `stream.Round`; inputs: None where there are none."""
        if weight not in self._fit:
            return matrix
        self._made.add(weight)
        key = _key(weight)
        if not self._output.has(key):
            scales = self._column_scales(weight, matrix, inputs)
            rounded = self._rounded(matrix, inputs, scales)
            tensors = self._tensors(weight, rounded)
            self._output.write(key, tensors | ({scales_name(weight): scales} if scales is not None else {}))
            found = rounded.weights()
        else:
            tensors = self._output.read(key)
            scales = tensors.pop(scales_name(weight), None)
            found = torch.empty_like(matrix)
            for name, rows in rows_by_module(weight).items():
                found[rows] = self._layout.weights(_of_module(tensors, self._module(weight, name)), matrix.shape[1])
        self._report.add(weight, sum(tensor.nbytes for tensor in tensors.values()))
        return found if scales is None else found / scales

    def round_the_rest(self) -> None:
        """Matrices that the text did not reach, such as experts that nothing chose."""
        left = [weight for weight in self._it.program.weights() if weight in self._fit - self._made]
        if left:
            names = some([weight.names[0] for weight in left])
            logger.warning(
                "The calibration text does not reach %d matrices, which get the nearest codes: %s", len(left), names
            )
        for weight in left:
            self.round(weight, read_matrix(weight, self.weights), None)

    def finish(self) -> Report:
        """Put the checkpoint together."""
        replaced = set().union(*(stored_weights(self._it, weight) for weight in self._fit))
        overrides: dict[str, torch.Tensor] = {}
        for weight, fold in self._folds.items():
            scales = self._output.read(_key(weight)).get(scales_name(weight))
            if scales is not None:
                target = {} if fold.matrix is None else self._output.read(_key(fold.matrix))
                overrides |= folded_tensors(self._it, fold, scales, target | overrides)
        left = [stored_module(self._it, weight, name) for weight in self._left for name in weight.names]
        settings = (awq_settings if self._job.method == "awq" else gptq_settings)(self._job, left)
        side = {} if self._job.method == "awq" else {"quantize_config.json": settings}
        self._report.bytes = self._output.finish(replaced, {"quantization_config": settings}, overrides, side)
        return self._report

    def _fits(self, weight: Weight) -> bool:
        plain = weight.within is None and not weight.unit_rows and weight.suffixes[0] == ".weight"
        rows = [len(rows) for rows in rows_by_module(weight).values()]
        return plain and all(self._layout.fits(count, weight.columns, self._job.group) for count in rows)

    def _why(self, weights: list[Weight]) -> str:
        shown = [f"{weight.names[0]} [{weight.rows}, {weight.columns}]" for weight in weights]
        return f"{some(shown)} ({self._layout.needs})"

    def _module(self, weight: Weight, name: str) -> str:
        return stored_module(self._it, weight, name)

    def _column_scales(self, weight: Weight, matrix: torch.Tensor, inputs: Inputs | None) -> torch.Tensor | None:
        fold = self._folds.get(weight)
        if fold is None or inputs is None or len(inputs.rounded) < FEWEST:
            return None
        x = inputs.rounded
        shared = None if fold.rows is None else torch.unique(fold.rows, return_inverse=True)[1]
        return column_scales(matrix, moment(x), x.abs().mean(0), self._grid, shared)

    def _rounded(self, matrix: torch.Tensor, inputs: Inputs | None, scales: torch.Tensor | None) -> Rounded:
        if inputs is None or len(inputs.rounded) < FEWEST:
            return nearest(matrix, self._grid)
        x, percdamp = inputs.rounded, self._job.percdamp
        hessian = moment(x)
        if inputs.original is not None:
            matrix = corrected(matrix, missing_moment(matrix, inputs), hessian, CORRECTION_DAMPING)
        if scales is not None:
            matrix, hessian = matrix * scales, hessian / scales / scales.unsqueeze(1)
        return gptq(matrix, hessian, self._grid, percdamp=percdamp, act_order=self._job.act_order)

    def _tensors(self, weight: Weight, rounded: Rounded) -> dict[str, torch.Tensor]:
        return {
            f"{self._module(weight, name)}.{end}": tensor
            for name, rows in rows_by_module(weight).items()
            for end, tensor in self._layout.tensors(rounded.rows_of(rows)).items()
        }


def moment(x: torch.Tensor) -> torch.Tensor:
    """x [rows, columns] -> the mean of x x^T, [columns, columns]"""
    return x.t() @ x / len(x)


def missing_moment(matrix: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """The mean of m x^T [outputs, columns], m being what a matrix's outputs should have more, x what it gets."""
    assert inputs.original is not None
    x, lost = inputs.rounded, inputs.original - inputs.rounded
    if len(matrix) < matrix.shape[1]:  # the cheaper of two orders
        missing = lost @ matrix.t()
        return (missing if inputs.missing is None else missing.add_(inputs.missing)).t() @ x / len(x)
    found = matrix @ (lost.t() @ x)
    return (found if inputs.missing is None else found.addmm_(inputs.missing.t(), x)) / len(x)


def scales_name(weight: Weight) -> str:
    """Under which the scales of a matrix's columns are kept until the end: no name of a tensor has such a sign."""
    return f"{weight.names[0]}#scales"


def _key(weight: Weight) -> str:
    return f"{weight.names[0]} {weight.within}"


def _of_module(tensors: dict[str, torch.Tensor], module: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(f"{module}."): tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")
    }
