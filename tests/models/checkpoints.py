"""Writes tiny random checkpoints in the ordinary Hugging Face format, for every test that needs a model.

Each is a directory with config.json, generation_config.json, tokenizer.json (byte-level BPE),
tokenizer_config.json (with a chat template) and model.safetensors (or shards with an index). The
tensor tables are written out by hand here, independently of `tgi.models`, so that a wrong name map
there cannot hide. Weights are scaled up: the logits of a freshly initialised model are nearly
uniform and would let wrong arithmetic pass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

Family = Literal["llama", "mistral", "qwen2", "gpt2", "gpt_neox", "bloom", "gemma2"]
FAMILIES: tuple[Family, ...] = ("llama", "mistral", "qwen2", "gpt2", "gpt_neox", "bloom", "gemma2")

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
PAD_ID, BOS_ID, EOS_ID, IM_START_ID, IM_END_ID = range(5)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = """A model reads a prompt and writes what may come next. The server takes many prompts at once,
gives each of them blocks of the cache, and returns one token after another until the end.
Counting: one, two, three, four, five, six, seven, eight, nine, ten. Names of days: Monday, Tuesday,
Wednesday, Thursday, Friday, Saturday, Sunday. Hello, world! How are you today? I am well, thank you.
The quick brown fox jumps over the lazy dog while the old man and the sea wait for the morning light.
What is deep learning? It is a way of learning from examples with networks of many layers."""

# Head sizes, grouping and widths differ on purpose, so that no two families share a shape.
_SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    "mistral": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,  # 6 * 16 is not the hidden size
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "sliding_window": 24,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    "qwen2": {
        "hidden_size": 80,
        "intermediate_size": 144,
        "num_hidden_layers": 3,
        "num_attention_heads": 10,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "use_sliding_window": False,
        "sliding_window": 32,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
    "gpt2": {
        "n_embd": 60,
        "n_inner": None,
        "n_layer": 3,
        "n_head": 5,
        "n_positions": 512,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
    "gpt_neox": {
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,  # 6 of 24
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    "bloom": {
        "hidden_size": 48,
        "n_layer": 3,
        "n_head": 6,  # not a power of two: two series of slopes
        "seq_length": 512,
        "layer_norm_epsilon": 1e-5,
        "apply_residual_connection_post_layernorm": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    },
    "gemma2": {
        "hidden_size": 76,
        "intermediate_size": 88,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 20,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": 21,
        "attn_logit_softcapping": 5.0,  # as low as the scores and logits of random weights
        "final_logit_softcapping": 4.0,
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
}
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "bloom": "BloomForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
}
_CONTEXT_KEYS = {"gpt2": "n_positions", "bloom": "seq_length"}


def make_checkpoint(
    directory: str | Path,
    family: Family = "llama",
    *,
    seed: int = 0,
    vocab_size: int = 384,
    dtype: str = "float32",
    sharded: bool = False,
    std: float = 0.2,
    **overrides: Any,
) -> Path:
    """Write a checkpoint into `directory` (created if absent) and return it as a Path.

    dtype: of the tensors in the file and the one config.json names: float32, bfloat16, float16.
    sharded: three files and model.safetensors.index.json in place of model.safetensors.
    std: standard deviation of matrices and biases.
    overrides: keys of config.json to set; a value of `...` removes the key.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    config = make_config(family, vocab_size=vocab_size, dtype=dtype, **overrides)
    write_json(path / "config.json", config)
    write_json(
        path / "generation_config.json",
        {"bos_token_id": BOS_ID, "eos_token_id": [EOS_ID, IM_END_ID], "pad_token_id": PAD_ID},
    )
    write_tokenizer(
        path, add_bos=family in ("llama", "mistral"), vocab_size=vocab_size, max_length=config[context_key(family)]
    )
    write_tensors(path, random_tensors(config, seed=seed, std=std, dtype=getattr(torch, dtype)), sharded=sharded)
    return path


def make_config(family: Family, *, vocab_size: int = 384, dtype: str = "float32", **overrides: Any) -> dict[str, Any]:
    """The config.json of a family at its tiny shape, with `overrides` applied."""
    config: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": vocab_size,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "use_cache": True,
        **_SHAPES[family],
    }
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    config.update(overrides)
    return {key: value for key, value in config.items() if value is not ...}


