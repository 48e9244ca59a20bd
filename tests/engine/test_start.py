"""What a start finds out about a model, and what it leaves in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import make_checkpoint
from tests.models.tiny import write_tiny
from tgi.engine.worker import LoadProgress, Worker
from tgi.errors import ModelError, StartupError
from tgi.models.families.registry import read_spec
from tgi.settings.config import EngineConfig


def start(path: Path, **settings: object) -> Worker:
    return Worker(EngineConfig(model_path=str(path), threads=1, kv_cache_bytes=1 << 20, **settings))  # type: ignore[arg-type]


def everything(name: str) -> bool:
    return True


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("which", "value"),
    [
        (everything, torch.nan),
        (lambda name: name == "model.norm.weight", torch.nan),
        (lambda name: name == "model.layers.1.mlp.down_proj.weight", torch.inf),
        (lambda name: name == "lm_head.weight", torch.nan),
    ],
    ids=["all", "norm", "layer", "head"],
)
def test_weights_that_give_no_numbers(which: Callable[[str], bool], value: float, native: bool, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    tensors = load_file(path / "model.safetensors")
    damaged = {name: torch.full_like(t, value) if which(name) else t for name, t in tensors.items()}
    save_file(damaged, path / "model.safetensors")
    with pytest.raises(ModelError, match="computes no numbers"):
        start(path, native_kernels=native)


def test_damaged_tokens_are_no_damaged_model(tmp_path: Path) -> None:
    """Such as the rows of tokens that were added and never trained."""
    path = make_checkpoint(tmp_path, "llama", tie_word_embeddings=False)
    tensors = load_file(path / "model.safetensors")
    tensors["model.embed_tokens.weight"][:100] = torch.nan
    save_file(tensors, path / "model.safetensors")
    assert start(path).info.memory.cache_tokens > 0


@pytest.mark.parametrize(("longest", "factors"), [(64, "short_factors"), (65, "long_factors")])
def test_longrope_is_chosen_by_the_longest_sequence(longest: int, factors: str, tmp_path: Path) -> None:
    """Beyond the original context of 64 the whole server takes the factors for long sequences."""
    write_tiny(tmp_path, "phi3-longrope-partial", original_max_position_embeddings=64)
    given = read_spec(tmp_path).layers[0].attention.rope
    (served,) = start(tmp_path, max_total_tokens=longest).runner.step.program.ropes
    assert given is not None and served.short_factors == getattr(given, factors)
    assert given.short_factors != given.long_factors


def test_unknown_keys_of_the_config_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(make_checkpoint(tmp_path, "llama", a_mystery=1))
    assert len([message for message in caplog.messages if "a_mystery" in message]) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there(device: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "llama")
    with pytest.raises(StartupError, match=f"--device {device}: PyTorch finds no CUDA device here.*Add --device cpu"):
        start(path, device=device)


def test_phases_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadProgress, "REPORT_S", 0.0)
    path = make_checkpoint(tmp_path, "llama")
    phases: list[str] = []
    reports: list[tuple[int, int]] = []
    config = EngineConfig(model_path=str(path), threads=1, kv_cache_bytes=1 << 20)
    Worker(config, phases.append, LoadProgress(lambda done, total: reports.append((done, total))))
    assert phases == ["load", "allocate", "warmup"]
    assert reports == sorted(reports) and reports[-1][0] == reports[-1][1] > 0
