"""The limits of a checkpoint that is not loaded: what the engine would find, from config.json alone."""

from __future__ import annotations

from pathlib import Path

from tgi.hardware import Hardware
from tgi.kernels.footprint import footprint
from tgi.memory import budget
from tgi.memory.cost import model_cost
from tgi.models.build.decoder import build
from tgi.models.dtypes import serving_dtype
from tgi.models.families.registry import read_spec
from tgi.models.rope_config import RopeOverride
from tgi.settings.config import EngineConfig

DEFAULT_BLOCK_SIZE = 32
"""As `kernels.types` has it, which cannot be imported without torch; a test compares them."""


def estimate(engine: EngineConfig, hardware: Hardware) -> budget.Limits:
    """The limits that the engine would find for this configuration; reads config.json only.

    Raises `StartupError` when the model cannot fit or is not supported.
    """
    device = engine.device or ("cuda" if hardware.gpus else "cpu")
    rope = RopeOverride(engine.rope_scaling, engine.rope_factor)
    spec = read_spec(Path(engine.model_path), rope)
    return budget.compute(
        model_cost(
            build(spec),
            serving_dtype(engine.dtype, spec.dtype, device.split(":")[0]) or "float32",
            footprint(device, native_kernels=engine.native_kernels),
            logit_rows=budget.DEFAULT_BATCH_SIZE,
            cache_dtype=engine.kv_cache_dtype,
            quantize=engine.quantize,
        ),
        budget.wanted_of(engine),
        available_bytes=engine.memory_bytes or hardware.available_memory,
        device=device,
        block_size=engine.block_size or DEFAULT_BLOCK_SIZE,
    )
