"""Loads a model that no family describes, by the fastest way that proves itself, and says which that is and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from tgi.errors import ModelError
from tgi.kernels.reference.backend import ReferenceBackend
from tgi.kernels.types import Backend
from tgi.models.decoder_start import never_generated
from tgi.models.fallback.own_cache import WAYS, OwnCacheStep, Way
from tgi.models.fallback.paged import PagedStep
from tgi.models.fallback.proof import TOLERANCE, Oracle, difference
from tgi.models.fallback.source import load

logger = logging.getLogger(__name__)


class TransformersBackend(ReferenceBackend):
    """The reference backend's cache and vocabulary, for models that transformers computes."""

    def __init__(self, device: torch.device, block_size: int | None = None) -> None:
        super().__init__(device, block_size)
        self.kernels: Mapping[str, str] = {
            "model": f"transformers {transformers.__version__}",
            "vocabulary": "reference",
        }


def load_by_transformers(
    path: Path, dtype: torch.dtype, backend: TransformersBackend, *, trust_remote_code: bool = False
) -> PagedStep | OwnCacheStep:
    """The step of a model in a directory. Raises ModelError where no way gives what the model gives."""
    step = choose(load(path, dtype, backend.device, trust_remote_code=trust_remote_code), dtype, backend)
    if isinstance(step, OwnCacheStep) and step.program.encoder is not None:
        step.never = [id for id in never_generated(path) if id < step.program.vocab_size]
    return step


def choose(model: Any, dtype: torch.dtype, backend: Backend) -> PagedStep | OwnCacheStep:
    """The fastest way of computing a loaded model that proves itself."""
    name = type(model).__name__
    with torch.inference_mode():
        oracle = Oracle(model)
        step, why = _paged(model, dtype, backend, oracle)
        if step is not None:
            logger.info("%s runs through transformers, with attention over the paged cache", name)
            return step
        for way in WAYS:
            found, problem = _own(model, dtype, backend, oracle, way)
            if found is not None:
                logger.info("%s runs through transformers, %s, since %s", name, way, why)
                return found
            logger.debug("%s does not run %s: %s", name, way, problem)
    raise ModelError(f"{name} gives other logits in each of the ways that transformers offers: it cannot be served")


def _paged(model: Any, dtype: torch.dtype, backend: Backend, oracle: Oracle) -> tuple[PagedStep | None, str]:
    if oracle.inputs:
        return None, "the paged cache is for models without an encoder"
    before = getattr(model.config, "_attn_implementation", None)
    try:
        step = PagedStep(model, backend.device, dtype, backend.block_size)
        distance = difference(step, backend, oracle)
    except Exception as error:
        why = f"the paged cache is not for it: {error or type(error).__name__}"
    else:
        if distance <= TOLERANCE[dtype]:
            return step, ""
        why = f"over the paged cache its logits were off by {_share(distance)}"
    if getattr(model.config, "_attn_implementation", None) != before:
        model.set_attn_implementation(before)
    return None, why


def _own(model: Any, dtype: torch.dtype, backend: Backend, oracle: Oracle, way: Way) -> tuple[OwnCacheStep | None, str]:
    try:
        distance = difference(OwnCacheStep(model, backend.device, dtype, way), backend, oracle)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    if distance <= TOLERANCE[dtype]:
        return OwnCacheStep(model, backend.device, dtype, way), ""
    return None, f"logits off by {_share(distance)}"


def _share(distance: float) -> str:
    return f"{distance:.2%}" if math.isfinite(distance) else "numbers that are not finite"
