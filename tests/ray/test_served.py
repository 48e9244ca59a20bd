"""What is deployed: command lines and deploy.yaml, what a replica takes, and one sentence for what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from tgi.commands.deploy.command import deploy, keys_of
from tgi.errors import ArgumentError, StartupError
from tgi.hardware import Hardware
from tgi.ray import cluster
from tgi.ray.flags import DeployFlags
from tgi.ray.router import settings_of
from tgi.ray.served import Served, of_arguments, of_command_line, of_mapping, plan
from tgi.settings.parse import UsageError, parse

ROOT = Path(__file__).resolve().parents[2]
FACTS = Hardware(cpu_count=8, available_memory=16 << 30, cpu_name="test")


def served(*words: str, facts: Hardware = FACTS) -> list[Served]:
    return plan(of_command_line(words, {})[1], {}, facts)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "deploy.yaml"
    path.write_text(text)
    return str(path)


def test_a_command_line() -> None:
    flags, wanted = of_command_line(["tgi-demo", "--replicas", "2", "-p", "9000", "--dtype=float32"], {})
    assert (flags.port, flags.hostname, flags.name) == (9000, "127.0.0.1", "tgi")
    (one,) = plan(wanted, {}, FACTS, keys=("secret",))
    assert (one.name, one.model_id, one.replicas, one.least, one.most) == ("tgi-demo", "tgi-demo", 2, 2, 2)
    assert one.cpus == 4 and one.keys == ("secret",)
    config = parse(one.words, {}).config
    assert (config.threads, config.dtype) == (4, "float32")
    assert config.memory is not None and 7 << 30 < config.memory < 7.2 * (1 << 30), "each replica has its half"
    assert 400 << 20 < one.memory < config.memory


def test_memory_and_cores_that_are_given() -> None:
    (one,) = served("tgi-demo", "--memory=2GiB", "--cpus=3", "--max-replicas=4", "--min-replicas=0")
    assert (one.cpus, one.least, one.replicas, one.most) == (3, 0, 1, 4)
    assert "--memory=2GiB" in one.words and one.memory < 2 << 30
    with pytest.raises(ArgumentError, match="contradict"):
        served("tgi-demo", "--cpus=3", "--threads=2")


def test_a_file_with_several_models(tmp_path: Path) -> None:
    text = """
port: 9000
start-timeout: 5
models:
  - model-id: tgi-demo
    served-name: org/small
    replicas: 2
  - {model-id: tgi-demo, served-name: other, max-total-tokens: 512, min_replicas: 0, stop: }
