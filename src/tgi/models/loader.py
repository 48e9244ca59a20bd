"""From a checkpoint directory to a compiled step.

Owns the order of things: config, family, program, serving dtype, weights, verdict.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tgi.errors import ModelError
from tgi.kernels.outline import Outline
from tgi.kernels.program import Program
from tgi.kernels.types import Backend, CacheShape, CompiledStep
from tgi.models import dtypes
from tgi.models.build.decoder import build
from tgi.models.config_reader import read_config
from tgi.models.decoder_start import never_generated
from tgi.models.families.registry import saved_without_head, spec_from_config
from tgi.models.gguf.tensors import GgufTensors
from tgi.models.spec import ModelSpec
from tgi.models.weights import Progress, Weights
from tgi.quant.calibration import calibration_ids
from tgi.quant.checkpoint import Stored, read_stored, rounding
from tgi.quant.formats import format_for
from tgi.quant.reader import ModelWeights
from tgi.quant.scheme import has_feedback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, and what there is to say of it."""

    step: CompiledStep
    spec: ModelSpec | None
    """None where transformers computes it."""
    stored: str | None = None
    """The quantisation that the checkpoint came in; None: plain weights."""
    shares_blocks: bool = True
    """See `EngineInfo.shares_blocks`."""

    @property
    def model_type(self) -> str:
        """As in config.json."""
        program = self.step.program
        return program.model_type if isinstance(program, Outline) else self.spec.model_type if self.spec else ""

    @property
    def dtype(self) -> torch.dtype:
        """The serving dtype."""
        return self.step.dtype

    def cache_shape(self, dtype: torch.dtype | None = None) -> CacheShape:
        """What the model keeps in the cache, in its serving dtype or in `dtype`."""
        program = self.step.program
        return CacheShape(program.cache, dtype or self.dtype, program.states)


