"""`--gguf TYPE`: a GGUF file as llama.cpp reads it, written by the `gguf` package.

Owns metadata, names and the order of rows, the reverse of `models.gguf`; which reads the result back before it gets its
name: a configuration or a tokenizer that the metadata cannot say is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.models.config_reader import read_config
from tgi.models.families.registry import spec_from_config
from tgi.models.gguf.config import make_config
from tgi.models.gguf.file import GgufFile
from tgi.models.gguf.tensors import TURNED, renamed, turned_rows
from tgi.models.gguf.tokenizer import PATTERNS, make_tokenizer
from tgi.models.loader import Opened, opened
from tgi.models.making.job import Job
from tgi.models.making.modules import refuse_quantised
from tgi.models.making.report import Report, Say
from tgi.models.making.stream import CPU
from tgi.models.spec import ModelSpec
from tgi.quant.calibration import BUNDLED, BUNDLED_LONG
from tgi.untrusted import printable

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "olmo2": "olmo2"}
"""`model_type` -> llama.cpp's name."""
SMALL = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")
"""Types with which embedding and head get Q8_0, as their errors reach every logit."""
CONTROL, USER_DEFINED, NORMAL, UNUSED = 3, 4, 1, 5
"""ggml's kinds of tokens."""
TRICKY = (
    "It's 1234567 o'clock, I'LL  go\t\tto\n\n\nthe café—naïve... 3.14%  你好世界 привет 👍🏽 "
    "<a href='x'>\r\n    x += 10_000"
)
"""A text that patterns of words cut in different ways."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file."""

    name: str
    source: str
    """Its name in the model."""
    shape: tuple[int, ...]
    kind: str
    """ggml's name of its type."""
    heads: int = 0
    """Whose rows stand in another order."""


def make(job: Job, say: Say) -> Report:
    """Write `job.target`. Raises ModelError."""
    gguf = package()
    source, target = Path(job.source), Path(job.target)
    if target.exists():
        raise ModelError(f"{printable(target)} is there already: give another name, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part.gguf")
    report = Report()
    with opened(source, None, CPU) as it:
        refuse_quantised(it)
        config = read_config(source)
        architecture = ARCHITECTURES.get(str(config.get("model_type")))
        if architecture is None or it.program.encoder is not None:
            raise ModelError(f"--gguf is for {', '.join(ARCHITECTURES)}, and the model is {it.spec.model_type}")
        tensors = list(_tensors(it, architecture, job.gguf or "F16", gguf))
        writer = gguf.GGUFWriter(part, architecture)
        _add_config(writer, it.spec, config, job.gguf or "F16", gguf)
        _add_tokenizer(writer, source, config)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.kind]
            shape, dtype = gguf.quant_shape_to_byte_shape(tensor.shape, kind), np.dtype(np.uint8)
            writer.add_tensor_info(tensor.name, shape, dtype, int(np.prod(shape)), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, tensor in enumerate(tensors):
            data = _data(it, tensor, gguf)
            writer.write_tensor_data(data)
            if len(tensor.shape) > 1:
                report.matrices += 1
                report.numbers += int(np.prod(tensor.shape))
                report.coded_bytes += data.nbytes
            say(number + 1, len(tensors), "Writing")
        writer.close()
        _check(part, it.spec)
    part.replace(target)
    report.bytes = target.stat().st_size
    return report


def package() -> Any:
    """The `gguf` package. Raises ModelError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise ModelError("--gguf needs the package gguf: pip install 'text-generation-inference[gguf]'") from None
    return gguf


def _tensors(it: Opened, architecture: str, kind: str, gguf: Any) -> Iterator[Tensor]:
    """Those of the model, in llama.cpp's order of names. Raises ModelError where the source has more."""
    spec, source = it.spec, it.source
    left = set(source.shapes())
    attention = spec.layers[0].attention
    for name, module in renamed(spec.names, len(spec.layers)):
        if name == "output" and spec.tied_head:
            left = {one for one in left if not one.startswith(f"{module}.")}
            continue
        for end in ("weight", "bias"):
            full = f"{module}.{end}"
            if full not in left:
                continue
            left.remove(full)
            shape = source.shape(full)
            heads = 0
            if architecture in TURNED and name.endswith((".attn_q", ".attn_k")):
                heads = attention.heads if name.endswith("_q") else attention.kv_heads
            yield Tensor(f"{name}.{end}", full, shape, _kind(name, shape, kind, gguf), heads)
    if left:
        raise ModelError(f"the checkpoint has tensors that GGUF has no name for, such as {printable(min(left))}")


def _kind(name: str, shape: tuple[int, ...], kind: str, gguf: Any) -> str:
    if len(shape) == 1:
        return "F32"
    if kind in SMALL and name in ("token_embd", "output"):
        kind = "Q8_0"
    block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    return kind if shape[-1] % block == 0 else "F16"


def _data(it: Opened, tensor: Tensor, gguf: Any) -> np.ndarray:
    values = torch.empty(tensor.shape)
    it.source.read(tensor.source, values)
    if tensor.heads:
        moved = torch.empty_like(values)
        moved[turned_rows(tensor.shape[0], tensor.heads)] = values
        values = moved
    return gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[tensor.kind]).view(np.uint8)


