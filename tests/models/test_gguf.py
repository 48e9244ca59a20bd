"""GGUF files, written by the `gguf` package and its table of names: blocks, models, tokenizers, choice, damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.checkpoints import make_checkpoint
from tests.models.driver import Driver
from tests.models.ggml_blocks import WRITERS, write_blocks
from tests.models.tiny import CASES, write_tiny
from tgi.errors import DownloadError, ModelError
from tgi.hub.gguf import choose, make_model, parts_of, split_tag
from tgi.hub.prepare import local_gguf
from tgi.kernels.coded import CodedWeight
from tgi.kernels.select import select
from tgi.models.gguf.config import ARCHITECTURES
from tgi.models.gguf.file import TYPES
from tgi.models.loader import load_model
from tgi.quant.formats.ggml import READERS, decode
from tgi.serving.tokenizer import Tokenizer

IDS = list(range(5, 45))
GGML = gguf.GGMLQuantizationType


def test_sizes_of_blocks_are_those_of_the_package() -> None:
    for number, (name, block, size) in TYPES.items():
        assert (GGML(number).name, gguf.GGML_QUANT_SIZES[GGML(number)]) == (name, (block, size))


@pytest.mark.parametrize("name", [name for name, *_ in TYPES.values() if name not in ("F32", "F16", "BF16")])
def test_blocks_have_the_values_of_the_package(name: str) -> None:
    size = next(size for kind, _, size in TYPES.values() if kind == name)
    raw = np.random.default_rng(3).integers(0, 256, (9, 4 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(raw, GGML[name])
    found = decode(name, torch.from_numpy(raw))
    assert isinstance(found, CodedWeight) == (name in READERS)
    values = found.dequantise() if isinstance(found, CodedWeight) else found
    there = torch.from_numpy(np.isfinite(expected))
    assert torch.equal(values[there], torch.from_numpy(expected)[there])


# -- models


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's conversion orders them."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write(
    source: Path, target: Path, architecture: str, kind: str = "F32", change: Callable[[Any], None] | None = None
) -> Path:
    """A checkpoint of transformers as GGUF; matrices in type `kind`."""
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(target, architecture)
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_value_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    if "norm_epsilon" in config:
        writer.add_layer_norm_eps(config["norm_epsilon"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    add_tokens(writer, source)
    more(writer, architecture, config)
    if change:
        change(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    stacks: dict[str, dict[int, np.ndarray]] = {}
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if architecture in ("llama", "granite", "smollm3") and (".q_proj." in name or ".k_proj." in name):
            values = turned(values, heads if ".q_proj." in name else kv_heads)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if ".experts." in name and not name.startswith("x"):
            before, _, after = name.partition(".experts.")
            number, _, rest = after.partition(".")
            stacks.setdefault(f"{before}.experts.{rest}", {})[int(number)] = values
            continue
        if name.endswith("shared_expert_gate.weight"):
            values = values[0]
        add(writer, names.get_name(name, (".weight", ".bias")), values, kind)
    for name, experts in stacks.items():
        stacked = np.stack([experts[number] for number in sorted(experts)])
        add(writer, names.get_name(name, (".weight",)), stacked, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def add(writer: Any, name: str | None, values: np.ndarray, kind: str) -> None:
    assert name is not None
    if values.ndim == 1 or kind == "F32" or values.shape[-1] % 32:
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    else:
        blocks, type = write_blocks(np.ascontiguousarray(values), kind)
        writer.add_tensor(name, blocks, raw_dtype=type)


def more(writer: Any, architecture: str, config: dict[str, Any]) -> None:
    """What an architecture has beyond the sizes."""
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if experts := config.get("num_experts") or config.get("num_local_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])


def add_tokens(writer: Any, source: Path) -> None:
    file = source / "tokenizer.json"
    content = json.loads(file.read_text()) if file.is_file() else {"model": {"vocab": {"a": 0}, "merges": []}}
    vocab = sorted(content["model"]["vocab"].items(), key=lambda entry: entry[1])
    special = {token["id"] for token in content.get("added_tokens", []) if token["special"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if id in special else 1 for _, id in vocab])
    if merges:
        writer.add_token_merges(merges)


def logits(path: Path, threads: int | None = None) -> torch.Tensor:
    backend = select(torch.device("cpu"), torch.float32, threads=threads)
    return Driver(load_model(path, "float32", backend), backend).run(IDS)


TINY = {
    "llama": "llama-plain",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "granite": "granite",
    "olmo2": "olmo2",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "smollm3": "smollm3-interval",
    "starcoder2": "starcoder2",
    "gemma3": "gemma3-plain",
    "phi3": "phi3",
}
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-plain": ("llama", {"head_dim": 12}),
    "smollm3-interval": ("smollm3", {"num_hidden_layers": 4, "no_rope_layer_interval": 4}),
    "gemma3-plain": (
        "gemma3_text",
        {
            "head_dim": 16,
            "num_hidden_layers": 7,
            "sliding_window": 21,
            "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "default", "rope_theta": 1e5},
            },
        },
    ),
    "granite": (
        "granite",
        {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.7, "logits_scaling": 2.0},
    ),
    "starcoder2": ("starcoder2", {"use_bias": True, "sliding_window": None}),
    "phi3": ("phi3", {}),
    "qwen2_moe": (
        "qwen2_moe",
        {**_EXPERTS, "shared_expert_intermediate_size": 32, "norm_topk_prob": False, "decoder_sparse_step": 1},
    ),
    "qwen3_moe": ("qwen3_moe", {**_EXPERTS, "norm_topk_prob": True, "head_dim": 16}),
}


@pytest.mark.parametrize("architecture", TINY)
def test_a_model_computes_what_its_checkpoint_does(architecture: str, tmp_path: Path, monkeypatch: Any) -> None:
    case = TINY[architecture]
    for name, value in OWN.items():
        monkeypatch.setitem(CASES, name, value)
    source = tmp_path / "source"
    write_tiny(source, case)
    file = write(source, tmp_path / "model.gguf", architecture)
    model = make_model([file], "m", [tmp_path / "cache"])
    torch.testing.assert_close(logits(Path(model.path)), logits(source), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "F16", "BF16", *WRITERS])
@pytest.mark.parametrize("threads", [None, 1], ids=["reference", "native"])
def test_quantised_models(kind: str, threads: int | None, tmp_path: Path) -> None:
    """Both backends compute with the values that the package gives the blocks."""
    sizes = {"hidden_size": 256, "num_hidden_layers": 1} if kind in WRITERS else {"hidden_size": 64}
    make_checkpoint(tmp_path / "source", "llama", intermediate_size=128, **sizes)
    file = write(tmp_path / "source", tmp_path / "model.gguf", "llama", kind)
    reader = gguf.GGUFReader(file)
    plain = gguf.GGUFWriter(tmp_path / "plain.gguf", "llama")
    copy_metadata(reader, plain)
    for tensor in reader.tensors:
        plain.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    plain.write_header_to_file()
    plain.write_kv_data_to_file()
    plain.write_tensors_to_file()
    plain.close()
    found, expected = (
        logits(Path(make_model([path], "m", [tmp_path / "cache"]).path), threads)
        for path in (file, tmp_path / "plain.gguf")
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def copy_metadata(reader: Any, writer: Any) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(key, field.contents(), kind, field.types[1] if len(field.types) > 1 else None)


def test_the_tokenizer_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "source", "llama")
    template = json.loads((tmp_path / "source" / "tokenizer_config.json").read_text())["chat_template"]

    def change(writer: Any) -> None:
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
        writer.add_chat_template(template)

    file = write(tmp_path / "source", tmp_path / "model.gguf", "llama", change=change)
    path = Path(make_model([file], "m", [tmp_path / "cache"]).path)
    found, expected = Tokenizer.load(path), Tokenizer.load(tmp_path / "source")
    for text in ("Hello, world!  It's 1234 \n\n 5 days.", "<|im_start|>user\nnaïve 🎉<|im_end|>", "", " "):
        assert found.encode(text, add_special_tokens=False) == expected.encode(text, add_special_tokens=False)
        assert found.encode(text) == [1, *found.encode(text, add_special_tokens=False)]
        ids = found.encode(text, add_special_tokens=False)
        assert found.decode(ids) == expected.decode(ids)
    assert (found.bos_token, found.eos_token) == ("<s>", "</s>")
    assert json.loads((path / "tokenizer_config.json").read_text())["chat_template"] == template


def test_sentencepiece_merges_follow_from_scores(tmp_path: Path) -> None:
    from tgi.models.gguf.tokenizer import make_tokenizer

    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, "▁", "a", "b", "ab", "▁ab", "abab", "▁a"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [0.0] * 259 + [-9.0, -8.0, -7.0, -1.0, -2.0, -3.0, -4.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    for content, name in zip(make_tokenizer(metadata, "x"), ("tokenizer.json", "tokenizer_config.json"), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    tokenizer = Tokenizer.load(tmp_path)
    assert [pieces[id] for id in tokenizer.encode("abab ab")] == ["<s>", "▁ab", "ab", "▁ab"]
    assert [pieces[id] for id in tokenizer.encode("é")] == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("ab é", add_special_tokens=False)) == "ab é"


def test_unknown_pre_tokenizers_and_architectures_are_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "source", "llama")
    file = write(tmp_path / "source", tmp_path / "a.gguf", "llama", change=lambda w: w.add_tokenizer_pre("fancy"))
    with pytest.raises(ModelError, match="fancy"):
        make_model([file], "m", [tmp_path / "cache"])
    (tmp_path / "tokenizer.json").write_text((tmp_path / "source" / "tokenizer.json").read_text())
    path = Path(make_model([file], "m", [tmp_path / "cache"]).path)
    assert (path / "tokenizer.json").read_text() == (tmp_path / "source" / "tokenizer.json").read_text()
    assert "mamba" not in ARCHITECTURES
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="mamba"):
        make_model([tmp_path / "b.gguf"], "m", [tmp_path / "cache"])


def test_a_model_in_parts(tmp_path: Path) -> None:
    """Half of the tensors in a second file, as `gguf-split` makes them; what both say is an error."""
    make_checkpoint(tmp_path / "source", "llama", hidden_size=64, intermediate_size=128)
    whole = write(tmp_path / "source", tmp_path / "whole.gguf", "llama", "Q8_0")
    reader = gguf.GGUFReader(whole)
    half, files = len(reader.tensors) // 2, [tmp_path / f"m-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]
    for number, file in enumerate(files):
        writer = gguf.GGUFWriter(file, "llama")
        if number == 0:
            copy_metadata(reader, writer)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        for tensor in reader.tensors[half:] if number else reader.tensors[:half]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert parts_of(files[0]) == parts_of(files[1]) == files
    found = logits(Path(make_model(parts_of(files[0]), "m", [tmp_path / "cache"]).path))
    assert torch.equal(found, logits(Path(make_model([whole], "m", [tmp_path / "cache"]).path)))
    with pytest.raises(ModelError) as caught:
        logits(Path(make_model([files[0], whole], "m", [tmp_path / "cache"]).path))
    assert "\n" not in str(caught.value)


# -- choice


def test_which_file_is_meant(tmp_path: Path) -> None:
    sizes = {"m-Q8_0.gguf": 9, "m-Q4_K_M.gguf": 5, "m-Q4_K_S.gguf": 4, "mmproj-m.gguf": 1, "README.md": 1}
    sizes |= {f"m-F16-0000{part}-of-00002.gguf": 8 for part in (1, 2)}
    assert choose(sizes, None, "m") == ["m-Q4_K_M.gguf"]
    assert choose(sizes, "q8_0", "m") == ["m-Q8_0.gguf"]
    assert choose(sizes, "m-Q4_K_S.gguf", "m") == ["m-Q4_K_S.gguf"]
    both = ["m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf"]
    assert choose(sizes, "F16", "m") == choose(sizes, both[1], "m") == both
    with pytest.raises(DownloadError, match="Q8_0"):
        choose(sizes, "Q3_K", "m")
    del sizes[both[1]]
    with pytest.raises(DownloadError, match="parts"):
        choose(sizes, "F16", "m")
    with pytest.raises(DownloadError, match="no GGUF"):
        choose({"README.md": 1}, None, "m")
    assert split_tag("org/m:Q4_0") == ("org/m", "Q4_0") and split_tag("org/m") == ("org/m", None)
    for name in ("m-Q8_0.gguf", "m-Q4_0.gguf"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in local_gguf(str(tmp_path), None)] == ["m-Q4_0.gguf"]
    assert [path.name for path in local_gguf(f"{tmp_path}:Q8_0", None)] == ["m-Q8_0.gguf"]
    assert [path.name for path in local_gguf(str(tmp_path), "Q8_0")] == ["m-Q8_0.gguf"]
    assert [path.name for path in local_gguf(str(tmp_path / "m-Q4_0.gguf"), None)] == ["m-Q4_0.gguf"]
    assert local_gguf("org/name", None) == [] and parts_of(tmp_path / "m-Q8_0.gguf")[0].name == "m-Q8_0.gguf"
