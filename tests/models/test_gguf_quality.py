"""The demo model in the types of ggml: it predicts like the dequantised weights in float32, by the same tokens."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import tgi.demo
from tests.models.driver import Driver
from tests.models.ggml_blocks import write_blocks
from tests.models.test_gguf import copy_metadata
from tests.models.test_making_gguf import encoded, make, served
from tgi.kernels.select import select
from tgi.models.loader import load_model
from tgi.serving.chat_template import ChatTemplate

DEMO = Path(tgi.demo.__file__).parent
FAST = ("Q4_1", "Q4_K")
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
TEXT = """What is the capital of France? The capital of France is Paris. Count to ten. 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.
What is 12 + 7? 12 + 7 = 19. Spell the word cat. c-a-t. What is the opposite of hot? The opposite of hot is cold.
Which day comes after Monday? Tuesday comes after Monday. What is a tokenizer? A tokenizer splits text into tokens.
Tell me a story. Once upon a time there was a small boat on a wide lake. Every morning it went out to look for fish."""


def in_type(whole: Path, kind: str, coded: Path, plain: Path) -> None:
    """The file of floats with its matrices in a type, and what these blocks stand for."""
    reader = gguf.GGUFReader(whole)
    writers = [gguf.GGUFWriter(path, "llama") for path in (coded, plain)]
    for writer in writers:
        copy_metadata(reader, writer)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        blocks, type = write_blocks(values, kind if values.ndim > 1 else "F32")
        writers[0].add_tensor(tensor.name, blocks, raw_dtype=type)
        writers[1].add_tensor(tensor.name, gguf.dequantize(blocks, type).astype(np.float32))
    for writer in writers:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def predictions(path: Path, dtype: str, threads: int | None, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [tokens, vocabulary]."""
    backend = select(torch.device("cpu"), getattr(torch, dtype), threads=threads)
    return Driver(load_model(path, dtype, backend), backend).run(ids).double().log_softmax(-1)


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_perplexity_tokens_and_prompt(kind: str, tmp_path: Path) -> None:
    whole = make(DEMO, tmp_path / "whole.gguf", "F32")
    coded, plain = tmp_path / f"{kind}.gguf", tmp_path / "plain.gguf"
    in_type(whole, kind, coded, plain)
    model, dequantised = (served(file, tmp_path / "cache") for file in (coded, plain))
    ids = encoded(model, TEXT)
    assert ids == encoded(DEMO, TEXT)
    found, exact = predictions(model, "bfloat16", 1, ids), predictions(dequantised, "float32", None, ids)
    divergence = float((exact.exp() * (exact - found)).sum(-1).mean())
    assert divergence < 0.002, "nats a token, about what perplexity changes by"
    assert ChatTemplate.load(model).source() == ChatTemplate.load(DEMO).source()
