"""Every setting of the server: launcher flags, and what the API and the engine get of them.

The environment is read here and nowhere else. `EngineConfig` crosses to the engine process as JSON;
`ApiConfig` stays with the process that serves HTTP. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EngineConfig:
    """What the engine process needs; None means "compute it" (see `engine.budget`)."""

    model_path: str
    """A local directory with config.json, tokenizer files and *.safetensors."""
    model_id: str = ""
    dtype: str | None = None
    """float32, bfloat16 or float16; None: the checkpoint's own (bfloat16 on a CPU for float16)."""
    quantize: str | None = None
    activation_dtype: str | None = None
    """What layers of quantised weights round activations to; float32: leave them unrounded; see `activations`."""
    calibration: str | None = None
    """A text file that shows what inputs matrices get, for rounding to 6 bits and less; None: the bundled text."""
    kv_cache_dtype: str | None = None
    device: str | None = None
    """cpu, cuda or cuda:N; None: cuda if there is one."""
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    """Tokens of one step, prefill and decode together."""
    max_batch_total_tokens: int | None = None
    """Tokens the KV cache holds."""
    max_batch_size: int | None = None
    """Sequences of one step."""
    memory_bytes: int | None = None
    """Memory this process may use; None: what is free to it (container limits count)."""
    kv_cache_bytes: int | None = None
    """Exact size of the KV cache; None: a share of the memory left."""
    cuda_memory_fraction: float = 1.0
    block_size: int | None = None
    prefix_caching: bool = True
    threads: int | None = None
    """CPU threads of the forward pass; None: what cgroup quota and affinity allow."""
    native_kernels: bool = True
    """Use the native CPU kernels where they were built; False: the torch reference operations."""
    trust_remote_code: bool = False
    rope_scaling: str | None = None
    rope_factor: float | None = None
    num_shard: int = 1
    watermark_gamma: float = 0.5
    watermark_delta: float = 2.0
    log_level: str = "INFO"
    json_output: bool = False

    @property
    def activations(self) -> str:
        """`activation_dtype` with its default; layers of plain weights do not look at it."""
        return self.activation_dtype or "int8"


@dataclass(frozen=True)
class ApiConfig:
    """What the HTTP process needs."""

    model_id: str
    """As given on the command line, echoed by `/info`."""
    model_path: str
    served_model_names: tuple[str, ...] = ()
    """Names of the model on OpenAI's routes, of which answers have the first; none: `model_id`."""
    revision: str | None = None
    model_sha: str | None = None
    pipeline_tag: str | None = None
    tokenizer_config_path: str | None = None
    chat_template: str | None = None
    """A file with a template, or the name of a built-in one, in place of the model's own."""
    tool_call_parser: str | None = None
    """Name of the format of tool calls, in place of the one that is found (`serving.tools.registry`)."""
    hostname: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of them opens the routes that do work; empty: those are open."""
    cors_allow_origin: tuple[str, ...] = ()
    payload_limit: int = 2_000_000
    max_concurrent_requests: int = 128
    max_queue: int = 0
    """Requests that may wait for one of those places."""
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_stop_sequence_length: int = 1024
    """Characters."""
    max_stop_token_ids: int = 1024
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    max_stored_responses: int = 1000
    """Responses of `/v1/responses` that are kept; 0: none."""
    default_max_new_tokens: int | None = None
    """Tokens a request may generate that does not say how many; None: up to the end of the context."""
    generation_defaults: str = "tgi"
    """model: the OpenAI routes sample as generation_config.json says where a request does not; tgi: as TGI."""
    raw_logprobs: bool = False
    """TGI's routes report the model's own log-probabilities too, not those after penalties and warpers."""
    pooling: Literal["mean", "last", "cls"] | None = None
    """Which hidden states make embeddings; None: the checkpoint's own choice, else the last token's."""
    validation_workers: int = 2
    disable_grammar_support: bool = False
    disable_playground: bool = False
    """No pages for browsers: `/` is for probes alone."""
    health_stall_s: float = 60.0
    """`/health` turns 503 when work waits and no step completed for so long."""
    graceful_termination_s: float = 90.0
    status_interval_s: float = 10.0
    """Between two lines in the log that say how busy the server is, while it is; 0: none."""
    compute_type: str = "cpu"
    """Header `x-compute-type`."""
    otlp_endpoint: str | None = None
    otlp_service_name: str = "text-generation-inference.router"
    aip_predict_route: str | None = None
    """Environment variable AIP_PREDICT_ROUTE (Google Vertex AI): one more path for `/vertex`."""
    aip_health_route: str | None = None
    """AIP_HEALTH_ROUTE: one more path for `/health`."""
    ineffective_flags: dict[str, str] = field(default_factory=dict)
    """Flags that were given and have no effect on this device -> why; listed by `/info`."""


@dataclass(frozen=True)
class Environment:
    """Environment variables that have no flag."""

    log_level: str = "info"
    color: bool | None = None
    """None: in colour when the log goes to a terminal."""
    compute_type: str | None = None
    aip_predict_route: str | None = None
    aip_health_route: str | None = None
    prefix_caching: bool | None = None
    hf_token: str | None = field(default=None, repr=False)
    hub_offline: bool = False
    hub_endpoint: str | None = None
    ineffective: dict[str, str] = field(default_factory=dict)
    """Variables of TGI's that are set and change nothing here -> why."""


