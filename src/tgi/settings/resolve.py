"""Flags + facts -> what the API and the engine need. Pure: reads no file, no environment, no device.

Owns the ranges of numbers, the checks between flags, with TGI's messages, and the refusal by name of what is
not supported yet. Other values of single flags were checked by `parse`; token budgets are computed by `engine.budget`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tgi.errors import ArgumentError
from tgi.hardware import Hardware
from tgi.settings.config import ApiConfig, EngineConfig, Environment
from tgi.settings.flags import ROUNDINGS, LauncherConfig
from tgi.settings.parse import Parsed, options
from tgi.shorten import size

NOT_ON_THE_FLY = {
    "exl2": "use --quantize int4 or int5 on the unquantised model, or a GGUF or GPTQ version of it",
}
"""Values of --quantize that no checkpoint has here -> what to use in their place."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk."""

    path: str
    """Directory with config.json, tokenizer files and *.safetensors."""
    model_id: str
    """As the user names it."""
    sha: str | None = None
    """Commit on the hub; None for a local directory."""
    pipeline_tag: str | None = None
    """The hub's word for what the model does; None when unknown."""


def check(config: LauncherConfig, hardware: Hardware, variables: Mapping[str, str]) -> None:
    """Refuse flags that contradict each other or ask for what is not there. Raises `ArgumentError`."""
    check_ranges(config)
    _check_limits(config)
    _check_memory(config)
    _check_shards(config, hardware, variables)
    _check_unsupported(config)


def resolve(
    parsed: Parsed, environment: Environment, hardware: Hardware, model: ModelFiles
) -> tuple[ApiConfig, EngineConfig]:
    """What both processes get; `check` has passed."""
    return _api_config(parsed, environment, hardware, model), _engine_config(parsed.config, environment, model)


def _engine_config(config: LauncherConfig, environment: Environment, model: ModelFiles) -> EngineConfig:
    scaling = config.rope_scaling or ("linear" if config.rope_factor is not None else None)
    return EngineConfig(
        model_path=model.path,
        model_id=model.model_id,
        dtype=config.dtype,
        quantize=config.quantize,
        activation_dtype=config.activation_dtype,
        calibration=config.calibration,
        kv_cache_dtype=config.kv_cache_dtype,
        device=config.device,
        max_input_tokens=config.max_input_tokens or config.max_input_length,
        max_total_tokens=config.max_total_tokens,
        max_batch_prefill_tokens=config.max_batch_prefill_tokens,
        max_batch_total_tokens=config.max_batch_total_tokens,
        max_batch_size=config.max_batch_size,
        memory_bytes=config.memory,
        kv_cache_bytes=config.kv_cache_memory,
        cuda_memory_fraction=config.cuda_memory_fraction,
        prefix_caching=environment.prefix_caching is not False,
        threads=config.threads,
        native_kernels=not config.disable_custom_kernels,
        trust_remote_code=config.trust_remote_code,
        rope_scaling=scaling,
        rope_factor=(config.rope_factor or 1.0) if scaling else None,
        watermark_gamma=0.5 if config.watermark_gamma is None else config.watermark_gamma,
        watermark_delta=2.0 if config.watermark_delta is None else config.watermark_delta,
        log_level=environment.log_level,
        json_output=config.json_output,
    )


def _api_config(parsed: Parsed, environment: Environment, hardware: Hardware, model: ModelFiles) -> ApiConfig:
    config = parsed.config
    on_cuda = (config.device or ("cuda" if hardware.gpus else "cpu")).startswith("cuda")
    return ApiConfig(
        model_id=model.model_id,
        model_path=model.path,
        served_model_names=config.served_model_name,
        revision=config.revision,
        model_sha=model.sha,
        pipeline_tag=model.pipeline_tag,
        tokenizer_config_path=config.tokenizer_config_path,
        chat_template=config.chat_template,
        tool_call_parser=config.tool_call_parser,
        hostname=config.hostname,
        port=config.port,
        api_keys=config.api_key,
        cors_allow_origin=config.cors_allow_origin,
        disable_playground=config.disable_playground,
        payload_limit=config.payload_limit,
        max_concurrent_requests=config.max_concurrent_requests,
        max_queue=config.max_queue,
        max_best_of=config.max_best_of,
        max_stop_sequences=config.max_stop_sequences,
        max_stop_sequence_length=config.max_stop_sequence_length,
        max_stop_token_ids=config.max_stop_token_ids,
        max_top_n_tokens=config.max_top_n_tokens,
        max_client_batch_size=config.max_client_batch_size,
        max_stored_responses=config.max_stored_responses,
        default_max_new_tokens=config.default_max_new_tokens or None,
        generation_defaults=config.generation_defaults,
        raw_logprobs=config.raw_logprobs,
        pooling=config.pooling,  # type: ignore[arg-type]  # one of the flag's choices
        validation_workers=config.validation_workers,
        disable_grammar_support=config.disable_grammar_support,
        health_stall_s=config.health_timeout,
        graceful_termination_s=float(config.graceful_termination_timeout),
        status_interval_s=config.status_interval,
        compute_type=environment.compute_type or compute_type(hardware if on_cuda else None),
        otlp_endpoint=config.otlp_endpoint,
        otlp_service_name=config.otlp_service_name,
        aip_predict_route=environment.aip_predict_route,
        aip_health_route=environment.aip_health_route,
        ineffective_flags=ineffective(parsed, on_cuda=on_cuda) | environment.ineffective,
    )


