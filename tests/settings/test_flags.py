"""Command line and environment -> LauncherConfig, and how mistakes are told."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tgi.commands.cli import FRIENDLY, _launcher_words
from tgi.settings import help
from tgi.settings.config import environment_settings
from tgi.settings.flags import GROUPS, SWITCH, LauncherConfig
from tgi.settings.parse import Option, UsageError, options, parse, parse_bytes

TGI_FLAGS = (
    "model-id revision validation-workers sharded num-shard quantize speculate dtype kv-cache-dtype trust-remote-code "
    "max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens max-input-tokens max-input-length "
    "max-total-tokens waiting-served-ratio max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens "
    "max-batch-size cuda-graphs hostname port prometheus-port shard-uds-path master-addr master-port "
    "huggingface-hub-cache weights-cache-override disable-custom-kernels cuda-memory-fraction rope-scaling "
    "rope-factor json-output otlp-endpoint otlp-service-name cors-allow-origin api-key watermark-gamma "
    "watermark-delta ngrok ngrok-authtoken ngrok-edge tokenizer-config-path disable-grammar-support env "
    "max-client-batch-size lora-adapters usage-stats payload-limit enable-prefill-logprobs "
    "graceful-termination-timeout "
)

TGI_DEFAULTS = {
    "validation_workers": 2,
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_top_n_tokens": 5,
    "waiting_served_ratio": 0.3,
    "max_waiting_tokens": 20,
    "hostname": "0.0.0.0",
    "port": 3000,
    "prometheus_port": 9000,
    "shard_uds_path": "/tmp/text-generation-server",
    "master_addr": "localhost",
    "master_port": 29500,
    "cuda_memory_fraction": 1.0,
    "otlp_service_name": "text-generation-inference.router",
    "max_client_batch_size": 4,
    "usage_stats": "on",
    "payload_limit": 2000000,
    "graceful_termination_timeout": 90,
}


FRIENDLY_LIMITS = {"max_client_batch_size": 64, "max_stop_sequences": 16, "max_top_n_tokens": 20}


def fails(arguments: list[str], environment: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(arguments, environment or {})
    return caught.value


@pytest.mark.parametrize("name", TGI_FLAGS.split())
def test_every_flag_of_tgi_exists_with_its_environment_variable(name: str) -> None:
    option = {option.long: option for option in options()}[f"--{name}"]
    assert option.env == (None if name == "env" else name.replace("-", "_").upper())


def test_defaults_are_tgis() -> None:
    config = dataclasses.asdict(LauncherConfig())
    assert {name: config[name] for name in TGI_DEFAULTS} == TGI_DEFAULTS


def test_tgi_serve_allows_more() -> None:
    """And says so in its help; the launcher keeps TGI's limits."""
    config = dataclasses.asdict(parse([], {}, FRIENDLY).config)
    assert {name: config[name] for name in FRIENDLY_LIMITS} == FRIENDLY_LIMITS
    parsed = parse(["--max-stop-sequences", "4"], {"MAX_TOP_N_TOKENS": "5"}, FRIENDLY).config
    assert (parsed.max_stop_sequences, parsed.max_top_n_tokens) == (4, 5)
    text = help.render("tgi serve", "About.", "tgi serve", FRIENDLY)
    for name, value in FRIENDLY_LIMITS.items():
        assert re.search(rf"--{name.replace('_', '-')} [^\[]*\[default: {value}\]", text), name