def load_model(
    path: str | Path,
    dtype: torch.dtype | str | None,
    backend: Backend,
    *,
    spec: ModelSpec | None = None,
    quantize: str | None = None,
    activations: str = "int8",
    calibration: str | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load the checkpoint in directory `path` into `backend`.

    spec: what its config says, where that is known already: each reading of it warns about what it does not know.
    dtype: None takes the checkpoint's own. quantize: a scheme of `quant.scheme` rounds plain weights while they are
    read; the name of the checkpoint's own quantisation changes nothing. activations: see `EngineConfig.activations`.
    calibration: a text file for rounding, in place of the bundled
    one. Raises ModelError with a sentence for the user.
    """
    with opened(path, dtype, backend.device, spec=spec, progress=progress) as it:
        quantize, stored = rounding(quantize, it.said), format_for(it.said)
        ids: Sequence[int] = ()
        if it.said is not None and it.said.scheme is not None:
            if calibration is not None:
                raise ModelError(f"--calibration {calibration}: the checkpoint is already rounded to {it.said.scheme}")
        elif has_feedback(quantize):
            ids = calibration_ids(Path(path), calibration, it.program.vocab_size)
        step = backend.load(it.program, ModelWeights(it.source, it.serving, quantize, activations, stored, ids))
        it.finish(stored.ignored)
    return LoadedModel(step, it.spec, it.said.method if it.said else None)


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose files are open, and the program that it is to be read into."""

    source: Weights
    spec: ModelSpec
    program: Program
    said: Stored | None
    """What it says of its quantisation."""
    serving: torch.dtype

    def finish(self, ignored: tuple[str, ...] = ()) -> None:
        """Raise ModelError unless every tensor was read. ignored: those that the stored format does not need."""
        self.source.finish(tied_head=self.spec.names.head if self.spec.tied_head else None, ignored=ignored)


@contextlib.contextmanager
def opened(
    path: str | Path,
    dtype: torch.dtype | str | None,
    device: torch.device,
    *,
    spec: ModelSpec | None = None,
    progress: Progress | None = None,
) -> Iterator[Opened]:
    """The checkpoint of a native family, open within the block; see `load_model`. Raises ModelError."""
    path = Path(path)
    config = read_config(path)
    spec = spec or spec_from_config(config)
    with Weights(path, spec.names, progress, gguf_parts(path, config, spec)) as source:
        said = read_stored(path, config, source.shapes)
        stored_dtype = spec.dtype or str(source.common_dtype()).removeprefix("torch.")
        serving = serving_dtype(dtype, stored_dtype, device) or torch.float32
        if saved_without_head(config) and not source.has(f"{spec.names.head}.weight"):
            logger.warning(
                "The checkpoint was saved without a head: it is for embeddings. In texts that it generates its "
                "embedding stands in for the head"
            )
        if spec.tied_head and not source.tied(spec.names.embedding, spec.names.head, serving):
            spec = replace(spec, tied_head=False)
        for one in filter(None, (spec, spec.encoder)):
            if one.sinusoidal_positions is not None:
                source.provide(f"{one.names.positions}.weight", sinusoids(one))
        if spec.head_bias and (spec.tied_head or spec.names.head_bias is not None):
            spec = _with_head_bias(spec, source, never_generated(path) if spec.encoder else ())
        yield Opened(source, spec, build(spec), said, serving)


def _with_head_bias(spec: ModelSpec, source: Weights, never: tuple[int, ...]) -> ModelSpec:
    """The head's bias goes from where it is stored to where the head's name would have it; it may not be there.

    never: tokens that get a logit of minus infinity.
    """
    names = spec.names
    stored = names.head_bias or f"{names.head}.bias"
    if not source.has(stored):
        return replace(spec, head_bias=False)
    bias = torch.empty(source.shape(stored))
    source.read(stored, bias)
    bias.view(-1)[[id for id in never if id < spec.vocab_size]] = -math.inf
    source.provide(f"{names.embedding if spec.tied_head else names.head}.bias", bias.flatten())
    return spec


def gguf_parts(path: Path, config: dict[str, Any], spec: ModelSpec) -> list[GgufTensors]:
    """The files of a model in GGUF, as its config.json names them; none for others. Raises ModelError."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") != "gguf":
        return []
    names, architecture = settings.get("files"), settings.get("architecture")
    good = isinstance(names, list) and all(isinstance(name, str) and Path(name).name == name for name in names)
    if not good or not names or not isinstance(architecture, str):
        raise ModelError("`quantization_config` of config.json does not say which GGUF files the model is in")
    attention = spec.layers[0].attention
    heads = (attention.heads, attention.kv_heads)
    return [GgufTensors(path / name, spec.names, architecture, heads, len(spec.layers)) for name in names]


def sinusoids(spec: ModelSpec) -> torch.Tensor:
    """Positions [rows, width] (Vaswani et al. 2017): the sines of all frequencies, then the cosines."""
    rows, width = spec.max_positions + spec.first_position, spec.hidden_size
    half = width // 2
    if spec.sinusoidal_positions == "by half":
        frequencies = torch.exp(torch.arange(half).float() * -(math.log(10_000) / max(half - 1, 1)))
        angles = torch.arange(rows).float()[:, None] * frequencies
        return F.pad(torch.cat((angles.sin(), angles.cos()), dim=1), (0, width % 2))
    frequencies = 10_000 ** (-2 * torch.arange(width - half).double() / width)
    angles = torch.arange(rows).double()[:, None] * frequencies
    return torch.cat((angles.sin(), angles[:, :half].cos()), dim=1).float()


def serving_dtype(wanted: torch.dtype | str | None, checkpoint: str | None, device: torch.device) -> torch.dtype | None:
    """The dtype to serve in: as wanted, else the checkpoint's; None if neither says."""
    if isinstance(wanted, torch.dtype):
        return wanted
    chosen = dtypes.serving_dtype(wanted, checkpoint, device.type)
    if wanted is None and chosen != checkpoint:
        logger.info("Checkpoint in float16: serving it in bfloat16, which has a wider range; --dtype float16 keeps it")
    return None if chosen is None else getattr(torch, chosen)
