"""Checks between flags with TGI's messages, refusals by name, and what API and engine get."""

from __future__ import annotations

import dataclasses

import pytest

from tgi.commands.cli import FRIENDLY
from tgi.errors import ArgumentError
from tgi.hardware import Hardware
from tgi.settings.config import ApiConfig, EngineConfig, Environment, environment_settings
from tgi.settings.parse import parse
from tgi.settings.resolve import ModelFiles, check, resolve

CPU = Hardware(cpu_count=2, available_memory=1 << 30, cpu_name="x")
GPU = dataclasses.replace(CPU, gpus=("NVIDIA A100-SXM4-80GB",))
MODEL = ModelFiles("/models/m", "org/m", "abc", "text-generation")


def refusal(words: str, hardware: Hardware = CPU, variables: dict[str, str] | None = None) -> str:
    with pytest.raises(ArgumentError) as caught:
        check(parse(words.split(), {}).config, hardware, variables or {})
    return str(caught.value)


def resolved(words: str, hardware: Hardware = CPU, **settings: object) -> tuple[ApiConfig, EngineConfig]:
    parsed = parse(words.split(), {})
    check(parsed.config, hardware, {})
    return resolve(parsed, Environment(**settings), hardware, MODEL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-input-tokens 10 --max-total-tokens 10", "`max_input_tokens`(10) must be < `max_total_tokens`(10)"),
        ("--max-input-length 11 --max-total-tokens 10", "`max_input_tokens`(11) must be < `max_total_tokens`(10)"),
        (
            "--max-total-tokens 20 --max-batch-total-tokens 10",
            "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 20 and 10",
        ),
        (
            "--max-batch-prefill-tokens 20 --max-batch-total-tokens 10",
            "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 20 and 10",
        ),
        ("--validation-workers 0", "`validation_workers` must be > 0"),
        ("--max-batch-size 0", "`max_batch_size` must be > 0"),
        ("--sharded true --num-shard 1", "`sharded` is true but `num_shard` <= 1"),
        ("--sharded true", "`sharded` is true but only found 0 CUDA devices"),
        ("--num-shard 0", "`num_shard` cannot be < 1"),
        ("--num-shard 2 --quantize exl2", "Sharding is currently not supported with `exl2` quantization"),
        ("--lora-adapters a=b=c", "Invalid LoRA adapter format: a=b=c"),
        ("--ngrok", "`ngrok-authtoken` must be set when using ngrok tunneling"),
        ("--ngrok --ngrok-authtoken x", "`ngrok-edge` must be set when using ngrok tunneling"),
    ],
)
def test_tgis_messages(words: str, message: str) -> None:
    assert refusal(words) == message


