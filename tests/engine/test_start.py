"""What a start finds out about a model, and what it leaves in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.checkpoints import make_checkpoint
from tgi.config import EngineConfig
from tgi.engine.worker import Worker
from tgi.errors import ModelError


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
