"""Conversion of .bin and .pt weights: all tensors, all names, and nothing that could run code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tgi.errors import DownloadError
from tgi.hub import convert
from tgi.hub.convert import convert_directory


def refusal(directory: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        convert_directory(directory)
    assert [path.name for path in directory.iterdir() if "safetensors" in path.name] == []
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("zipped", [True, False])
def test_every_type_and_layout(tmp_path: Path, zipped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5), generator=generator).to(getattr(torch, name)) for name in convert.DTYPE_NAMES
    }
    tensors |= {
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "slice": torch.arange(10.0)[3:5],
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 4),
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    convert_directory(tmp_path)
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_shared_tensors_keep_all_their_names(tmp_path: Path) -> None:
    embedding = torch.arange(6.0).view(2, 3)
    torch.save({"embed": embedding, "head": embedding, "row": embedding[1]}, tmp_path / "model.pt")
    convert_directory(tmp_path)
    loaded = load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded["head"], embedding)
    assert torch.equal(loaded["row"], embedding[1])


def test_shards_get_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save({"a": torch.ones(2)}, tmp_path / names[0])
    torch.save({"b": torch.zeros(3)}, tmp_path / names[1])
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert_directory(tmp_path)
    written = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert written["metadata"] == {"total_size": 20}
    for name, file in written["weight_map"].items():
        assert name in load_file(tmp_path / file)
    assert set(written["weight_map"]) == {"a", "b"}
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Convert: [1/2] -- Took: 0:00:00", "Convert: [2/2] -- Took: 0:00:00"]


def test_one_file_goes_before_an_index(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert_directory(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["a"].tolist() == [1, 1]


def test_a_wrapped_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "model.pt")
    convert_directory(tmp_path)
    assert list(load_file(tmp_path / "model.safetensors")) == ["a"]


class Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("raw", [True, False])
def test_code_is_refused_and_never_runs(tmp_path: Path, raw: bool) -> None:
    directory, witness = tmp_path / "model", tmp_path / "witness"
    directory.mkdir()
    if raw:
        (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(witness)}, protocol=2))
    else:
        torch.save({"a": Evil(witness)}, directory / "pytorch_model.bin")
    text = refusal(directory)
    assert "pytorch_model.bin holds more than tensors" in text
    assert "safetensors" in text
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "is not a dictionary of tensors"),
        ({}, "is not a dictionary of tensors"),
        ({"a": 1}, "entry 'a' is not a plain tensor"),
        ({"a": torch.ones(2).to_sparse()}, "entry 'a' is not a plain tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.complex64"),
    ],
)
def test_what_is_not_a_checkpoint(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert says in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"PK\x03\x04broken"])
def test_broken_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(data)
    assert "model.pt" in refusal(tmp_path)


def test_a_name_in_two_files(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        torch.save({"x": torch.ones(1)}, tmp_path / name)
    assert refusal(tmp_path) == "b.bin holds x, which another file holds too"


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path)])

    def full(self: Path, *arguments: object) -> object:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(Path, "replace", full)
    assert convert.main() == 1
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