"""
    with pytest.raises(UsageError, match="model 2: `stop`"):
        of_command_line(["--config", write(tmp_path, text)], {})
    flags, wanted = of_command_line(["--config", write(tmp_path, text.replace(", stop: ", "")), "--port", "9001"], {})
    assert (flags.port, flags.start_timeout) == (9001, 5), "the command line wins"
    first, second = plan(wanted, {}, FACTS)
    assert (first.name, first.slug, first.cpus) == ("org/small", "org-small", 2)
    assert parse(first.words, {}).config.served_model_name == ("org/small",)
    assert parse(second.words, {}).config.max_total_tokens == 512 and second.least == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: []", "names no model"),
        ("port: 1", "names no model"),
        ("- 1", "must hold settings"),
        ("models: [{replicas: 2}]", "model 1 has no `model-id`"),
        ("models: [tgi-demo]", "model 1: expected settings"),
        ("models: [{model-id: tgi-demo, repicas: 2}]", "model 1: `repicas` is no setting"),
        ("models: [{model-id: tgi-demo, port: 2}]", "model 1: `port` is no setting"),
        ("models: [{model-id: [a, b]}]", "one value only"),
        ("models: [{model-id: tgi-demo, replicas: many}]", "invalid value 'many'"),
        ("models: [{model-id: tgi-demo, replicas: 5000}]", "`replicas` must be"),
        ("models: [{model-id: tgi-demo, min-replicas: 3, max-replicas: 2}]", "more than `max_replicas`"),
        ("models: [{model-id: tgi-demo}, {model-id: tgi-demo}]", "two models have the name `tgi-demo`"),
        ("models: [{model-id: tgi-demo, served-name: a/b}, {model-id: tgi-demo, served-name: a-b}]", "in paths `a-b`"),
        ("prt: 1\nmodels: [{model-id: tgi-demo}]", "`prt` is no setting"),
        ("models: {", "is not YAML"),
        ("models: [{model-id: tgi-demo, memory: 200MiB}]", "do not fit"),
        ("models: [{model-id: /no/such/model}]", "no directory"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises((UsageError, StartupError)) as caught:
        plan(of_command_line(["--config", write(tmp_path, text)], {})[1], {}, FACTS)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which model"),
        (["--replicas", "2"], "which model"),
        (["a", "--config", "x.yaml"], "--model-id does not go with --config"),
        (["--modle-id", "x"], "unexpected argument '--modle-id'"),
        (["a", "--routers", "0"], "`routers` must be > 0"),
        (["a", "--hostname"], "a value is required"),
        (["a", "b"], "unexpected argument 'b'"),
    ],
)
def test_what_is_wrong_with_a_command_line(words: list[str], sentence: str) -> None:
    with pytest.raises((UsageError, StartupError), match=sentence.replace("-", r"\-")):
        of_command_line(words, {})


def test_a_port_that_is_taken_and_ray_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import socket

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StartupError, match=r"pip install 'text-generation-inference\[ray\]'"):
        deploy(["tgi-demo"], {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port} is in use"):
            deploy(["tgi-demo", "--port", str(port)], {})
        cluster.check(DeployFlags(port=port, ray_address="auto"))


def test_names_and_keys_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="`name`"):
        deploy(["tgi-demo", "--name", "../x"], {})
    file = tmp_path / "keys"
    file.write_text("second\n")
    assert keys_of(DeployFlags(api_key=("first",), api_key_file=str(file))) == ("first", "second")
    with pytest.raises(ArgumentError, match="empty"):
        keys_of(DeployFlags(api_key=(" ",)))


def blocks_of(page: str) -> list[str]:
    text = (ROOT / page).read_text()
    return [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "models:" in block]


def test_what_the_page_shows_is_understood(tmp_path: Path) -> None:
    (shown,) = blocks_of("docs/scaling.md")
    flags, wanted = of_command_line(["--config", write(tmp_path, shown)], {})
    assert flags.port == 8080 and [one.own.served_name for one in wanted] == ["large", "small"]


def test_the_serve_file_is_understood() -> None:
    content = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    router, *models = content["applications"]
    assert router["import_path"] == "tgi.ray:app" and router["route_prefix"] == "/"
    settings = settings_of(router["args"])
    assert settings.models == {one["args"]["served-name"]: one["name"] for one in models}
    for one in models:
        assert one["import_path"] == "tgi.ray:model" and one["route_prefix"] is None
        texts = dict(one["args"])
        assert texts.pop("router") == router["name"]
        of_mapping(texts, "args")
    with pytest.raises(msgspec.ValidationError, match="rooters"):
        settings_of({"rooters": 2})


def test_serve_takes_its_files() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed").ServeDeploySchema
    service = yaml.safe_load((ROOT / "deploy/ray/rayservice.yaml").read_text())
    inside = yaml.safe_load(service["spec"]["serveConfigV2"])
    for content in (yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text()), inside):
        assert len(schema.model_validate(content).applications) == 2
        for one in content["applications"][1:]:
            of_mapping({key: value for key, value in one["args"].items() if key != "router"}, "args")
        settings_of(content["applications"][0]["args"])


def test_arguments_of_a_serve_file() -> None:
    arguments = {"model-id": "tgi-demo", "replicas": 2, "trust-remote-code": True, "api-key": "k", "router": "x"}
    one = of_arguments(arguments, {}, FACTS)
    assert (one.replicas, one.keys, one.cpus) == (2, ("k",), 8)
    assert of_arguments({"planned": msgspec.to_builtins(one)}, {}, FACTS) == one
    with pytest.raises(UsageError, match="`replcas`"):
        of_arguments({"model-id": "tgi-demo", "replcas": 2}, {}, FACTS)
