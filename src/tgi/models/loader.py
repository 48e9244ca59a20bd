"""From a checkpoint directory to a model in place.

Owns the order of things: config, family, serving dtype, format, weights, verdict. Called by
`engine.worker`; downloading and conversion are the launcher's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tgi.errors import ModelError
from tgi.kernels.ops import Ops
from tgi.layers.linear import Build
from tgi.models.compiled import CompiledDecoder
from tgi.models.config_reader import read_config
from tgi.models.decoder import Decoder
from tgi.models.families import spec_from_config
from tgi.models.rope_config import RopeOverride
from tgi.models.shared_keys import DTYPES
from tgi.models.sizes import parameter_count
from tgi.models.spec import DecoderSpec
from tgi.models.weights import Progress, Weights
from tgi.quant.base import LinearMethod, detect
from tgi.quant.packed import Packed
from tgi.quant.unquantised import Unquantised

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, and what there is to say of it."""

    model: Decoder
    spec: DecoderSpec
    weight_bytes: int
    """Memory the weights take on the device."""
    parameters: int
    dtype: torch.dtype


def load_model(
    path: str | Path,
    dtype: torch.dtype | str | None,
    device: torch.device,
    ops: Ops,
    *,
    rope: RopeOverride | None = None,
    quantize: str | None = None,
    activations: str = "int8",
    progress: Progress | None = None,
) -> LoadedModel:
    """Load the checkpoint in directory `path` onto `device`.

    dtype: None takes the checkpoint's own. quantize: int8 or int4 rounds plain weights while they are read;
    activations: see `EngineConfig.activations`.
    Raises ModelError with a sentence for the user.
    """
    path = Path(path)
    config = read_config(path)
    detect(config)
    spec = spec_from_config(config, rope)
    with Weights(path, spec.names, progress) as weights:
        serving = serving_dtype(dtype, spec.dtype, device) or on_device(weights.common_dtype(), device)
        if spec.tied_head and not weights.tied(spec.names.embedding, spec.names.head, serving):
            spec = replace(spec, tied_head=False)
        build = Build(ops, weights, _method(quantize, activations, serving, ops), serving, device)
        model = Decoder(spec, build) if ops.native is None else CompiledDecoder(spec, build)
        weights.finish(tied_head=spec.names.head if spec.tied_head else None)
    parameters = parameter_count(spec)
    weight_bytes = parameters * serving.itemsize if ops.native is None else ops.native.weight_bytes
    return LoadedModel(model, spec, weight_bytes, parameters, serving)


def _method(quantize: str | None, activations: str, serving: torch.dtype, ops: Ops) -> LinearMethod:
    if ops.native is not None:
        return Packed(quantize or str(serving).removeprefix("torch."), activations)
    if quantize is not None:
        raise ModelError(f"--quantize {quantize} needs the native CPU kernels, which are not in use here")
    return Unquantised()


def serving_dtype(wanted: torch.dtype | str | None, checkpoint: str | None, device: torch.device) -> torch.dtype | None:
    """The dtype to serve in: as wanted, else the checkpoint's; None if neither says."""
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted is not None:
        if wanted not in DTYPES:
            raise ModelError(f"dtype {wanted} is not supported; supported are {', '.join(DTYPES)}")
        return getattr(torch, wanted)
    return on_device(getattr(torch, checkpoint), device) if checkpoint else None


def on_device(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """float16 becomes bfloat16 on a CPU: of the same size, and keys and values cannot overflow."""
    if dtype == torch.float16 and device.type == "cpu":
        logger.info("Checkpoint in float16: serving it in bfloat16, which has a wider range; --dtype float16 keeps it")
        return torch.bfloat16
    return dtype
