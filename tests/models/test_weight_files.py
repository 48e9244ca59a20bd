"""The rule which files hold the weights, against what transformers takes of the same directories."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from transformers.modeling_utils import _get_resolved_checkpoint_files

from tgi.errors import ModelError
from tgi.models.weight_files import WeightFiles, choose, in_directory

PARTS = {
    "model.safetensors": ("model.safetensors",),
    "safetensors shards": (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ),
    "pytorch_model.bin": ("pytorch_model.bin",),
    "bin shards": (
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ),
    "beside": ("training_args.bin", "consolidated.safetensors", "adapter_model.safetensors", "optimizer.pt"),
}


def write(directory: Path, names: list[str]) -> None:
    for name in names:
        (directory / name).write_text("")
        if name.endswith(".index.json"):
            stem, suffix = name.removesuffix(".index.json").split(".")
            files = [f"{stem}-{number:05}-of-00002.{suffix}" for number in (1, 2)]
            (directory / name).write_text(
                json.dumps({"metadata": {}, "weight_map": dict(zip("ab", files, strict=True))})
            )


@pytest.mark.parametrize("parts", [c for n in range(1, 6) for c in itertools.combinations(PARTS, n)], ids="+".join)
def test_as_transformers(parts: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, [name for part in parts for name in PARTS[part]])
    chosen = in_directory(tmp_path)
    if parts == ("beside",):  # transformers finds nothing
        assert chosen.names == ("adapter_model.safetensors", "consolidated.safetensors")
        return
    theirs, _ = _get_resolved_checkpoint_files(
        str(tmp_path), variant=None, gguf_file=None, use_safetensors=None, user_agent=None, is_remote_code=False
    )
    assert theirs is not None
    assert list(chosen.names) == sorted(Path(file).name for file in theirs)
    used = next(part for part in PARTS if part in parts)
    rival = {"model.safetensors": "safetensors shards", "pytorch_model.bin": "bin shards"}.get(used)
    assert (chosen.leftovers != ()) == (rival in parts)
    assert (chosen.warning(tmp_path) is None) == (rival not in parts)


def test_the_index_is_asked_for_only_where_it_counts() -> None:
    """On the hub each look at one is a download."""

    def refuse(index: str) -> list[str]:
        raise AssertionError(index)

    names = ["model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"]
    assert choose(names, refuse) == WeightFiles(("model.safetensors",))
    assert choose([], refuse) == WeightFiles()


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/x", "a\\b", "", ".", "..", 3, None, ["x"]])
def test_an_index_names_files_of_its_directory(file: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a\nb": file}}))
    with pytest.raises(ModelError, match=r"a\\nb is in .*not a file of this directory") as caught:
        in_directory(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    write(tmp_path, ["model.safetensors.index.json", "pytorch_model.bin"])
    with pytest.raises(ModelError, match=r"2 of 2 weight files are missing, such as model-00001-of-00002\.safetensors"):
        in_directory(tmp_path)
