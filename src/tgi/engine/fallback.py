"""A model that no native family describes, as the worker starts it: limits by its outline, load by transformers."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tgi.kernels.outline import Outline
from tgi.memory import budget
from tgi.memory.cost import ModelCost, outline_cost
from tgi.memory.estimate import check_fallback
from tgi.models.config_reader import read_config
from tgi.models.decoder_start import decoder_ids_of_config
from tgi.models.loader import LoadedModel, serving_dtype
from tgi.models.stored import stored_of
from tgi.models.weights import Progress
from tgi.settings.config import EngineConfig

logger = logging.getLogger("tgi.engine")


class FallbackModel:
    """What the worker asks of a model: dtype, backend, cost; then `load`, after which the cost is that of the model."""

    def __init__(self, config: EngineConfig, device: torch.device) -> None:
        """Raises ModelError where transformers does not know the model either."""
        from tgi.models.fallback.loader import TransformersBackend  # imports transformers
        from tgi.models.fallback.source import outline

        self._config, self._path = config, Path(config.model_path)
        content = read_config(self._path)
        check_fallback(config, stored_of(self._path, content))
        found = outline(self._path, trust_remote_code=config.trust_remote_code)
        logger.info("%s is no native family: transformers computes it, which is slower", found.model_type)
        self.decoder_ids: tuple[int, ...] = ()
        """What the decoder begins with where the model has an encoder, by its config; empty: it has none."""
        if found.encoder is not None:
            self.decoder_ids = decoder_ids_of_config(self._path, content, found.vocab_size)
        self.dtype = serving_dtype(config.dtype, found.dtype, device) or torch.float32
        self.backend = TransformersBackend(device, config.block_size)
        self.cost = self._cost(found)

    def load(self, max_total_tokens: int, progress: Progress) -> LoadedModel:
        """The model, by the way that proved itself; it is the same for sequences of any length."""
        from tgi.models.fallback.loader import load_by_transformers

        step = load_by_transformers(
            self._path, self.dtype, self.backend, trust_remote_code=self._config.trust_remote_code
        )
        progress(step.weight_bytes, step.weight_bytes)
        if not step.shares_blocks and self._config.prefix_caching:
            logger.info("Prefix caching is off: the model keeps a cache of its own")
        self.cost = self._cost(step.program)
        return LoadedModel(step, None, shares_blocks=step.shares_blocks)

    def _cost(self, outline: Outline) -> ModelCost:
        name = str(self.dtype).removeprefix("torch.")
        return outline_cost(outline, name, self.backend.footprint, logit_rows=budget.DEFAULT_BATCH_SIZE)