def test_command_line_beats_environment_beats_default() -> None:
    environment = {"PORT": "81", "MAX_BEST_OF": "3"}
    parsed = parse(["--port", "82"], environment, {"port": 8080, "hostname": "127.0.0.1"})
    assert (parsed.config.port, parsed.config.max_best_of, parsed.config.hostname) == (82, 3, "127.0.0.1")
    assert parsed.given == {"max_best_of": "the environment variable MAX_BEST_OF", "port": "--port"}
    assert parse([], environment, {"port": 8080}).config.port == 81


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--port=80"], "port", 80),
        (["-p", "80"], "port", 80),
        (["-p80"], "port", 80),
        (["-g", "5"], "graceful_termination_timeout", 5),
        (["-e"], "env", True),
        (["--env"], "env", True),
        (["--json-output"], "json_output", True),
        (["--json-output", "--port", "1"], "json_output", True),
        (["--json-output=false"], "json_output", False),
        (["--json-output", "false"], "json_output", False),
        (["--sharded", "true"], "sharded", "true"),
        (["--rope-factor", "2.5"], "rope_factor", 2.5),
        (["--memory", "24GiB"], "memory", 24 << 30),
        (["--cors-allow-origin", "a", "--cors-allow-origin=b"], "cors_allow_origin", ("a", "b")),
        (["--hostname", "::1"], "hostname", "::1"),
        (["--hostname", "localhost"], "hostname", "127.0.0.1"),
        (["--api-key", "--odd"], "api_key", ("--odd",)),
        (["--api-key", "a", "--api-key", "b"], "api_key", ("a", "b")),
    ],
)
def test_ways_to_write_a_flag(words: list[str], name: str, value: object) -> None:
    assert getattr(parse(words, {}).config, name) == value


def test_environment_gives_one_origin_and_the_command_line_replaces_it() -> None:
    environment = {"CORS_ALLOW_ORIGIN": "a"}
    assert parse([], environment).config.cors_allow_origin == ("a",)
    assert parse(["--cors-allow-origin", "b"], environment).config.cors_allow_origin == ("b",)


SWITCHES = [option for option in options() if option.type is bool or option.flag.choices == SWITCH]
WORDS = {"true": True, "True": True, "TRUE": True, "1": True, "yes": True, "Yes": True, "on": True, " true\n": True}
WORDS |= {"false": False, "False": False, "FALSE": False, "0": False, "no": False, "NO": False, "Off": False}


@pytest.mark.parametrize("option", [option for option in SWITCHES if option.env], ids=lambda option: option.env)
def test_switches_of_the_environment(option: Option) -> None:
    for text, value in WORDS.items():
        found = getattr(parse([], {str(option.env): text}).config, option.name)
        assert found in (value, str(value).lower()), text
    for text in ("enabled", "2", "-", "tru"):
        assert f"the environment variable {option.env}" in str(fails([], {str(option.env): text}))


@pytest.mark.parametrize("option", SWITCHES, ids=lambda option: option.long)
def test_switches_of_the_command_line(option: Option) -> None:
    for text, value in WORDS.items():
        for words in ([f"{option.long}={text}"], [option.long, text]):
            assert getattr(parse(words, {}).config, option.name) in (value, str(value).lower())


def test_switches_by_other_names() -> None:
    assert parse([], {"HF_MODEL_TRUST_REMOTE_CODE": "True"}).config.trust_remote_code is True
    assert _launcher_words(["serve", "--sharded", "False"]) == ["--model-id", "serve", "--sharded", "False"]
    for text, value in WORDS.items():
        found = environment_settings({"PREFIX_CACHING": text, "HF_HUB_OFFLINE": text, "LOG_COLORIZE": text})
        assert (found.prefix_caching, found.hub_offline, found.color) == (value, value, False if value else None)
    assert environment_settings({"PREFIX_CACHING": ""}).prefix_caching is None
    assert "the environment variable PREFIX_CACHING" in str(fails([], {"PREFIX_CACHING": "of"}))
    assert "the environment variable HF_HUB_OFFLINE" in str(fails([], {"HF_HUB_OFFLINE": "maybe"}))


def test_an_empty_variable_is_not_set() -> None:
    assert parse([], {"PORT": "", "API_KEY": ""}).config == LauncherConfig()


def test_unknown_flag_names_the_nearest() -> None:
    error = fails(["--modle-id", "x"])
    assert str(error) == "unexpected argument '--modle-id' found"
    assert error.tip == "a similar argument exists: '--model-id'"
    assert fails(["--quux"]).tip is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "70000 is not in 0..=65535"),
        (["--port", "-1"], "whole number"),
        (["--max-best-of", "two"], "invalid value 'two' for '--max-best-of'"),
        (["--dtype", "flaot16"], "possible values: float32, bfloat16, float16"),
        (["--rope-factor", "x"], "a number is needed"),
        (["--memory", "many"], "24GiB"),
        (["--port"], "a value is required for '--port <N>'"),
    ],
)
def test_bad_values(words: list[str], says: str) -> None:
    assert says in str(fails(words))


