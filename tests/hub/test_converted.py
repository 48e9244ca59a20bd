"""Models in directories that cannot be written to: what is converted of them lies in a cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tgi.errors import DownloadError
from tgi.hub import converted
from tgi.hub.converted import caches_of, place
from tgi.hub.download import Hub
from tgi.hub.prepare import model_files
from tgi.settings.flags import LauncherConfig
from tgi.settings.resolve import ModelFiles


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFiles:
    """A directory with a slow tokenizer, on a mount that cannot be written to."""
    directory = tmp_path / "größe"
    directory.mkdir()
    for name in ("config.json", "tokenizer.model", "model.safetensors"):
        (directory / name).write_text("{}")
    (directory / "additional_chat_templates").mkdir()
    only = str(directory)
    monkeypatch.setattr(converted, "writable", lambda place: str(place) != only and os.access(place, os.W_OK))
    return ModelFiles(only, "org/name", "sha", "text-generation")


def _names(directory: str | Path) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


def test_links_in_a_cache(model: ModelFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    found = place(model, [Path("/proc/nowhere"), cache])
    directory = Path(found.path)
    assert directory.is_relative_to(cache) and (found.model_id, found.sha) == ("org/name", "sha")
    assert _names(directory) == _names(model.path)
    assert all(path.is_symlink() and path.exists() for path in directory.iterdir())
    assert caplog.messages == [f"org/name cannot be written to: what is converted of it is kept in {directory}"]


def test_what_is_there_is_taken_again_until_a_file_changes(model: ModelFiles, tmp_path: Path) -> None:
    first = Path(place(model, [tmp_path]).path)
    (first / "tokenizer.json").write_text("converted")
    assert Path(place(model, [tmp_path]).path) == first
    assert (first / "tokenizer.json").read_text() == "converted"
    os.utime(Path(model.path) / "tokenizer.model", ns=(1, 1))
    second = Path(place(model, [tmp_path]).path)
    assert second != first and not (second / "tokenizer.json").exists()
    assert not first.exists(), "nobody needs it any more"


@pytest.mark.parametrize("name", ["tokenizer.json", None])
def test_what_needs_no_conversion_stays(model: ModelFiles, tmp_path: Path, name: str | None) -> None:
    directory = Path(model.path)
    if name is None:
        (directory / "tokenizer.model").unlink()
    else:
        (directory / name).write_text("{}")
    assert place(model, [tmp_path / "cache"]) == model
    assert not (tmp_path / "cache").exists()


def test_a_directory_that_can_be_written_to(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.model", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    model = ModelFiles(str(tmp_path), "name")
    assert place(model, []) == model


def test_no_place_at_all(model: ModelFiles) -> None:
    with pytest.raises(
        DownloadError, match=r"neither its directory nor a cache \(/proc/x\) can be written to: give one"
    ):
        place(model, [Path("/proc/x")])


def test_caches() -> None:
    given = {"HOME": "/home/me", "XDG_CACHE_HOME": "/xdg", "HF_HOME": "/hf"}
    assert [str(cache) for cache in caches_of(given, "/given")][:4] == ["/given", "/hf", "/xdg", "/home/me/.cache"]
    assert len(caches_of({}, None)) == 1


def test_weights(model: ModelFiles, tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    source = Path(model.path)
    (source / "model.safetensors").unlink()
    (source / "tokenizer.json").write_text("{}")
    torch.save({"a": torch.ones(2)}, source / "pytorch_model.bin")
    before = _names(source)
    found = model_files(LauncherConfig(model_id=model.path), Hub(cache_dir=str(tmp_path / "cache"), offline=True))
    assert load_file(Path(found.path) / "model.safetensors")["a"].tolist() == [1, 1]
    assert _names(source) == before
