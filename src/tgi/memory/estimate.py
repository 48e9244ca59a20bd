"""What a checkpoint that is not loaded takes, and the limits the engine would find, from config.json alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tgi.errors import ModelError, StartupError
from tgi.hardware import Hardware
from tgi.kernels.footprint import footprint
from tgi.kernels.outline import Outline
from tgi.memory import budget
from tgi.memory.cost import ModelCost, model_cost, outline_cost
from tgi.models.build.decoder import build
from tgi.models.config_reader import RopeOverride, read_config
from tgi.models.dtypes import serving_dtype
from tgi.models.fallback.describe import ask
from tgi.models.families.registry import UnknownFamilyError, spec_from_config
from tgi.models.stored import stored_of
from tgi.quant.checkpoint import Stored, check_method, rounding
from tgi.settings.config import EngineConfig
from tgi.settings.flags import ROUNDINGS
from tgi.shorten import size

DEFAULT_BLOCK_SIZE = 32
"""As `kernels.types` has it, which cannot be imported without torch; a test compares them."""


def estimate(engine: EngineConfig, hardware: Hardware, cost: ModelCost | None = None) -> budget.Limits:
    """The limits that the engine would find for this configuration; reads config.json only.

    cost: what `survey` gave, where it is known.
    Raises `StartupError` when the model cannot fit or is not supported, naming the rounding with which it would fit.
    """
    try:
        return _limits(engine, hardware, cost or survey(engine, hardware))
    except StartupError as error:
        raise type(error)(f"{error}{_what_fits(engine, hardware)}") from None


def survey(engine: EngineConfig, hardware: Hardware, *, warn: bool = False) -> ModelCost:
    """What the model takes in its serving dtype; reads config.json only.

    warn: name keys of it in the log that are unknown. Raises ModelError for a family, a quantisation, a dtype or a
    value of the config that is not supported.
    """
    path = Path(engine.model_path)
    config = read_config(path)
    stored = stored_of(path, config)
    check_method(stored)
    device = _device(engine, hardware)
    try:
        spec = spec_from_config(config, RopeOverride(engine.rope_scaling, engine.rope_factor), warn=warn)
    except UnknownFamilyError:
        return cost_of(describe(path, engine, stored), engine, hardware)
    return model_cost(
        build(spec),
        serving_dtype(engine.dtype, spec.dtype, device.split(":")[0]) or "float32",
        footprint(device, native_kernels=engine.native_kernels),
        logit_rows=budget.DEFAULT_BATCH_SIZE,
        cache_dtype=engine.kv_cache_dtype,
        quantize=rounding(engine.quantize, stored),
        stored=stored,
    )


def cost_of(outline: Outline, engine: EngineConfig, hardware: Hardware) -> ModelCost:
    """The same of a model that transformers computes."""
    device = _device(engine, hardware)
    dtype = serving_dtype(engine.dtype, outline.dtype, device.split(":")[0]) or "float32"
    return outline_cost(outline, dtype, footprint(device, native_kernels=False), logit_rows=budget.DEFAULT_BATCH_SIZE)


def describe(path: Path, engine: EngineConfig, stored: Stored | None) -> Outline:
    """The outline of a model that no family describes. Raises ModelError where transformers does not know it either."""
    check_fallback(engine, stored)
    return ask(path, trust_remote_code=engine.trust_remote_code)


def check_fallback(engine: EngineConfig, stored: Stored | None) -> None:
    """Refuse what models that transformers computes do not have. Raises ModelError."""
    if engine.quantize is not None:
        raise ModelError(f"--quantize {engine.quantize}: native families only, and this model is none: leave it out")
    if stored is not None:
        raise ModelError(
            f"The checkpoint is quantised as {stored.method}: that is read for native families only, and this model is "
            f"none. Serve its unquantised checkpoint"
        )
    if engine.kv_cache_dtype is not None:
        raise ModelError(
            f"--kv-cache-dtype {engine.kv_cache_dtype}: native families only, and this model is none: leave it out"
        )
    if engine.rope_scaling is not None:
        raise ModelError(
            "--rope-scaling and --rope-factor: native families only, and this model is none: write the scaling into "
            "its config.json"
        )


def _limits(engine: EngineConfig, hardware: Hardware, cost: ModelCost) -> budget.Limits:
    return budget.compute(
        cost,
        budget.wanted_of(engine),
        available_bytes=engine.memory_bytes or hardware.available_memory,
        device=_device(engine, hardware),
        block_size=engine.block_size or DEFAULT_BLOCK_SIZE,
    )


def _device(engine: EngineConfig, hardware: Hardware) -> str:
    return engine.device or ("cuda" if hardware.gpus else "cpu")


def _what_fits(engine: EngineConfig, hardware: Hardware) -> str:
    """The most precise rounding with which a model that does not fit would; empty where there is none."""
    for name in ROUNDINGS if engine.quantize is None else ():
        rounded = replace(engine, quantize=name)
        try:
            cost = survey(rounded, hardware)
            _limits(rounded, hardware, cost)
        except StartupError:
            continue
        if cost.weight_bytes < survey(engine, hardware).weight_bytes:
            return f". With --quantize {name} it fits: {size(cost.weight_bytes)} of weights"
    return ""
