"""Flags and variables of other servers are answered with ours."""

from __future__ import annotations

import re

import pytest

from tgi.commands import cli
from tgi.settings.foreign import FLAGS, VARIABLES
from tgi.settings.parse import UsageError, options, parse

OURS = {option.long for option in options()}


def test_what_is_named_exists() -> None:
    """Each sentence names flags that the launcher has, and no flag of ours is taken for another's."""
    for word, (_, advice) in FLAGS.items():
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", advice)) <= OURS, word
    for word, advice in VARIABLES.items():
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", advice)) <= OURS, word
    short = {option.flag.short for option in options()}
    assert not set(FLAGS) & (OURS | short)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ctx-size", "4096"], "--ctx-size is a flag of llama.cpp: use --max-total-tokens"),
        (["-c", "4096"], "use --max-total-tokens"),
        (["-m", "x.gguf"], "--model-id"),
        (["-ngl", "99"], "use --device"),
        (["-np", "4"], "use --max-batch-size"),
        (["-t", "4"], "use --threads"),
        (["--host=0.0.0.0"], "use --hostname"),
        (["--max-num-seqs", "4"], "--max-num-seqs is a flag of vLLM: use --max-batch-size"),
        (["--max-model-len", "4096"], "use --max-total-tokens"),
        (["--gpu-memory-utilization=0.9"], "use --cuda-memory-fraction"),
        (["--tensor-parallel-size", "2"], "use --num-shard"),
        (["-pp", "2"], "leave it out"),
        (["--temp", "0.3"], "send it with each request"),
        (["--no-webui"], "use --disable-playground"),
    ],
)
def test_flags_of_other_servers(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        parse(["--port", "80", *words], {}, positional=True)
    assert caught.value.tip is None and "\n" not in str(caught.value)


def test_served_model_name_is_ours_too() -> None:
    assert parse(["--served-model-name", "a"], {}).config.served_model_name == ("a",)


def test_commands_of_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "qwen3-8b"]) == 2
    assert "tip: what others call run is chat here" in capsys.readouterr().err
    assert cli.server_main(["run"]) == 2
    assert "chat" not in capsys.readouterr().err


def test_variables_of_llama_cpp() -> None:
    assert parse([], {"LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_ODD": "1"}).warnings == (
        "The variable LLAMA_ARG_CTX_SIZE is llama.cpp's and has no effect: use --max-total-tokens, the longest prompt "
        "and answer of one request together",
    )


def test_variables_of_ollama() -> None:
    parsed = parse([], {"OLLAMA_HOST": "0.0.0.0", "OLLAMA_DEBUG": "", "OLLAMA_OTHER": "1"})
    assert parsed.warnings == ("The variable OLLAMA_HOST is Ollama's and has no effect: use --hostname and --port",)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["org/a"], "org/a"),
        (["--port", "9", "org/a", "--json-output"], "org/a"),
        (["--json-output", "true", "org/a"], "org/a"),
        (["--json-output", "org/a"], "org/a"),
        (["org/a", "--model-id", "org/a"], "org/a"),
        ([], "of-the-environment"),
    ],
)
def test_a_model_without_its_flag(words: list[str], model: str) -> None:
    assert parse(words, {"MODEL_ID": "of-the-environment"}, positional=True).config.model_id == model


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "b"], "unexpected argument 'b' found: a was given before"),
        (["a", "--model-id", "b"], "a and --model-id b are two different values: give one"),
    ],
)
def test_two_models(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(words, {}, positional=True)


def test_the_launcher_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.launcher_main(["org/a"]) == 2
    assert "unexpected argument 'org/a' found" in capsys.readouterr().err