def compute_type(hardware: Hardware | None) -> str:
    """TGI's `{number}-{name of the GPU}`, or `cpu`."""
    if hardware is None or not hardware.gpus:
        return "cpu"
    return f"1-{re.sub(r'[^a-z0-9]+', '-', hardware.gpus[0].lower()).strip('-')}"


def ineffective(parsed: Parsed, *, on_cuda: bool) -> dict[str, str]:
    """Flags that were given and change nothing here -> why."""
    reasons = {}
    for option in options():
        why = option.flag.no_effect or (None if on_cuda else option.flag.no_effect_on_cpu)
        if why and option.name in parsed.given:
            reasons[option.long] = why
    return reasons


def check_ranges(flags: object) -> None:
    """Refuse numbers that no machine or model has a use for. Raises `ArgumentError`.

    flags: `LauncherConfig`, or those of another command.
    """
    for option in options(type(flags)):
        value = getattr(flags, option.name)
        if option.flag.within is not None and value is not None and not option.flag.within.holds(value):
            raise ArgumentError(option.flag.within.refusal(option.name, value))


def _check_limits(config: LauncherConfig) -> None:
    if config.max_input_tokens is not None and config.max_input_length is not None:
        raise ArgumentError(
            f"Both `max_input_tokens` ({config.max_input_tokens}) and `max_input_length` "
            f"({config.max_input_length}) are set. Set only `max_input_tokens`: `max_input_length` is its old name"
        )
    longest, total = config.max_input_tokens or config.max_input_length, config.max_total_tokens
    prefill, cache = config.max_batch_prefill_tokens, config.max_batch_total_tokens
    if longest is not None and total is not None and longest >= total:
        raise ArgumentError(f"`max_input_tokens`({longest}) must be < `max_total_tokens`({total})")
    if total is not None and cache is not None and total > cache:
        raise ArgumentError(f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {cache}")
    if prefill is not None and cache is not None and prefill > cache:
        raise ArgumentError(
            f"`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: {prefill} and {cache}"
        )
    if not all(map(str.strip, config.served_model_name)):
        raise ArgumentError("`served_model_name` cannot be empty")
    if config.device is not None and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", config.device):
        raise ArgumentError(f"`device` must be cpu, cuda or cuda:N. Given: {config.device}")


def _check_memory(config: LauncherConfig) -> None:
    """A cache that can never be had is refused now, and not after a download."""
    if config.memory is not None and config.kv_cache_memory is not None and config.kv_cache_memory >= config.memory:
        raise ArgumentError(
            f"`kv_cache_memory` must be < `memory`, which holds the weights, too. "
            f"Given: {size(config.kv_cache_memory)} and {size(config.memory)}"
        )


def check_machine(config: LauncherConfig, hardware: Hardware) -> None:
    """Refuse to serve with more memory than this machine has; a plan may be for another one. Raises `ArgumentError`."""
    total = hardware.total_memory
    if (config.device or ("cuda" if hardware.gpus else "cpu")) != "cpu" or not total:
        return
    for name in ("memory", "kv_cache_memory"):
        wanted = getattr(config, name)
        if wanted is not None and wanted > total:
            raise ArgumentError(f"`{name}` must be <= {size(total)}, what there is here. Given: {size(wanted)}")


def _check_shards(config: LauncherConfig, hardware: Hardware, variables: Mapping[str, str]) -> None:
    if config.num_shard is not None and config.num_shard < 1:
        raise ArgumentError("`num_shard` cannot be < 1")
    if config.sharded == "true":
        if config.num_shard is None:
            visible = variables.get("CUDA_VISIBLE_DEVICES")
            count = len([part for part in visible.split(",") if part]) if visible is not None else len(hardware.gpus)
            if count <= 1:
                raise ArgumentError(f"`sharded` is true but only found {count} CUDA devices")
            raise ArgumentError(f"`sharded` over {count} devices is not supported yet: leave it out to use one")
        if config.num_shard <= 1:
            raise ArgumentError("`sharded` is true but `num_shard` <= 1")
    if config.num_shard is not None and config.num_shard > 1:
        if config.quantize == "exl2":
            raise ArgumentError("Sharding is currently not supported with `exl2` quantization")
        raise ArgumentError(f"`num_shard` {config.num_shard} is not supported yet: the model runs on one device")


def _check_unsupported(config: LauncherConfig) -> None:
    if config.ngrok:
        for name in ("ngrok_authtoken", "ngrok_edge"):
            if getattr(config, name) is None:
                raise ArgumentError(f"`{name.replace('_', '-')}` must be set when using ngrok tunneling")
        raise ArgumentError("`ngrok` is not supported: put a tunnel of your own before the server")
    if config.lora_adapters:
        for adapter in config.lora_adapters.split(","):
            if not adapter.strip() or adapter.count("=") > 1 or adapter.count("@") > 1:
                raise ArgumentError(f"Invalid LoRA adapter format: {adapter}")
        raise ArgumentError("`lora_adapters` are not supported yet: merge the adapter into the model and serve that")
    if config.quantize in NOT_ON_THE_FLY:
        raise ArgumentError(f"`quantize` {config.quantize} is not supported: {NOT_ON_THE_FLY[config.quantize]}")
    if config.calibration is not None:
        if config.quantize not in ROUNDINGS:
            raise ArgumentError(
                f"`calibration` {config.calibration} needs `quantize` int8, int6, int5 or int4: nothing else looks at "
                "a text"
            )
        if not Path(config.calibration).is_file():
            raise ArgumentError(f"`calibration` {config.calibration} is not a file: name a text file")
    if config.speculate:
        raise ArgumentError(f"`speculate` {config.speculate} is not supported yet: leave it out or give 0")
