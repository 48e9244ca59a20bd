"""The launcher's flags: one field = one flag = one environment variable.

Owns names, types, defaults, groups and help texts; `parse` fills the dataclass, `help` and
`docs/flags.md` render it, `resolve` turns it into what the API and the engine need. Names and
defaults are TGI 3.3's; those with an environment variable that starts with `TGI_` are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NewType

from tgi.settings.ranges import BYTES, SECONDS, TOKENS, Range

Bytes = NewType("Bytes", int)
"""An amount of memory; written as `24GiB`, `512MB` or a plain number of bytes."""

MODEL = "Model"
SERVER = "Server"
REQUESTS = "Limits of a request"
MEMORY = "Memory and batching"
DEVICE = "Device and parallelism"
LOGGING = "Logging and tracing"
WITHOUT_EFFECT = "Accepted from TGI, without effect"
GROUPS = (MODEL, SERVER, REQUESTS, MEMORY, DEVICE, LOGGING, WITHOUT_EFFECT)

SWITCH = ("true", "false")
"""Choices of a switch that can also be left open."""
DTYPES = ("float32", "bfloat16", "float16")
ROUNDINGS = ("int8", "int6", "int5", "int4")
"""Ours: plain weights are rounded while they are read."""
LIBRARY_ROUNDINGS = ("bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4", "eetq", "fp8")
"""TGI's: the same, to the values that other libraries give."""
QUANTIZATIONS = (*ROUNDINGS, *LIBRARY_ROUNDINGS, "awq", "compressed-tensors", "exl2", "gptq", "marlin")
TOOL_CALL_FORMATS = (
    "command_r", "command_r7b", "deepseek_v3", "deepseek_v31", "function_gemma", "gemma3", "gemma4", "glm4", "glm45",
    "granite", "harmony", "hermes", "json", "kimi_k2", "llama3_json", "llama_tags", "mistral", "mistral_tekken",
    "phi4_mini", "pythonic", "qwen3_coder",
)  # fmt: skip
"""Names of `serving.tools.registry`."""


@dataclass(frozen=True)
class Flag:
    """What is known of a flag beyond its field's name, type and default."""

    group: str
    help: str
    env: str | None = ""
    """Environment variable; empty: upper case of the name, None: there is none."""
    short: str | None = None
    choices: tuple[str, ...] = ()
    shown_default: str | None = None
    """How to describe the default when the value says little."""
    no_effect: str | None = None
    """Why giving the flag changes nothing here; None: it has an effect."""
    no_effect_on_cpu: str | None = None
    maximum: int | None = None
    within: Range | None = None
    """What a number can be; every flag that takes one has it, or a maximum alone. Checked by `resolve`."""
    secret: bool = False


def flag(group: str, help: str, *, default: Any = None, **more: Any) -> Any:
    """A dataclass field that carries its `Flag`."""
    return field(default=default, metadata={"flag": Flag(group, help, **more)}, repr=not more.get("secret", False))


def without_effect(why: str, default: Any = None, **more: Any) -> Any:
    """A flag of TGI's that changes nothing here."""
    return flag(WITHOUT_EFFECT, "", default=default, no_effect=why, **more)


_CHUNKED = "prompts are computed in pieces beside running requests, so no batch has to wait"
_ONE_PROCESS = "only one engine process is started"


