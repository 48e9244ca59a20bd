"""Random-weight checkpoints of real shapes: speed does not depend on the values of weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.models.checkpoints import make_checkpoint

SHAPES = {
    "smollm2-135m": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2.5-0.5b": (
        "qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    "llama3.2-1b": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
            "max_position_embeddings": 8192,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
        },
    ),
}
DEFAULT_DIRECTORY = Path.home() / ".cache" / "tgi-benchmarks"


def ensure(shape: str, directory: Path = DEFAULT_DIRECTORY) -> Path:
    """The checkpoint of a shape in bfloat16, made on first use."""
    path = directory / shape
    if not (path / "model.safetensors").exists():
        family, overrides = SHAPES[shape]
        print(f"Making a random checkpoint of shape {shape} in {path} ...", flush=True)
        make_checkpoint(path, family, dtype="bfloat16", std=0.02, **overrides)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["smollm2-135m"], choices=list(SHAPES))
    parser.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY)
    arguments = parser.parse_args()
    for name in arguments.shapes:
        print(ensure(name, arguments.directory))