INEFFECTIVE_VARIABLES = {
    "ATTENTION": "the attention implementation follows from the device",
    "USE_FLASH_ATTENTION": "the attention implementation follows from the device",
    "PREFILL_CHUNKING": "prompts are always computed in pieces",
    "TGI_WIGGLE_ROOM": "the memory plan is computed; see --memory and --kv-cache-memory",
    "MAX_IMAGE_FETCH_SIZE": "images are not fetched",
    "XPU_MEMORY_FRACTION": "there is no path for Intel GPUs; see --memory",
    "EXLLAMA_VERSION": "there are no GPTQ kernels to choose from",
    "DISABLE_EXLLAMA": "there are no GPTQ kernels to choose from",
}


FLAGLESS_SWITCHES = ("PREFIX_CACHING", "HF_HUB_OFFLINE")
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def switch(text: str) -> bool | None:
    """What a word, in any case, says about a switch; None for a word that says nothing."""
    word = text.strip().lower()
    return True if word in _ON else False if word in _OFF else None


def read_environment() -> dict[str, str]:
    """A copy of the process environment: the one place of the package that looks at it."""
    return dict(os.environ)


def add_to_environment(variables: Mapping[str, str]) -> None:
    """Set variables for libraries that read them when they are imported, and for processes that they start."""
    os.environ.update(variables)


def environment_settings(variables: Mapping[str, str]) -> Environment:
    """The variables without a flag. TGI's precedence: HF_TOKEN, then HF_API_TOKEN, then the old name."""

    return Environment(
        log_level=variables.get("LOG_LEVEL") or "info",
        # TGI's router turns colours off when this is "1"
        color=False if switch(variables.get("LOG_COLORIZE", "")) or variables.get("NO_COLOR") else None,
        compute_type=variables.get("COMPUTE_TYPE") or None,
        aip_predict_route=variables.get("AIP_PREDICT_ROUTE") or None,
        aip_health_route=variables.get("AIP_HEALTH_ROUTE") or None,
        prefix_caching=switch(variables.get("PREFIX_CACHING", "")),
        hf_token=variables.get("HF_TOKEN")
        or variables.get("HF_API_TOKEN")
        or variables.get("HUGGING_FACE_HUB_TOKEN")
        or None,
        hub_offline=bool(switch(variables.get("HF_HUB_OFFLINE", ""))),
        hub_endpoint=variables.get("HF_ENDPOINT") or None,
        ineffective={name: why for name, why in INEFFECTIVE_VARIABLES.items() if variables.get(name)},
    )