@dataclass(frozen=True)
class LauncherConfig:
    """All flags with their values; see `Flag` for the rest."""

    # -- Model
    model_id: str | None = flag(
        MODEL, "Hub id such as `org/name`, or a local directory", shown_default="the bundled demo model"
    )
    revision: str | None = flag(MODEL, "Branch, tag or commit on the hub, or `refs/pr/N`", shown_default="main")
    gguf_file: str | None = flag(
        MODEL,
        "Which GGUF file of a directory or repository: its name, or its type such as Q4_K_M; `--model-id "
        "org/name:Q4_K_M` says the same",
        env="TGI_GGUF_FILE",
        shown_default="Q4_K_M, where there is no other weight file",
    )
    dtype: str | None = flag(
        MODEL,
        "Type of weights and activations",
        choices=DTYPES,
        shown_default="the checkpoint's own; bfloat16 on a CPU where that is float16",
    )
    quantize: str | None = flag(
        MODEL,
        "int8, int6, int5, int4: round plain weights while loading, on a CPU; bitsandbytes, bitsandbytes-nf4, "
        "bitsandbytes-fp4, eetq, fp8: the same with the values of those libraries; others only name how the checkpoint "
        "is quantised, which is found without",
        choices=QUANTIZATIONS,
    )
    activation_dtype: str | None = flag(
        MODEL,
        "What layers of quantised weights round activations to, by token and group; float32: unrounded, slower, "
        "for models whose answers suffer",
        choices=("int8", "float32"),
        shown_default="int8",
    )
    calibration: str | None = flag(
        MODEL,
        "A text file, of which some hundred tokens show --quantize int8 to int4 what the model will read",
        shown_default="a bundled text",
    )
    speculate: int | None = flag(
        MODEL, "Tokens to guess ahead in each step; only 0 is supported yet", within=Range(0, 64)
    )
    kv_cache_dtype: str | None = flag(
        MODEL,
        "Type of the KV cache; each of these takes half of bfloat16, and int8 answers best",
        choices=("int8", "fp8_e4m3fn", "fp8_e5m2"),
        shown_default="--dtype",
    )
    lora_adapters: str | None = flag(MODEL, "LoRA adapters to load, comma-separated; not supported yet")
    trust_remote_code: bool = flag(
        MODEL, "Allow Python code of the model repository to run; only for models you trust", default=False
    )
    tokenizer_config_path: str | None = flag(MODEL, "A file that replaces the model's tokenizer_config.json")
    chat_template: str | None = flag(
        MODEL,
        "Chat template to use: a file with jinja, or a built-in one, by name: alpaca, chatml, gemma, llama-2, llama-3, "
        "mistral, phi-3, vicuna, zephyr",
        env="TGI_CHAT_TEMPLATE",
        shown_default="the model's own",
    )
    pooling: str | None = flag(
        MODEL,
        "Which of a text's hidden states become its embedding: the mean of all, that of the last token, or that of the "
        "first (cls)",
        env="TGI_POOLING",
        choices=("mean", "last", "cls"),
        shown_default="as the model's 1_Pooling/config.json says, else last",
    )
    tool_call_parser: str | None = flag(
        MODEL,
        "How the model writes calls of tools, where that is not to be found from its chat template",
        choices=TOOL_CALL_FORMATS,
        env="TGI_TOOL_CALL_PARSER",
        shown_default="found from the checkpoint",
    )
    rope_scaling: str | None = flag(
        MODEL, "Stretch the positions beyond the trained context", choices=("linear", "dynamic")
    )
    rope_factor: float | None = flag(
        MODEL, "How far to stretch; alone it means linear scaling", within=Range(1, 1_000_000)
    )
    huggingface_hub_cache: str | None = flag(
        MODEL, "Where downloads are kept", shown_default="$HF_HOME/hub, ~/.cache/huggingface/hub"
    )
    weights_cache_override: str | None = flag(
        MODEL, "A directory with the weight files, if they are not to be taken from the model's own"
    )

    # -- Server
    config: str | None = flag(
        SERVER,
        "A file with flags, in YAML or TOML, by the names they have here: `port: 9000`; the command line and the "
        "environment win",
        env="TGI_CONFIG",
    )
    served_model_name: tuple[str, ...] = flag(
        SERVER,
        "Name of the model on OpenAI's routes; may be repeated: answers have the first, /v1/models lists all",
        default=(),
        env="TGI_SERVED_MODEL_NAME",
        shown_default="--model-id",
    )
    hostname: str = flag(SERVER, "Address to listen on; 127.0.0.1 is this machine alone", default="0.0.0.0")
    port: int = flag(SERVER, "Port to listen on", default=3000, short="-p", maximum=65535)
    api_key: tuple[str, ...] = flag(
        SERVER,
        "Require `Authorization: Bearer KEY` where work is done; may be repeated: each key gets an equal part of the "
        "server when requests wait",
        default=(),
        shown_default="none is required",
        secret=True,
    )
    api_key_file: str | None = flag(
        SERVER, "A file with further API keys, one a line; lines that begin with # do not count", env="TGI_API_KEY_FILE"
    )
    cors_allow_origin: tuple[str, ...] = flag(
        SERVER, "Origin whose web pages may call; may be repeated", default=(), shown_default="any"
    )
    disable_playground: bool = flag(
        SERVER,
        "Serve no pages: neither the playground at / nor /dashboard",
        default=False,
        env="TGI_DISABLE_PLAYGROUND",
    )
    payload_limit: int = flag(SERVER, "Largest request body in bytes", default=2_000_000, within=Range(1, BYTES))
    max_concurrent_requests: int = flag(
        SERVER,
        "Requests in the house at once; more wait (--max-queue) or are answered with 429",
        default=128,
        within=Range(1, 1_000_000),
    )
    max_queue: int = flag(
        SERVER,
        "Requests that may wait for one of --max-concurrent-requests to end; more, or 64 MB of them, are answered with "
        "429 immediately",
        default=0,
        env="TGI_MAX_QUEUE",
        within=Range(0, 1_000_000),
    )
    validation_workers: int = flag(SERVER, "Threads that tokenize and check requests", default=2, within=Range(1, 1024))
    graceful_termination_timeout: int = flag(
        SERVER,
        "Seconds that running requests get to finish after SIGTERM or Ctrl-C",
        default=90,
        short="-g",
        within=Range(0, SECONDS),
    )
    health_timeout: float = flag(
        SERVER,
        "Seconds without a completed step, while work waits, after which /health answers 503",
        default=60.0,
        env="TGI_HEALTH_TIMEOUT",
        within=Range(0, SECONDS, open_low=True),
    )
    ngrok: bool = flag(SERVER, "Tunnel through ngrok; not supported", default=False)
    ngrok_authtoken: str | None = flag(SERVER, "Token for --ngrok", secret=True)
    ngrok_edge: str | None = flag(SERVER, "Edge for --ngrok")

    # -- Limits of a request
    max_input_tokens: int | None = flag(
        REQUESTS, "Longest prompt in tokens", shown_default="--max-total-tokens less 1", within=Range(1, TOKENS)
    )
    max_input_length: int | None = flag(REQUESTS, "Old name of --max-input-tokens", within=Range(1, TOKENS))
    max_total_tokens: int | None = flag(
        REQUESTS,
        "Longest prompt and answer together, in tokens; more than the context where positions are scaled",
        shown_default="the model's context, if memory allows",
        within=Range(2, TOKENS),
    )
    max_best_of: int = flag(REQUESTS, "Largest `best_of`", default=2, within=Range(1, 65_536))
    max_stop_sequences: int = flag(REQUESTS, "Most stop sequences", default=4, within=Range(0, 65_536))
    max_stop_sequence_length: int = flag(
        REQUESTS,
        "Longest stop sequence, in characters",
        default=1024,
        env="TGI_MAX_STOP_SEQUENCE_LENGTH",
        within=Range(1, 1_000_000),
    )
    max_stop_token_ids: int = flag(
        REQUESTS, "Most `stop_token_ids`", default=1024, env="TGI_MAX_STOP_TOKEN_IDS", within=Range(0, 1_000_000)
    )
    max_top_n_tokens: int = flag(REQUESTS, "Largest `top_n_tokens`", default=5, within=Range(0, 65_536))
    max_client_batch_size: int = flag(
        REQUESTS, "Most prompts in one /v1/completions request", default=4, within=Range(1, 1_000_000)
    )
    max_stored_responses: int = flag(
        REQUESTS,
        "Responses of /v1/responses that are kept in memory, 64 MB of them at most, so that requests can go on from "
        "them (`previous_response_id`); 0: none",
        default=1000,
        env="TGI_MAX_STORED_RESPONSES",
        within=Range(0, 1_000_000),
    )
    default_max_new_tokens: int | None = flag(
        REQUESTS,
        "Tokens a request may generate that does not say how many; 0: up to the end of the context",
        env="TGI_DEFAULT_MAX_NEW_TOKENS",
        shown_default="up to the end of the context",
        within=Range(0, TOKENS),
    )
    generation_defaults: str = flag(
        REQUESTS,
        "Where temperature, top_p, top_k and repetition_penalty come from that a request of the OpenAI routes leaves "
        "open: `model` takes those of generation_config.json, `tgi` TGI's",
        default="tgi",
        env="TGI_GENERATION_DEFAULTS",
        choices=("model", "tgi"),
    )
    raw_logprobs: bool = flag(
        REQUESTS,
        "Report the model's own log-probabilities on TGI's routes too, not those after penalties and warpers; "
        "--raw-logprobs=false is TGI's way",
        default=False,
        env="TGI_RAW_LOGPROBS",
    )
    disable_grammar_support: bool = flag(REQUESTS, "Refuse requests with a grammar", default=False)
    watermark_gamma: float | None = flag(
        REQUESTS,
        "Share of the vocabulary that a watermark favours",
        shown_default="0.5",
        within=Range(0, 1, open_low=True, open_high=True),
    )
    watermark_delta: float | None = flag(
        REQUESTS, "Strength of a watermark", shown_default="2.0", within=Range(-100, 100)
    )

    # -- Memory and batching
    max_batch_prefill_tokens: int | None = flag(
        MEMORY,
        "Tokens computed in one step, at most: while others stream, prompts are read in chunks that at most double "
        "the time of a step",
        shown_default="computed",
        within=Range(1, 1 << 24),
    )
    max_batch_total_tokens: int | None = flag(
        MEMORY, "Tokens the KV cache holds", shown_default="computed from memory", within=Range(2, TOKENS)
    )
    max_batch_size: int | None = flag(
        MEMORY, "Most sequences in one step", shown_default="computed", within=Range(1, 65_536)
    )
    kv_cache_memory: Bytes | None = flag(
        MEMORY,
        "Size of the KV cache, such as 2GiB",
        env="TGI_KV_CACHE_MEMORY",
        shown_default="a share of what is left; on a CPU for 32 requests at most",
        within=Range(1, BYTES),
    )
    memory: Bytes | None = flag(
        MEMORY,
        "Memory to plan for, such as 24GiB",
        env="TGI_MEMORY",
        shown_default="what is free; container limits count",
        within=Range(1, BYTES),
    )
    cuda_memory_fraction: float = flag(
        MEMORY,
        "Share of the GPU's memory to use",
        default=1.0,
        no_effect_on_cpu="it concerns GPU memory; use --memory or --kv-cache-memory",
        within=Range(0, 1, open_low=True),
    )
    # -- Device and parallelism
    device: str | None = flag(
        DEVICE, "`cpu`, `cuda` or `cuda:N`", env="TGI_DEVICE", shown_default="cuda if there is one, else cpu"
    )
    threads: int | None = flag(
        DEVICE,
        "CPU threads of the model",
        env="TGI_THREADS",
        shown_default="what affinity and CPU quota allow",
        within=Range(1, 1024),
    )
    disable_custom_kernels: bool = flag(
        DEVICE, "Compute with plain torch operations in place of the native CPU kernels", default=False
    )
    sharded: str | None = flag(DEVICE, "Spread the model over all visible GPUs; not yet", choices=SWITCH)
    num_shard: int | None = flag(
        DEVICE, "Number of devices to spread the model over; only 1 yet", within=Range(0, 1024)
    )
    # -- Logging and tracing
    json_output: bool = flag(LOGGING, "Write the log as JSON lines", default=False)
    status_interval: float = flag(
        LOGGING,
        "Seconds between two lines that say how many requests run and wait, how fast, and how full the cache is; only "
        "while there is work, and 0 for never",
        default=10.0,
        env="TGI_STATUS_INTERVAL",
        within=Range(0, SECONDS),
    )
    otlp_endpoint: str | None = flag(LOGGING, "Send traces to this OpenTelemetry collector (gRPC)")
    otlp_service_name: str = flag(LOGGING, "Service name in traces", default="text-generation-inference.router")
    env: bool = flag(LOGGING, "Log the runtime environment, for bug reports", default=False, env=None, short="-e")

    # -- Accepted from TGI, without effect
    prometheus_port: int = without_effect("metrics are on the main port, at /metrics", 9000, maximum=65535)
    usage_stats: str = without_effect("nothing is ever reported to anybody", "on", choices=("on", "off", "no-stack"))
    enable_prefill_logprobs: bool = without_effect("requests that ask for them always get them", False)
    waiting_served_ratio: float = without_effect(_CHUNKED, 0.3, within=Range(0, SECONDS))
    max_waiting_tokens: int = without_effect(_CHUNKED, 20, within=Range(0, TOKENS))
    cuda_graphs: str | None = without_effect("CUDA graphs are not used yet")
    shard_uds_path: str = without_effect("the engine's socket is in a private directory", "/tmp/text-generation-server")
    master_addr: str = without_effect(_ONE_PROCESS, "localhost")
    master_port: int = without_effect(_ONE_PROCESS, 29500, maximum=65535)