def random_tensors(config: dict[str, Any], *, seed: int, std: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor transformers' save_pretrained would write for this config, with random values."""
    generator = torch.Generator().manual_seed(seed)
    tables = {"gpt2": _gpt2_table, "gpt_neox": _gpt_neox_table, "bloom": _bloom_table}
    table = tables.get(config["model_type"], _llama_table)(config)
    norm_center = 0.0 if config["model_type"] == "gemma2" else 1.0
    tensors = {}
    for name, shape in table.items():
        values = torch.randn(shape, generator=generator, dtype=torch.float32)
        is_norm_scale = len(shape) == 1 and name.endswith("weight")
        values = norm_center + 0.2 * values if is_norm_scale else std * values
        tensors[name] = values.to(dtype)
    return tensors


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], *, sharded: bool = False) -> None:
    """model.safetensors, or three shards and an index."""
    if not sharded:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return
    shards = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    weight_map = {name: shards[number % 3] for number, name in enumerate(tensors)}
    for shard in shards:
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == shard}
        save_file(part, path / shard, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_tokenizer(path: Path, *, add_bos: bool, vocab_size: int, max_length: int) -> None:
    """A byte-level BPE of at most `vocab_size` entries, trained on a fixed text, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    byte_level = processors.ByteLevel(trim_offsets=False)
    if add_bos:
        prefix = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", BOS_ID)]
        )
        tokenizer.post_processor = processors.Sequence([byte_level, prefix])
    else:
        tokenizer.post_processor = byte_level
    tokenizer.save(str(path / "tokenizer.json"))
    write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def context_key(family: str) -> str:
    """The key of config.json that says how long a sequence may be."""
    return _CONTEXT_KEYS.get(family, "max_position_embeddings")


def _llama_table(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or width // config["num_attention_heads"]
    queries = config["num_attention_heads"] * head_dim
    keys = config["num_key_value_heads"] * head_dim
    qkv_bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)
    output_bias = config.get("attention_bias", False)
    mlp_bias = config.get("mlp_bias", False)
    table: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        table[prefix + "input_layernorm.weight"] = (width,)
        for name, rows, columns, bias in (
            ("self_attn.q_proj", queries, width, qkv_bias),
            ("self_attn.k_proj", keys, width, qkv_bias),
            ("self_attn.v_proj", keys, width, qkv_bias),
            ("self_attn.o_proj", width, queries, output_bias),
            ("mlp.gate_proj", inner, width, mlp_bias),
            ("mlp.up_proj", inner, width, mlp_bias),
            ("mlp.down_proj", width, inner, mlp_bias),
        ):
            table[prefix + name + ".weight"] = (rows, columns)
            if bias:
                table[prefix + name + ".bias"] = (rows,)
        table[prefix + "post_attention_layernorm.weight"] = (width,)
        if config["model_type"] == "gemma2":
            table[prefix + "pre_feedforward_layernorm.weight"] = (width,)
            table[prefix + "post_feedforward_layernorm.weight"] = (width,)
    table["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        table["lm_head.weight"] = (config["vocab_size"], width)
    return table


def _gpt2_table(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config["n_embd"]
    inner = config["n_inner"] or 4 * width
    table: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (config["vocab_size"], width),
        "transformer.wpe.weight": (config["n_positions"], width),
    }
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            table[prefix + norm + ".weight"] = (width,)
            table[prefix + norm + ".bias"] = (width,)
        for name, rows, columns in (  # Conv1D: [in, out]
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            table[prefix + name + ".weight"] = (rows, columns)
            table[prefix + name + ".bias"] = (columns,)
    table["transformer.ln_f.weight"] = (width,)
    table["transformer.ln_f.bias"] = (width,)
    if not config["tie_word_embeddings"]:
        table["lm_head.weight"] = (config["vocab_size"], width)
    return table


def _gpt_neox_table(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    attention_bias = config.get("attention_bias", True)
    table: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"gpt_neox.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            table[prefix + norm + ".weight"] = (width,)
            table[prefix + norm + ".bias"] = (width,)
        for name, rows, columns, bias in (
            ("attention.query_key_value", 3 * width, width, attention_bias),
            ("attention.dense", width, width, attention_bias),
            ("mlp.dense_h_to_4h", inner, width, True),
            ("mlp.dense_4h_to_h", width, inner, True),
        ):
            table[prefix + name + ".weight"] = (rows, columns)
            if bias:
                table[prefix + name + ".bias"] = (rows,)
    table["gpt_neox.final_layer_norm.weight"] = (width,)
    table["gpt_neox.final_layer_norm.bias"] = (width,)
    if not config["tie_word_embeddings"]:
        table["embed_out.weight"] = (config["vocab_size"], width)
    return table


def _bloom_table(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config.get("n_embed") or config["hidden_size"]
    table: dict[str, tuple[int, ...]] = {
        "transformer.word_embeddings.weight": (config["vocab_size"], width),
        "transformer.word_embeddings_layernorm.weight": (width,),
        "transformer.word_embeddings_layernorm.bias": (width,),
    }
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            table[prefix + norm + ".weight"] = (width,)
            table[prefix + norm + ".bias"] = (width,)
        for name, rows, columns in (
            ("self_attention.query_key_value", 3 * width, width),
            ("self_attention.dense", width, width),
            ("mlp.dense_h_to_4h", 4 * width, width),
            ("mlp.dense_4h_to_h", width, 4 * width),
        ):
            table[prefix + name + ".weight"] = (rows, columns)
            table[prefix + name + ".bias"] = (rows,)
    table["transformer.ln_f.weight"] = (width,)
    table["transformer.ln_f.bias"] = (width,)
    if not config["tie_word_embeddings"]:
        table["lm_head.weight"] = (config["vocab_size"], width)
    return table