def test_both_input_limits_are_named() -> None:
    text = refusal("--max-input-tokens 1 --max-input-length 2")
    assert "`max_input_tokens` (1)" in text
    assert "`max_input_length` (2)" in text


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--quantize exl2", "`quantize` exl2 is not supported: use --quantize int4"),
        ("--quantize eetq --calibration x", "`calibration` x needs `quantize` int8"),
        ("--num-shard 2", "`num_shard` 2 is not supported yet"),
        ("--lora-adapters org/a,b=/c", "`lora_adapters` are not supported yet"),
        ("--speculate 3", "`speculate` 3 is not supported yet"),
        ("--ngrok --ngrok-authtoken x --ngrok-edge y", "`ngrok` is not supported"),
        ("--device tpu", "`device` must be cpu, cuda or cuda:N"),
        ("--cuda-memory-fraction 1.5", "`cuda_memory_fraction` must be > 0 and <= 1"),
        ("--rope-factor 0.5", "`rope_factor` must be >= 1"),
        ("--threads 0", "`threads` must be > 0"),
        ("--served-model-name=", "`served_model_name` cannot be empty"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(words: str, names: str) -> None:
    assert names in refusal(words)


def test_visible_devices_count_for_sharding() -> None:
    two = dataclasses.replace(GPU, gpus=("a", "b"))
    assert "over 2 devices is not supported yet" in refusal("--sharded true", two)
    assert "only found 1 CUDA" in refusal("--sharded true", two, {"CUDA_VISIBLE_DEVICES": "1"})


@pytest.mark.parametrize("words", ["", "--sharded false", "--num-shard 1", "--speculate 0", "--device cuda:1"])
def test_harmless_values_pass(words: str) -> None:
    check(parse(words.split(), {}).config, CPU, {})


def test_every_setting_arrives() -> None:
    words = (
        "--dtype float32 --quantize int8 --activation-dtype float32 --kv-cache-dtype int8 --disable-custom-kernels "
        "--max-input-length 7 --max-total-tokens 9 --max-batch-prefill-tokens 5 --max-batch-size 3 "
        "--max-batch-total-tokens 99 --kv-cache-memory 1MiB --memory 2GiB --threads 4 --device cpu --port 1 "
        "--hostname 127.0.0.2 --api-key k --cors-allow-origin a --payload-limit 10 --max-concurrent-requests 11 "
        "--max-queue 21 "
        "--max-best-of 12 --max-stop-sequences 13 --max-top-n-tokens 14 --max-client-batch-size 15 "
        "--max-stop-sequence-length 19 --max-stop-token-ids 20 "
        "--validation-workers 16 --graceful-termination-timeout 17 --health-timeout 18 --watermark-gamma 0.1 "
        "--watermark-delta 0 --tokenizer-config-path t.json --disable-grammar-support --trust-remote-code "
        "--otlp-endpoint http://o --otlp-service-name s --json-output --revision main"
    )
    api, engine = resolved(words, log_level="debug", prefix_caching=False, compute_type="mine")
    assert engine == EngineConfig(
        model_path="/models/m",
        model_id="org/m",
        dtype="float32",
        quantize="int8",
        activation_dtype="float32",
        kv_cache_dtype="int8",
        native_kernels=False,
        device="cpu",
        max_input_tokens=7,
        max_total_tokens=9,
        max_batch_prefill_tokens=5,
        max_batch_total_tokens=99,
        max_batch_size=3,
        memory_bytes=2 << 30,
        kv_cache_bytes=1 << 20,
        prefix_caching=False,
        threads=4,
        trust_remote_code=True,
        watermark_gamma=0.1,
        watermark_delta=0.0,
        log_level="debug",
        json_output=True,
    )
    assert api == ApiConfig(
        model_id="org/m",
        model_path="/models/m",
        revision="main",
        model_sha="abc",
        pipeline_tag="text-generation",
        tokenizer_config_path="t.json",
        hostname="127.0.0.2",
        port=1,
        api_keys=("k",),
        cors_allow_origin=("a",),
        payload_limit=10,
        max_concurrent_requests=11,
        max_queue=21,
        max_best_of=12,
        max_stop_sequences=13,
        max_stop_sequence_length=19,
        max_stop_token_ids=20,
        max_top_n_tokens=14,
        max_client_batch_size=15,
        validation_workers=16,
        disable_grammar_support=True,
        health_stall_s=18.0,
        graceful_termination_s=17.0,
        compute_type="mine",
        otlp_endpoint="http://o",
        otlp_service_name="s",
    )


def test_rope_flags_complete_each_other() -> None:
    assert resolved("")[1].rope_scaling is None
    assert resolved("--rope-factor 2")[1].rope_scaling == "linear"
    dynamic = resolved("--rope-scaling dynamic")[1]
    assert (dynamic.rope_scaling, dynamic.rope_factor) == ("dynamic", 1.0)


def test_flags_without_effect_are_listed_when_given() -> None:
    words = "--cuda-graphs 1,2 --cuda-memory-fraction 0.5 --max-waiting-tokens 3 --port 1"
    assert set(resolved(words)[0].ineffective_flags) == {
        "--cuda-graphs",
        "--cuda-memory-fraction",
        "--max-waiting-tokens",
    }
    assert "--cuda-memory-fraction" not in resolved(words, GPU)[0].ineffective_flags
    assert resolved("")[0].ineffective_flags == {}


def test_compute_type_is_tgis_slug() -> None:
    assert resolved("", GPU)[0].compute_type == "1-nvidia-a100-sxm4-80gb"
    assert resolved("--device cpu", GPU)[0].compute_type == "cpu"


@pytest.mark.parametrize(
    ("variables", "token"),
    [
        ({"HF_TOKEN": "a", "HF_API_TOKEN": "b", "HUGGING_FACE_HUB_TOKEN": "c"}, "a"),
        ({"HF_API_TOKEN": "b", "HUGGING_FACE_HUB_TOKEN": "c"}, "b"),
        ({"HUGGING_FACE_HUB_TOKEN": "c"}, "c"),
        ({}, None),
    ],
)
def test_tokens(variables: dict[str, str], token: str | None) -> None:
    assert environment_settings(variables).hf_token == token


def test_variables_without_a_flag() -> None:
    settings = environment_settings(
        {"LOG_LEVEL": "debug", "LOG_COLORIZE": "1", "HF_HUB_OFFLINE": "1", "PREFIX_CACHING": "0", "ATTENTION": "paged"}
    )
    assert (settings.log_level, settings.color, settings.hub_offline) == ("debug", False, True)
    assert settings.prefix_caching is False
    assert set(settings.ineffective) == {"ATTENTION"}
    assert environment_settings({}) == Environment()


def test_defaults_that_tgi_serve_has_of_its_own() -> None:
    """TGI's in the launcher; what is given wins in both."""
    for defaults, words, expected in (
        ({}, "", (None, False)),
        (FRIENDLY, "", (1024, True)),
        (FRIENDLY, "--default-max-new-tokens 0 --raw-logprobs=false", (None, False)),
        (FRIENDLY, "--default-max-new-tokens 5", (5, True)),
        ({}, "--default-max-new-tokens 5 --raw-logprobs", (5, True)),
    ):
        api, _ = resolve(parse(words.split(), {}, defaults), Environment(), CPU, MODEL)
        assert (api.default_max_new_tokens, api.raw_logprobs) == expected
    environment = {"TGI_DEFAULT_MAX_NEW_TOKENS": "7", "TGI_RAW_LOGPROBS": "true"}
    api, _ = resolve(parse([], environment), Environment(), CPU, MODEL)
    assert (api.default_max_new_tokens, api.raw_logprobs) == (7, True)