def _add_config(writer: Any, spec: ModelSpec, config: dict[str, Any], kind: str, gguf: Any) -> None:
    attention = spec.layers[0].attention
    rope = config.get("rope_parameters") or {}
    writer.add_name(str(config.get("_name_or_path") or spec.model_type))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(len(spec.layers))
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(attention.heads)
    writer.add_head_count_kv(attention.kv_heads)
    writer.add_key_length(attention.head_dim)
    writer.add_value_length(attention.head_dim)
    writer.add_rope_dimension_count(attention.head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(spec.vocab_size)
    name = f"MOSTLY_{kind}" if kind != "F32" else "ALL_F32"
    writer.add_file_type(getattr(gguf.LlamaFileType, name))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: Any, source: Path, config: dict[str, Any]) -> None:
    """Of byte-level BPE. Raises ModelError for another, and for a pattern of words that llama.cpp has no name for."""
    metadata = tokenizer_metadata(source, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(metadata["tokenizer.ggml.pre"])
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_merges(metadata["tokenizer.ggml.merges"])
    for role, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("padding", writer.add_pad_token_id),
        ("unknown", writer.add_unk_token_id),
    ):
        if (found := metadata.get(f"tokenizer.ggml.{role}_token_id")) is not None:
            add(found)
    writer.add_add_bos_token(metadata["tokenizer.ggml.add_bos_token"])
    if (template := metadata.get("tokenizer.chat_template")) is not None:
        writer.add_chat_template(template)


def tokenizer_metadata(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What a GGUF file says of the tokenizer.json of a directory. Raises ModelError."""
    content, said = read_json(source / "tokenizer.json"), read_json(source / "tokenizer_config.json")
    model = content.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ModelError("--gguf: only byte-level BPE tokenizers can be written yet, and the model's is another")
    tokens = {id: token for token, id in model["vocab"].items()}
    kinds = dict.fromkeys(tokens, NORMAL)
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    count = max(max(tokens) + 1, int(config.get("vocab_size", 0)))
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [tokens.get(id, f"[PAD{id}]") for id in range(count)],
        "tokenizer.ggml.token_type": [kinds.get(id, UNUSED) for id in range(count)],
        "tokenizer.ggml.merges": [one if isinstance(one, str) else " ".join(one) for one in model["merges"]],
    }
    ids = {token: id for id, token in tokens.items()}
    for key, role in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")):
        token = said.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            metadata[f"tokenizer.ggml.{role}_token_id"] = ids[token]
    template = said.get("chat_template")
    if (source / "chat_template.jinja").is_file():
        template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, str):
        metadata["tokenizer.chat_template"] = template
    original = Tokenizer.from_file(str(source / "tokenizer.json"))
    metadata["tokenizer.ggml.add_bos_token"] = (
        original.encode("a").ids != original.encode("a", add_special_tokens=False).ids
    )
    metadata["tokenizer.ggml.pre"] = _pattern(metadata, original)
    return metadata


def _pattern(metadata: dict[str, Any], original: Tokenizer) -> str:
    """llama.cpp's name of the pattern with which texts become the same tokens. Raises ModelError."""
    texts = [BUNDLED.read_text(encoding="utf-8"), BUNDLED_LONG.read_text(encoding="utf-8")[:20_000], TRICKY]
    wanted = [original.encode(text).ids for text in texts]
    for name in PATTERNS:
        found = Tokenizer.from_str(json.dumps(make_tokenizer(metadata | {"tokenizer.ggml.pre": name}, "the model")[0]))
        if [found.encode(text).ids for text in texts] == wanted:
            return name
    raise ModelError("--gguf: llama.cpp has no name that is known here for how the model's tokenizer cuts texts")


def _check(part: Path, spec: ModelSpec) -> None:
    """Raise ModelError unless the metadata say what the original's config.json does."""
    config = make_config([GgufFile(part)])
    del config["quantization_config"]
    found = replace(
        spec_from_config(config, warn=False), model_type=spec.model_type, dtype=spec.dtype, names=spec.names
    )
    for field in fields(spec):
        if not _alike(getattr(found, field.name), getattr(spec, field.name)):
            part.unlink()
            raise ModelError(
                f"--gguf: what config.json says of the model's `{field.name}` cannot be said in a GGUF file yet"
            )


def _alike(one: Any, other: Any) -> bool:
    """Equal, but for what float32 leaves of a number."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if is_dataclass(one) and type(one) is type(other):
        return all(_alike(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return one == other