def test_a_near_choice_is_suggested() -> None:
    assert fails(["--dtype", "flaot16"]).tip == "a similar value exists: 'float16'"


@pytest.mark.parametrize(
    ("text", "value"),
    [("24GiB", 24 << 30), ("24g", 24 * 10**9), ("1.5gib", 3 << 29), ("512 MB", 512 * 10**6), ("1000", 1000)],
)
def test_amounts_of_memory(text: str, value: int) -> None:
    assert parse_bytes(text) == value


def test_hostname_of_a_container_is_no_address() -> None:
    parsed = parse([], {"HOSTNAME": "3f2a9c"})
    assert parsed.config.hostname == "0.0.0.0"
    assert "HOSTNAME" in parsed.warnings[0]
    friendly = parse([], {"HOSTNAME": "3f2a9c"}, {"hostname": "127.0.0.1"})
    assert friendly.config.hostname == "127.0.0.1"
    assert parse([], {"HOSTNAME": "10.0.0.1"}).warnings == ()


def test_sagemaker_names() -> None:
    environment = {"HF_MODEL_ID": "org/name", "HF_MODEL_REVISION": "r", "SM_NUM_GPUS": "1"}
    environment |= {"HF_MODEL_QUANTIZE": "awq", "HF_MODEL_TRUST_REMOTE_CODE": "true"}
    config = parse([], environment).config
    assert (config.model_id, config.revision, config.num_shard) == ("org/name", "r", 1)
    assert (config.quantize, config.trust_remote_code, config.port) == ("awq", True, 8080)
    own = parse([], environment | {"MODEL_ID": "mine", "PORT": "80"}).config
    assert (own.model_id, own.port) == ("mine", 80)
    assert parse([], environment | {"SM_NUM_GPUS": "0"}).config.num_shard is None


@pytest.mark.parametrize(
    ("words", "environment", "warned"),
    [
        ([], {}, False),
        ([], {"PORT": "80"}, False),
        (["--port", "9000"], {"PORT": "80"}, True),
        (["--port", "8085"], {}, False),
    ],
)
def test_vertex_says_the_port(words: list[str], environment: dict[str, str], warned: bool) -> None:
    parsed = parse(words, environment | {"AIP_HTTP_PORT": "8085"}, {"port": 8080})
    assert parsed.config.port == 8085
    assert parsed.warnings == (
        ("--port 9000 gives way to 8085 from the environment variable AIP_HTTP_PORT",) if warned else ()
    )
    assert parse(["--port", "9000"], {"AIP_HTTP_PORT": ""}).config.port == 9000
    assert "AIP_HTTP_PORT" in str(fails([], {"AIP_HTTP_PORT": "x"}))


def test_secrets_are_not_in_the_repr() -> None:
    parsed = parse(["--api-key", "hunter22", "--ngrok-authtoken", "hunter33"], {})
    assert "hunter" not in repr(parsed)


def test_help_has_every_flag_once_in_a_group() -> None:
    text = help.render("launcher", "About.", "launcher --model-id x", {"port": 8080})
    lines = text.splitlines()
    for option in options():
        head = f"  {option.flag.short}, {option.long}" if option.flag.short else f"      {option.long}"
        assert len([line for line in lines if line == head or line.startswith(f"{head} ")]) == 1
        assert option.flag.group in GROUPS
    assert "[default: 8080]" in text
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("words", "translated"),
    [
        ("org/m --revision r", "--model-id org/m --revision r"),
        ("org/m --logger-level INFO --extension .bin --uds-path /s", "--model-id org/m --shard-uds-path /s"),
        ("org/m --extension=.bin --no-auto-convert --merge-lora", "--model-id org/m"),
        ("org/m --no-json-output --sharded --trust-remote-code", "--model-id org/m --json-output=false --sharded=true"),
        ("org/m --no-sharded", "--model-id org/m --sharded=false"),
    ],
)
def test_tgis_server_command_in_the_launchers_words(words: str, translated: str) -> None:
    result = " ".join(_launcher_words(words.split()))
    assert result.removesuffix(" --trust-remote-code") == translated
    parse(result.split(), {})
