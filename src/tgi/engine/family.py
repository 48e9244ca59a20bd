"""A model of a native family, as the worker starts it: limits by its program, loaded for the backend of the device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tgi.kernels.select import select
from tgi.memory import budget
from tgi.memory.cost import model_cost
from tgi.models.build.decoder import build
from tgi.models.config_reader import read_config
from tgi.models.decoder_start import decoder_ids
from tgi.models.loader import LoadedModel, load_model, serving_dtype
from tgi.models.spec import ModelSpec
from tgi.models.stored import stored_of
from tgi.models.weights import Progress
from tgi.settings.config import EngineConfig

logger = logging.getLogger("tgi.engine")


class FamilyModel:
    """See `fallback.FallbackModel`, which has the same members."""

    def __init__(self, config: EngineConfig, device: torch.device, threads: int, spec: ModelSpec) -> None:
        self._config, self.spec, path = config, spec, Path(config.model_path)
        self.decoder_ids = decoder_ids(path, spec)
        self.dtype = serving_dtype(config.dtype, spec.dtype, device) or torch.float32
        self.backend = select(device, self.dtype, config.block_size, threads=threads if config.native_kernels else None)
        self.cost = model_cost(
            build(spec),
            str(self.dtype).removeprefix("torch."),
            self.backend.footprint,
            logit_rows=budget.DEFAULT_BATCH_SIZE,
            cache_dtype=config.kv_cache_dtype,
            quantize=config.quantize,
            stored=stored_of(path, read_config(path)),
        )

    def load(self, max_total_tokens: int, progress: Progress) -> LoadedModel:
        """Read and pack the weights, for sequences of up to so many tokens. Raises ModelError."""
        config, served = self._config, self.spec.served_up_to(max_total_tokens)
        if served != self.spec:
            logger.info(
                "Rotary embedding: all sequences take the factors for long ones, since up to %d tokens are served",
                max_total_tokens,
            )
        loaded = load_model(
            Path(config.model_path),
            self.dtype,
            self.backend,
            spec=served,
            quantize=config.quantize,
            activations=config.activations,
            calibration=config.calibration,
            progress=progress,
        )
        if loaded.stored and not config.quantize:
            logger.info(
                "The checkpoint is quantised as %s: what kernels cannot hold as it is, is dequantised to %s",
                loaded.stored,
                str(self.dtype).removeprefix("torch."),
            )
        return loaded
