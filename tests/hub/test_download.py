"""Models from a hub (a fake one on loopback): what is fetched, kept, refused, and said."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fake_hub import SHA, FakeHub, Repo
from tgi.errors import DownloadError, ModelError
from tgi.hub import download as module
from tgi.hub.download import Hub, download, download_config
from tgi.hub.unfinished import fetch_blob

CONFIG = b'{"model_type": "llama"}'
FILES = {
    "config.json": CONFIG,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# model",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"old weights",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "modules.json": b"[]",
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "modeling.py": b"print()",
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repos["org/name"] = Repo(dict(FILES))
        yield hub


def settings(hub: FakeHub, tmp_path: Path, **more: object) -> Hub:
    return Hub(cache_dir=str(tmp_path / "cache"), endpoint=hub.url, pause_s=0.0, **more)  # type: ignore[arg-type]


def refusal(model_id: str, hub: Hub, revision: str | None = None) -> str:
    with pytest.raises(DownloadError) as caught:
        download(model_id, revision, hub)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_what_is_needed_and_nothing_else(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tgi")
    model = download("org/name", None, settings(hub, tmp_path))
    assert (model.model_id, model.sha, model.pipeline_tag) == ("org/name", SHA, "text-generation")
    found = {str(path.relative_to(model.path)) for path in Path(model.path).rglob("*") if path.is_file()}
    assert found == {
        "config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "modules.json",
        "1_Pooling/config.json",
    }  # fmt: skip
    assert (Path(model.path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    messages = [record.getMessage() for record in caplog.records]
    assert "Download file: model.safetensors" in messages
    assert any(line.startswith("Downloaded ") and " in 0:00:0" in line for line in messages)
    assert "Download: [1/1] -- ETA: 0:00:00" in messages


def test_code_only_when_trusted(hub: FakeHub, tmp_path: Path) -> None:
    model = download("org/name", None, settings(hub, tmp_path), code=True)
    assert (Path(model.path) / "modeling.py").exists()


def test_cached_files_are_not_asked_for_again(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tgi")
    first = download("org/name", None, settings(hub, tmp_path))
    hub.requests.clear()
    assert download("org/name", None, settings(hub, tmp_path)) == first
    assert not [request for request in hub.requests if request[0] == "GET" and "/resolve/" in request[1]]
    assert "Files are already present on the host. Skipping download." in caplog.messages


def test_a_complete_cache_needs_no_network(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    online = download("org/name", None, settings(hub, tmp_path))
    hub.close()
    assert download("org/name", None, settings(hub, tmp_path)).path == online.path
    assert "using the cached files of org/name" in caplog.text
    offline = download("org/name", None, settings(hub, tmp_path, offline=True))
    assert (offline.path, offline.sha) == (online.path, SHA)


def test_offline_makes_no_request(hub: FakeHub, tmp_path: Path) -> None:
    text = refusal("org/name", settings(hub, tmp_path, offline=True))
    assert "HF_HUB_OFFLINE is set and org/name is not in the cache" in text
    assert "download it first with `text-generation-server download-weights org/name`" in text
    text = refusal("org/name", replace(settings(hub, tmp_path, offline=True), only=True))
    assert text == "HF_HUB_OFFLINE is set and org/name is not in the cache: unset it, or give a local directory"
    assert hub.requests == []


def test_offline_with_half_a_model(hub: FakeHub, tmp_path: Path) -> None:
    download_config("org/name", None, settings(hub, tmp_path))
    assert "holds no weights" in refusal("org/name", settings(hub, tmp_path, offline=True))


def test_unreachable_hub_and_no_cache(hub: FakeHub, tmp_path: Path) -> None:
    hub.close()
    text = refusal("org/name", settings(hub, tmp_path))
    assert "the hub cannot be reached" in text
    assert "download-weights org/name" in text


def test_revision(hub: FakeHub, tmp_path: Path) -> None:
    other = "f" * 40
    hub.repos["org/name"] = Repo({**FILES, "model.safetensors": b"other"}, sha=other, revisions=("refs/pr/1", "v2"))
    model = download("org/name", "v2", settings(hub, tmp_path))
    assert (model.sha, Path(model.path).name) == (other, other)
    assert download("org/name", other, settings(hub, tmp_path)).path == model.path
    assert refusal("org/name", settings(hub, tmp_path), "v3") == "org/name has no revision v3: check --revision"


def test_a_broken_transfer_is_resumed(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.repos["org/name"].break_after["model.safetensors"] = 3000
    model = download("org/name", None, settings(hub, tmp_path))
    assert (Path(model.path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    ranges = hub.transfers("model.safetensors")
    assert len(ranges) == 2
    assert ranges[1] is not None
    assert ranges[1].startswith("bytes=3000-")


def unfinished(tmp_path: Path) -> Path:
    [blobs] = (tmp_path / "cache").glob("models--*/blobs")
    return blobs / f"{hashlib.sha256(FILES['model.safetensors']).hexdigest()}.unfinished"


def test_a_later_run_goes_on_where_an_earlier_one_ended(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tgi")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    hub.repos["org/name"].break_after["model.safetensors"] = 3000
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("time.sleep", interrupt)  # while the library waits to try again
        download("org/name", None, settings(hub, tmp_path))
    assert unfinished(tmp_path).stat().st_size == 3000
    model = download("org/name", None, settings(hub, tmp_path))
    assert (Path(model.path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.transfers("model.safetensors") == [None, "bytes=3000-"]
    assert not unfinished(tmp_path).exists()
    assert "Going on with model.safetensors after 3000 of 7000 bytes" in caplog.messages


@pytest.mark.parametrize("left", [b"damaged" * 10, b"too long" * 1000])
def test_what_an_earlier_run_left_is_checked(hub: FakeHub, tmp_path: Path, left: bytes) -> None:
    download_config("org/name", None, settings(hub, tmp_path))
    unfinished(tmp_path).write_bytes(left)
    model = download("org/name", None, settings(hub, tmp_path))
    assert (Path(model.path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_an_etag_names_no_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(etag="../../../elsewhere", size=3, location="http://127.0.0.1:1/f", xet_file_data=None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: facts)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", lambda *_, **__: pytest.fail("fetched"))
    fetch_blob("org/m", "f", None, cache_dir=str(tmp_path / "cache"), token=None, endpoint="http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_the_library_are_log_lines(hub: FakeHub, tmp_path: Path) -> None:
    """Once, in the log's format, and not on standard error beside it; in an interpreter of its own, as in a server."""
    hub.repos["org/name"].break_after["model.safetensors"] = 3000
    code = (
        "import sys; from tgi import logs; from tgi.hub.download import Hub, download; logs.configure();"
        "download('org/name', None, Hub(cache_dir=sys.argv[1], endpoint=sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), hub.url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("Error while downloading") == 1


def test_passing_faults_are_tried_again(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.fail_next = 2
    download("org/name", None, settings(hub, tmp_path))
    assert "Retrying 1/4" in caplog.text


def test_faults_that_stay(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail_next = 1000
    assert "failed after 5 tries" in refusal("org/name", settings(hub, tmp_path))


def test_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["org/name"].token = "hf_secret"
    assert "set HF_TOKEN" in refusal("org/name", settings(hub, tmp_path, token="hf_wrong"))
    assert download("org/name", None, settings(hub, tmp_path, token="hf_secret")).sha == SHA


def test_gated(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["org/name"].gated = True
    text = refusal("org/name", settings(hub, tmp_path))
    assert "access to org/name is restricted" in text
    assert "HF_TOKEN" in text


def test_unknown_model(hub: FakeHub, tmp_path: Path) -> None:
    assert "org/nome is neither a local directory nor a model on the hub" in refusal(
        "org/nome", settings(hub, tmp_path)
    )
    assert "valid hub id" in refusal("a b", settings(hub, tmp_path))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["config.json"], "has no weights"),
        (["config.json", "model.h5"], "another framework"),
        (["model.safetensors"], "no config.json"),
    ],
)
def test_models_that_cannot_be_served(hub: FakeHub, tmp_path: Path, names: list[str], says: str) -> None:
    hub.repos["org/name"] = Repo(dict.fromkeys(names, CONFIG))
    assert says in refusal("org/name", settings(hub, tmp_path))


def test_a_gguf_file_of_a_repository_is_chosen_and_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["org/g"] = Repo({"README.md": b"x", **{f"g-{kind}.gguf": b"x" * 40 for kind in ("Q4_K_M", "Q8_0")}})
    for name, chosen in (("org/g", "g-Q4_K_M.gguf"), ("org/g:Q8_0", "g-Q8_0.gguf")):
        with pytest.raises(ModelError, match=f"{chosen} is not a GGUF file"):
            download(name, None, settings(hub, tmp_path))
    with pytest.raises(DownloadError, match="Q2_K; it has: g-Q4_K_M"):
        download("org/g", None, settings(hub, tmp_path), gguf_file="Q2_K")


def test_a_stale_index_is_not_even_fetched(hub: FakeHub, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": b"old"}
    hub.repos["org/both"] = Repo(dict(FILES) | files)
    for reach in (settings(hub, tmp_path), settings(hub, tmp_path, offline=True)):
        found = {path.name for path in Path(download("org/both", None, reach).path).iterdir()}
        assert {name for name in found if "safetensors" in name} == {"model.safetensors"}


def test_shards_are_those_of_the_index(hub: FakeHub, tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": dict(zip("abc", [*shards, shards[0]], strict=True))}).encode()
    files = {"config.json": CONFIG, "model.safetensors.index.json": index, "consolidated.safetensors": b"twice"}
    hub.repos["org/name"] = Repo(files | dict.fromkeys(shards, b"x"))
    model = download("org/name", None, settings(hub, tmp_path))
    assert {path.name for path in Path(model.path).glob("*.safetensors")} == set(shards)
    assert (Path(model.path) / "model.safetensors.index.json").exists()
    del hub.repos["org/name"].files[shards[1]]
    assert "1 of 2 weight files are missing" in refusal("org/name", settings(hub, tmp_path))


def test_disk_full(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_hub_file", full)
    assert "no space left for org/name" in refusal("org/name", settings(hub, tmp_path))


def test_config_alone(hub: FakeHub, tmp_path: Path) -> None:
    directory = download_config("org/name", None, settings(hub, tmp_path))
    assert [path.name for path in directory.iterdir()] == ["config.json"]


def test_no_torch_for_downloads() -> None:
    """In a fresh interpreter, since tests of other parts import torch here."""
    code = "import sys, tgi.hub.prepare, huggingface_hub.hf_api; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
