"""What sentence-transformers' files and the flag say of pooling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tgi.errors import ModelError
from tgi.serving.pooling import Pooling, find_pooling

NAMES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def write(
    path: Path, config: Any, modules: Any = ("Transformer", "Pooling", "Normalize"), folder: str = "1_Pooling"
) -> None:
    """As sentence-transformers saves a model."""
    if modules is not None:
        listed = [
            {
                "idx": number,
                "name": str(number),
                "path": folder if name == "Pooling" else "" if number == 0 else f"{number}_{name}",
                "type": f"sentence_transformers.models.{name}",
            }
            for number, name in enumerate(modules)
        ]
        (path / "modules.json").write_text(json.dumps(listed))
    if config is not None:
        (path / folder).mkdir()
        (path / folder / "config.json").write_text(json.dumps(config))


def modes(*chosen: str) -> dict[str, Any]:
    return {"word_embedding_dimension": 8, "include_prompt": True} | {
        f"pooling_mode_{name}": name in chosen for name in NAMES
    }


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (modes("mean_tokens"), "mean"),
        (modes("lasttoken"), "last"),
        (modes("cls_token"), "cls"),
        (modes("mean_sqrt_len_tokens"), "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_checkpoints_choice(tmp_path: Path, config: Any, kind: str) -> None:
    write(tmp_path, config)
    found = find_pooling(tmp_path)
    assert (found.kind, found.problem) == (kind, None) and found.source == "1_Pooling/config.json"


def test_without_files_it_is_the_last_token(tmp_path: Path) -> None:
    assert find_pooling(tmp_path) == Pooling("last", "default")


def test_the_flag_wins(tmp_path: Path) -> None:
    write(tmp_path, modes("max_tokens"))
    assert find_pooling(tmp_path, "mean") == Pooling("mean", "--pooling")


def test_the_folder_is_that_of_modules_json(tmp_path: Path) -> None:
    write(tmp_path, modes("mean_tokens"), folder="2_Pooling")
    assert find_pooling(tmp_path).kind == "mean"


def test_no_modules_json(tmp_path: Path) -> None:
    write(tmp_path, modes("mean_tokens"), modules=None)
    assert find_pooling(tmp_path).kind == "mean"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (modes("max_tokens"), "by max_tokens, which is not supported"),
        (modes("mean_tokens", "cls_token"), "cls_token and mean_tokens"),
        (modes(), "names no pooling"),
        ({"pooling_mode": 7}, "by 7"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, config: Any, words: str) -> None:
    write(tmp_path, config)
    assert words in str(find_pooling(tmp_path).problem)


@pytest.mark.parametrize("wanted", [None, "mean"])
def test_other_modules_are_named(tmp_path: Path, wanted: Any) -> None:
    write(tmp_path, modes("mean_tokens"), ("Transformer", "Pooling", "Dense", "Normalize"))
    assert "Dense" in str(find_pooling(tmp_path, wanted).problem)


@pytest.mark.parametrize("modules", [{}, ["a"], 7])
def test_a_damaged_list_is_an_error(tmp_path: Path, modules: Any) -> None:
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"modules\.json"):
        find_pooling(tmp_path)


@pytest.mark.parametrize("folder", ["../other", "/etc", "..", "", "a/b"])
def test_a_folder_elsewhere_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": folder}]))
    with pytest.raises(ModelError, match="no folder of the model"):
        find_pooling(tmp_path)
