"""Short names of models: the table, and what a name becomes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tgi.errors import DownloadError
from tgi.hub.known import BITS, KNOWN, Known, full_name, look_up, near, with_full_name
from tgi.hub.prepare import prepare
from tgi.settings.flags import LauncherConfig
from tgi.settings.parse import parse


def test_the_table() -> None:
    assert len(KNOWN) >= 40
    assert len({one.id for one in KNOWN.values()}) == len(KNOWN)
    for name, one in KNOWN.items():
        assert name == name.lower() and "/" not in name and ":" not in name
        assert one.id.count("/") == 1 and one.licence and 0.1 < one.billions < 1000
        assert list(one.sizes().values()) == sorted(one.sizes().values(), reverse=True)


def test_sizes_are_those_of_the_memory_plan() -> None:
    """What a weight takes, on average, for the shapes that the doctor knows."""
    from tgi.commands.doctor.estimate import SHAPES
    from tgi.kernels.native import footprint
    from tgi.memory.cost import weight_bytes
    from tgi.models.build.decoder import build
    from tgi.models.families.registry import spec_from_config

    for shape, name in (
        ("SmolLM2-135M", "smollm2-135m"),
        ("Llama-3.2-1B", "llama3.2-1b"),
        ("Qwen2.5-0.5B", "qwen2.5-0.5b"),
    ):
        program = build(spec_from_config(dict(SHAPES[shape])))
        for form in BITS:
            planned = weight_bytes(program, "bfloat16", footprint, None if form == "bfloat16" else form)
            assert KNOWN[name].sizes()[form] == pytest.approx(planned, rel=0.07), (name, form)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("qwen3-8b", "qwen3-8b"),
        ("qwen3:8b", "qwen3-8b"),
        ("QWEN3-8B", "qwen3-8b"),
        ("smollm3", "smollm3-3b"),
        ("smollm3:latest", "smollm3-3b"),
        ("Qwen/Qwen3-8B", None),
        ("tgi-demo", None),
        ("gpt2", None),
        ("./qwen3-8b", None),
    ],
)
def test_what_is_a_short_name(typed: str, name: str | None) -> None:
    found = look_up(typed)
    assert (found[0] if found else None) == name


def test_the_beginning_of_several_names() -> None:
    with pytest.raises(
        DownloadError, match=r"smollm2 comes in several sizes: smollm2-135m, smollm2-360m, smollm2-1.7b"
    ):
        look_up("smollm2")


def test_a_local_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("qwen3-8b").mkdir()
    Path("qwen3-4b").touch()
    assert full_name("qwen3-8b") == "qwen3-8b" and full_name("qwen3-4b") == "qwen3-4b"


def test_the_log_says_what_a_name_became(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        parsed = with_full_name(parse(["smollm2:135m"], {}, positional=True))
        assert full_name("smolm2-135m") == "smolm2-135m"
    assert parsed.config.model_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert caplog.messages == [
        "smollm2-135m is HuggingFaceTB/SmolLM2-135M-Instruct (licence: apache-2.0)",
        "smolm2-135m is no short name of a model; did you mean smollm2-135m?",
    ]


def test_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LLM` takes them, too."""
    asked: list[str | None] = []

    def refuse(config: LauncherConfig, *_: object) -> None:
        asked.append(config.model_id)
        raise DownloadError("not now")

    monkeypatch.setattr("tgi.hub.prepare.model_files", refuse)
    with pytest.raises(DownloadError, match="not now"):
        prepare("smollm2-135m")
    assert asked == ["HuggingFaceTB/SmolLM2-135M-Instruct"]


def test_what_fits() -> None:
    model = Known("a/b", "mit", 8.0)
    assert [model.fitting(gib << 30) for gib in (64, 11, 8, 4)] == ["bfloat16", "int8", "int4", None]
    assert Known("a/b", "mit", 20.9, "mxfp4").fitting(24 << 30) == "mxfp4"


def test_near_names() -> None:
    assert near("qwen3-9b") and near("org/qwen3-8b") == [] and near("zzzzz") == []
