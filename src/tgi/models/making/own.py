"""`--method int8` to `int4`: what `--quantize` of that name makes on the fly, loaded once and written down."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.native.backend import make_backend
from tgi.kernels.native.step import NativeStep
from tgi.models.loader import Opened, opened
from tgi.models.making.job import Job
from tgi.models.making.modules import refuse_quantised, rows_by_module, stored_weights
from tgi.models.making.output import Output
from tgi.models.making.report import Report, Say
from tgi.quant.calibration import calibration_ids
from tgi.quant.formats.own import VERSION, module_of, stored_tensors
from tgi.quant.reader import ModelWeights
from tgi.quant.scheme import format_of, has_feedback


def make(job: Job, say: Say) -> Report:
    """Write the checkpoint. Raises ModelError."""
    backend = make_backend(job.threads)
    if backend is None:
        raise ModelError(f"--method {job.method} needs the native kernels, and none run here: `tgi doctor` says why")
    output = Output(job)
    with opened(job.source, None, backend.device, progress=lambda done, total: say(done, total, "Rounding")) as it:
        refuse_quantised(it)
        ids = calibration_ids(output.source, job.calibration, it.program.vocab_size) if has_feedback(job.method) else ()
        weights = ModelWeights(it.source, it.serving, job.method, calibration=ids)
        step = backend.load(it.program, weights)
        it.finish()
        return _write(step, it, output, job, say)


def _write(step: NativeStep, it: Opened, output: Output, job: Job, say: Say) -> Report:
    report, replaced = Report(), set[str]()
    for number, (weight, layer) in enumerate(step.layers.items()):
        format = format_of(weight, job.method)
        if format is None:
            continue
        coded = layer.coded(0, weight.rows)
        tensors = {}
        for name, rows in rows_by_module(weight).items():
            module = module_of(weight, name)
            part = _rows(coded, rows)
            tensors |= {f"{module}.{end}": tensor for end, tensor in stored_tensors(part, format).items()}
        output.write(f"{weight.names[0]} {weight.within}", tensors)
        replaced |= stored_weights(it, weight)
        report.add(weight, sum(tensor.nbytes for tensor in tensors.values()))
        say(number + 1, len(step.layers), "Writing")
    floats = {it.source.stored_name(name) for name in _float_tensors(it, job.method)}
    settings = {"quant_method": "tgi", "scheme": job.method, "version": VERSION}
    report.bytes = output.finish(replaced - floats, {"quantization_config": settings})
    return report


def _float_tensors(it: Opened, method: str) -> Iterator[str]:
    """Tensors of matrices that stay floats: another matrix may be made of the same."""
    for weight in it.program.weights():
        if format_of(weight, method) is None:
            yield from (name for name, _ in weight.stored_shapes())


def _rows(coded: CodedWeight, rows: torch.Tensor) -> CodedWeight:
    if len(rows) == len(coded.codes) and bool((rows == torch.arange(len(rows))).all()):
        return coded
    return coded.rows_of(rows)
