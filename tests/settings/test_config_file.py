"""`--config FILE`: flags by their names, below the command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgi.errors import ArgumentError
from tgi.hub.prepare import prepare
from tgi.settings.parse import Parsed, UsageError, parse

YAML = """
model-id: org/name
port: 9000
max_best_of: 3   # underscores do, too
trust-remote-code: yes
memory: 24GiB
rope-factor: 2.5
revision: 0123
api-key: [a, b]
served-model-name: one
dtype:
quantize: null
"""
TOML = """
model-id = "org/name"
port = 9000
max_best_of = 3
trust-remote-code = true
memory = "24GiB"
rope-factor = 2.5
revision = "0123"
api-key = ["a", "b"]
served-model-name = "one"
"""


def of_file(tmp_path: Path, text: str, *words: str, name: str = "a.yaml", **variables: str) -> Parsed:
    (tmp_path / name).write_text(text)
    return parse(["--config", str(tmp_path / name), *words], variables, positional=True)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.YML", YAML), ("a.toml", TOML)])
def test_what_a_file_says(tmp_path: Path, name: str, text: str) -> None:
    parsed = of_file(tmp_path, text, name=name)
    config = parsed.config
    assert (config.model_id, config.port, config.max_best_of, config.trust_remote_code) == ("org/name", 9000, 3, True)
    assert (config.memory, config.rope_factor, config.revision) == (24 << 30, 2.5, "0123")
    assert (config.api_key, config.served_model_name, config.dtype) == (("a", "b"), ("one",), None)
    assert parsed.given["port"] == f"`port` of {tmp_path / name}"


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    text = "port: 1\nmax-best-of: 1\nmax-stop-sequences: 1\napi-key: [a]\nmodel-id: of-file"
    parsed = of_file(tmp_path, text, "of-line", "--port", "3", "--api-key", "b", PORT="2", MAX_BEST_OF="2")
    config = parsed.config
    assert (config.port, config.max_best_of, config.max_stop_sequences) == (3, 2, 1)
    assert (config.api_key, config.model_id) == (("b",), "of-line")
    assert parse([], {"TGI_CONFIG": str(tmp_path / "a.yaml")}).config.max_best_of == 1


def test_the_host_name_of_a_container_does_not_beat_the_file(tmp_path: Path) -> None:
    assert of_file(tmp_path, "hostname: 127.0.0.2", HOSTNAME="3f2a9c").config.hostname == "127.0.0.2"
    assert of_file(tmp_path, "hostname: 127.0.0.2", HOSTNAME="127.0.0.3").config.hostname == "127.0.0.3"


@pytest.mark.parametrize(
    ("text", "says", "tip"),
    [
        ("prot: 1", "`prot` of ", "a similar name exists: 'port'"),
        ("max_best_off: 1", " is no flag", "a similar name exists: 'max-best-of'"),
        ("ctx-size: 1", "--ctx-size is a flag of llama.cpp: use --max-total-tokens", None),
        ("port: many", "invalid value 'many' for '`port` of ", None),
        ("port: [1, 2]", "can have one value only", None),
        ("max-best-of: 1\nmax_best_of: 2", "can have one value only", None),
        ("config: b.yaml", " is no flag", None),
        ("dtype: flaot16", "possible values", "a similar value exists: 'float16'"),
    ],
)
def test_names_and_values_that_are_none(tmp_path: Path, text: str, says: str, tip: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        of_file(tmp_path, text)
    assert says in str(caught.value) and caught.value.tip == tip


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "port: 1", "must be YAML or TOML"),
        ("a.yaml", "port: [1", "is not YAML in line"),
        ("a.yaml", "- port", "must hold names of flags"),
        ("a.yaml", "port: {a: 1}", "`port` must be a text, a number"),
        ("a.toml", "port: 1", "is not TOML"),
        ("a.toml", "[server]\nport = 1", "`server` must be a text, a number"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        of_file(tmp_path, text, name=name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        parse(["--config", str(tmp_path / "a.yaml")], {})
    assert of_file(tmp_path, "").config.config == str(tmp_path / "a.yaml")


def test_in_python_there_is_none() -> None:
    with pytest.raises(ArgumentError, match="give what the file says as keyword arguments"):
        prepare(config="a.yaml")
