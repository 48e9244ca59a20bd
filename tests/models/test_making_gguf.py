"""GGUF files that are made here: read back by our reader and by the `gguf` package's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.models.checkpoints import FAMILIES, make_checkpoint
from tests.models.test_making import logits
from tests.models.tiny import write_tiny
from tgi.errors import ModelError
from tgi.hub.gguf import make_model, parts_of
from tgi.models.making import main
from tgi.models.making.job import GGUF_TYPES, Job


def tiny(path: Path, case: str, **config: Any) -> Path:
    """With a tokenizer of GPT-2's kind."""
    make_checkpoint(path, case if case in FAMILIES else "llama", **(config if case in FAMILIES else {}))
    if case not in FAMILIES:
        kept = {name: (path / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
        write_tiny(path, case, **config)
        for name, content in kept.items():
            (path / name).write_bytes(content)
    return path


def make(source: Path, target: Path, kind: str) -> Path:
    job = Job(source=str(source), target=str(target), method="gptq", gguf=kind, keep=())
    main.make(job, lambda done, total, what: None)
    return target


def encoded(model: Path, text: str) -> list[int]:
    return Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids


def served(file: Path, cache: Path) -> Path:
    return Path(make_model(parts_of(file), file.name, [cache]).path)


CASES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 96},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "olmo2": {},
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_floats_computes_what_the_checkpoint_does(case: str, tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole", case, **CASES[case])
    file = make(source, tmp_path / "made.gguf", "F32")
    assert torch.equal(logits(served(file, tmp_path / "cache"), None), logits(source, None))


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_matrices_are_those_of_the_package(kind: str, tmp_path: Path) -> None:
    """Also the order of rows, by llama.cpp's own permutation; embedding and head keep 8 bits."""
    source = tiny(tmp_path / "whole", "llama", intermediate_size=96)
    file = make(source, tmp_path / f"made-{kind}.gguf", kind)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    original = load_file(source / "model.safetensors")
    query = original["model.layers.1.self_attn.q_proj.weight"].numpy()
    permuted = query.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    ggml = gguf.GGMLQuantizationType[kind]
    for name, values in (
        ("blk.1.attn_q", permuted),
        ("blk.0.ffn_down", original["model.layers.0.mlp.down_proj.weight"].numpy()),
    ):
        expected = gguf.dequantize(gguf.quantize(values, ggml), ggml)
        found = tensors[f"{name}.weight"]
        np.testing.assert_array_equal(gguf.dequantize(found.data, found.tensor_type).reshape(values.shape), expected)
    assert tensors["output_norm.weight"].tensor_type.name == "F32"
    if kind.startswith(("Q4", "Q5")):
        assert {tensors[f"{name}.weight"].tensor_type.name for name in ("token_embd", "output")} == {"Q8_0"}
    plain = logits(source, None)
    assert (logits(served(file, tmp_path / "cache"), None) - plain).std() < (0.7 if "Q" in kind else 0.05) * plain.std()


def test_tokenizer_and_template(tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole", "llama", intermediate_size=96)
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    model = served(make(source, tmp_path / "made.gguf", "F16"), tmp_path / "cache")
    text = "It's 123 o'clock,\n\n  I'LL go 你好"
    assert encoded(model, text) == encoded(source, text)
    reader = gguf.GGUFReader(tmp_path / "made.gguf")
    assert reader.fields["tokenizer.chat_template"].contents() == "{{ messages[0].content }}!"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole", "gpt2")
    with pytest.raises(ModelError, match="--gguf is for llama"):
        make(source, tmp_path / "a.gguf", "F16")
    scaled = tiny(tmp_path / "scaled", "llama-yarn-mscale")
    with pytest.raises(ModelError, match="cannot be said in a GGUF file"):
        make(scaled, tmp_path / "b.gguf", "F16")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*.gguf"))
    (tmp_path / "c.gguf").touch()
    with pytest.raises(ModelError, match="is there already"):
        make(source, tmp_path / "c.gguf", "F16")
