"""What families make of config.json: values, defaults, refusals by name, warnings."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)
from transformers.activations import ACT2FN

from tests.models import baichuan
from tests.models.checkpoints import FAMILIES, Family, make_checkpoint, make_config
from tests.models.tiny import tiny_config
from tgi.errors import ModelError
from tgi.kernels.native import footprint as native_footprint
from tgi.kernels.program import Program
from tgi.kernels.reference import footprint, ops
from tgi.kernels.select import select
from tgi.kernels.types import CacheShape, cache_dtype
from tgi.memory.cost import activation_bytes, kv_bytes_per_token, read_bytes, weight_bytes
from tgi.models.build.decoder import build
from tgi.models.config_reader import RopeOverride
from tgi.models.families.registry import FAMILIES as FAMILIES_BY_TYPE
from tgi.models.families.registry import read_spec, spec_from_config
from tgi.models.spec import ModelSpec
from tgi.quant.checkpoint import read_stored, stored
from tgi.quant.formats import format_for
from tgi.quant.formats.own import VERSION
from tgi.quant.formats.plain import Plain
from tgi.quant.formats.registry import FORMATS


def program_of(family: Family) -> Program:
    return build(spec_from_config(make_config(family)))


def windows(spec: ModelSpec) -> tuple[int | None, ...]:
    return tuple(layer.attention.window for layer in spec.layers)


def kv_heads(config: dict[str, Any]) -> int:
    return spec_from_config(config).layers[0].attention.kv_heads


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_count_is_transformers(family: Family, tmp_path: Path) -> None:
    for overrides in ({}, {"tie_word_embeddings": not make_config(family)["tie_word_embeddings"]}):
        make_checkpoint(tmp_path, family, **overrides)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        program = build(read_spec(tmp_path))
        assert program.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert weight_bytes(program, "bfloat16", footprint) == 2 * program.parameters


def test_sizes() -> None:
    program = program_of("mistral")
    assert kv_bytes_per_token(program, "bfloat16", footprint) == 2 * 2 * (2 * 16) * 2
    for backend in (footprint, native_footprint):
        small, large = (
            activation_bytes(program, n, "bfloat16", backend, logit_rows=4, context=100) for n in (10, 1000)
        )
        assert 0 < small < large


def test_slices_are_those_of_the_native_kernels() -> None:
    header = (Path(__file__).parents[2] / "csrc" / "program.h").read_text()
    assert f"constexpr int kSliceRows = {native_footprint.SLICE_ROWS};" in header


def test_of_experts_a_step_reads_those_it_chooses() -> None:
    """Two of eight experts: hardly more than a dense model whose feed-forward is as large as two of them."""
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 2000}
    mixture = tiny_config("mixtral", **sizes, num_local_experts=8, num_experts_per_tok=2)
    dense = {**json.loads(mixture.to_json_string()), "model_type": "mistral", "intermediate_size": 2048}
    dense = {key: value for key, value in dense.items() if not key.startswith(("num_local", "num_experts", "router"))}
    programs = [build(spec_from_config(config)) for config in (json.loads(mixture.to_json_string()), dense)]
    for quantize in (None, "int8", "int4"):
        found, wanted = (read_bytes(program, "bfloat16", native_footprint, quantize) for program in programs)
        assert wanted < found < 1.05 * wanted
        assert read_bytes(programs[1], "bfloat16", native_footprint, quantize) < weight_bytes(
            programs[1], "bfloat16", native_footprint, quantize
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "fp8_e4m3fn", "fp8_e5m2"])
@pytest.mark.parametrize("threads", [None, 1])
def test_each_backend_allocates_what_its_footprint_says(dtype: str, threads: int | None) -> None:
    program, backend = program_of("mistral"), select(torch.device("cpu"), torch.bfloat16, threads=threads)
    assert dtype in backend.cache_dtypes
    shape = CacheShape(program.cache, cache_dtype(dtype))
    per_token = kv_bytes_per_token(program, dtype, backend.footprint)
    assert backend.cache_bytes(shape, 10) == 10 * backend.block_size * per_token
    latents = build(spec_from_config(json.loads(tiny_config("deepseek_v3").to_json_string()), warn=False))
    shape = CacheShape(latents.cache, cache_dtype(dtype))
    per_token = kv_bytes_per_token(latents, dtype, backend.footprint)
    assert backend.cache_bytes(shape, 10) == 10 * backend.block_size * per_token
    cache = backend.allocate_cache(shape, 10)
    stores = {store.data_ptr(): store.nbytes for store in (*cache.keys, *cache.values)}
    assert sum(stores.values()) == 10 * backend.block_size * per_token


def test_latents_are_cached_once() -> None:
    """Per token and layer the latent and the turned part of the key, whatever the heads."""
    program = build(spec_from_config(json.loads(tiny_config("deepseek_v3").to_json_string()), warn=False))
    for arithmetic in (footprint, native_footprint):
        assert kv_bytes_per_token(program, "bfloat16", arithmetic) == 2 * (32 + 12) * 2


def test_native_weights_take_fewer_bytes() -> None:
    program = program_of("llama")
    sizes = [weight_bytes(program, "bfloat16", native_footprint, quantize) for quantize in ("int4", "int8", None)]
    assert sizes == sorted(sizes) and sizes[-1] < weight_bytes(program, "bfloat16", footprint)


@pytest.mark.parametrize(
    "kind", [LlamaConfig, MistralConfig, Qwen2Config, GPT2Config, GPTNeoXConfig, BloomConfig, Gemma2Config]
)
def test_configs_that_transformers_writes(kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every key of a default config is consumed or known to be harmless."""
    config = kind()
    config.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        spec = read_spec(tmp_path)
        spec_from_config(json.loads(config.to_json_string(use_diff=False)))
    assert not caplog.records
    assert len(spec.layers) == config.num_hidden_layers
    assert spec.vocab_size == config.vocab_size
    assert spec.max_positions == getattr(config, "max_position_embeddings", 2048)  # BLOOM has none


@pytest.mark.parametrize("model_type", sorted(FAMILIES_BY_TYPE))
def test_default_configs_of_every_family(model_type: str, caplog: pytest.LogCaptureFixture) -> None:
    baichuan.register()
    config = AutoConfig.for_model(model_type)
    caplog.clear()
    for whole in (True, False):
        spec = spec_from_config(json.loads(config.to_json_string(use_diff=not whole)))
        assert (len(spec.layers), spec.hidden_size) == (config.num_hidden_layers, config.hidden_size)
    assert not caplog.records


TINY_REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gemma4", {"num_kv_shared_layers": 6}, "`num_kv_shared_layers` must be less than 6"),
    ("gemma4", {"num_kv_shared_layers": 5}, "leaves no layer of some kind"),
    ("gemma4", {"vocab_size_per_layer_input": 100}, "`vocab_size_per_layer_input`"),
    ("gemma4", {"use_bidirectional_attention": "all"}, "`use_bidirectional_attention`"),
    ("gemma4", {"per_layer_config": {0: {"head_dim": 12}}}, "`per_layer_config` must be about"),
    ("gemma4", {"per_layer_config": {1: {"head_dim": 12}, 3: {"head_dim": 12}, 5: {"head_dim": 16}}}, "say the same"),
    ("gemma3", {"attn_logit_softcapping": 5.0}, "`attn_logit_softcapping`"),
    ("smollm3", {"no_rope_layers": [1]}, "`no_rope_layers`"),
    ("phi3", {"lm_head_bias": True}, "`lm_head_bias`"),
    (
        "phi3-longrope-partial",
        {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "longrope"}},
        "short_factor",
    ),
    ("cohere2", {"rotary_pct": 0.5}, "`rotary_pct`"),
    ("cohere2", {"position_embedding_type": "alibi"}, "`position_embedding_type`"),
    ("starcoder2", {"norm_type": "rms_norm"}, "`norm_type`"),
    ("gptj", {"rotary_dim": 7}, "`rotary_dim` must be even and at most 16"),
    ("gptj", {"rotary_dim": 18}, "`rotary_dim` must be even and at most 16"),
    ("codegen", {"n_head": 2}, "must be a multiple of 4"),
    ("gpt_neo", {"attention_types": [[["global"], 1]]}, "`attention_types`"),
    ("gpt_neo", {"attention_types": 3}, "`attention_types`"),
    ("gpt_neo", {"attention_layers": ["local", "local"]}, "`attention_layers` contradicts"),
    ("falcon-40b", {"parallel_attn": False}, "this combination of"),
    ("falcon-7b", {"num_ln_in_parallel_attn": 2}, "this combination of"),
    ("falcon-40b", {"num_kv_heads": 3}, "cannot share 3"),
    ("mpt", {"no_bias": False}, "`no_bias`"),
    ("mpt", {"attn_config": {"alibi": False}}, "`alibi`"),
    ("mpt", {"attn_config": {"qk_ln": True}}, "`qk_ln`"),
    ("mpt", {"attn_config": 3}, "`attn_config` must be an object"),
    ("exaone4", {"layer_types": ..., "sliding_window_pattern": "LGL"}, "`sliding_window_pattern`"),
    ("apertus", {"hidden_act": "silu"}, "`hidden_act`"),
    ("ministral3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "`llama_4_scaling_beta`"),
    ("mixtral", {"num_experts_per_tok": 6}, "`num_experts_per_tok` 6 is more than the 5 experts"),
    ("qwen3_moe", {"mlp_only_layers": 1}, "`mlp_only_layers` must be a list"),
    ("olmoe", {"clip_qkv": 3.0}, "`clip_qkv`"),
    ("phimoe", {"num_experts_per_tok": 3}, "`num_experts_per_tok`"),
    ("phimoe", {"rope_parameters": {"short_mscale": 1.0, "long_mscale": 1.2}}, "`short_mscale` 1.0 and `long_mscale`"),
    ("dbrx", {"ffn_config": {"moe_normalize_expert_weights": 2.0}}, "`moe_normalize_expert_weights`"),
    ("dbrx", {"attn_config": {"kv_n_heads": 3}}, "cannot share 3"),
    ("dbrx", {"ffn_config": 3}, "`ffn_config` must be an object"),
    ("ernie4_5_moe", {"use_bias": True}, "`use_bias`"),
    ("ernie4_5_moe", {"moe_layer_start_index": "1"}, "`moe_layer_start_index`"),
    ("glm4_moe-groups", {"topk_group": 1, "num_experts_per_tok": 4}, "from 1 of 4 groups"),
    ("glm4_moe-groups", {"n_group": 5}, "2 of 5 groups"),
    ("glm4_moe", {"first_k_dense_replace": -1}, "`first_k_dense_replace`"),
    ("gpt_oss", {"swiglu_alpha": 1.5}, "`swiglu_alpha`"),
    ("gpt_oss", {"hidden_act": "gelu"}, "`hidden_act`"),
    ("deepseek_v2", {"topk_method": "noaux_tc"}, "`topk_method`"),
    ("deepseek_v2", {"norm_topk_prob": True}, "`norm_topk_prob`"),
    ("deepseek_v3", {"scoring_func": "softmax"}, "`scoring_func`"),
    ("deepseek_v3", {"moe_layer_freq": 2}, "`moe_layer_freq`"),
    ("deepseek_v3", {"head_dim": 10}, "`head_dim`"),
    ("llama4", {"no_rope_layers": [1]}, "`no_rope_layers` must have an entry"),
    ("llama4", {"layer_types": ["sliding_attention"] * 4}, "`layer_types` must name chunked_attention"),
    ("llama4", {"moe_layers": 1}, "`moe_layers` must be a list"),
    (
        "llama-proportional",
        {"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 1.5}},
        "cannot turn",
    ),
    ("olmo3", {"rope_parameters": {"sliding_attention": 3}}, "`sliding_attention` of `rope_parameters`"),
]


@pytest.mark.parametrize(("name", "overrides", "message"), TINY_REFUSED)
def test_other_families_refuse_by_name(name: str, overrides: dict[str, Any], message: str) -> None:
    config = json.loads(tiny_config(name).to_json_string())
    spec_from_config(config)
    changed = {key: value for key, value in {**config, **overrides}.items() if value is not ...}
    with pytest.raises(ModelError, match=re.escape(message)):
        spec_from_config(changed)


OLDER: list[tuple[str, dict[str, Any]]] = [
    ("gemma", {"hidden_act": "gelu", "hidden_activation": None, "rope_parameters": ..., "rope_theta": 10000.0}),
    ("gemma3", {"rope_parameters": ..., "layer_types": ..., "sliding_window_pattern": 2, "rope_theta": 1e5,
                "rope_local_base_freq": 1e2, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    ("olmo3", {"rope_parameters": ..., "rope_theta": 5e3, "layer_types": ..., "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    ("phi3-longrope-partial", {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": {
        "type": "su", "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0], "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 13.0]}}),
    ("stablelm", {"rope_parameters": ..., "rope_theta": 10000, "partial_rotary_factor": 0.5}),
    ("phi", {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None, "partial_rotary_factor": 0.5}),
    ("cohere2", {"layer_types": ..., "sliding_window_pattern": 4, "rope_parameters": ..., "rope_theta": 10000.0,
                 "order_of_interleaved_layers": "local_attn_first", "layer_switch": 4, "rotary_pct": 1.0,
                 "position_embedding_type": "rope_gptj", "use_gated_activation": True, "use_parallel_block": True}),
    ("falcon-7b", {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None, "hidden_size": ...,
                   "n_embed": 64, "num_attention_heads": ..., "n_head": 4, "num_hidden_layers": ..., "n_layer": 2,
                   "apply_residual_connection_post_layernorm": False, "num_kv_heads": ...}),
    ("exaone4", {"layer_types": ..., "sliding_window_pattern": "LLLG", "rope_parameters": ..., "rope_theta": 10000.0}),
    ("smollm3-interval-window", {"layer_types": ..., "no_rope_layers": ..., "rope_parameters": ..., "rope_theta": 2e6}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), OLDER)
def test_as_transformers_4_wrote_them(name: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The same model, whichever version wrote the config."""
    config = json.loads(tiny_config(name).to_json_string(use_diff=False))
    older = {key: value for key, value in {**config, **changes}.items() if value is not ...}
    caplog.clear()
    assert spec_from_config(older) == spec_from_config(config)
    assert not caplog.records


def test_windows() -> None:
    assert windows(spec_from_config(make_config("mistral"))) == (24, 24)
    assert windows(spec_from_config(make_config("mistral", sliding_window=None))) == (None, None)
    assert windows(spec_from_config(make_config("mistral", sliding_window=...))) == (4096, 4096)
    assert windows(spec_from_config(make_config("qwen2"))) == (None, None, None)
    assert windows(spec_from_config(make_config("qwen2", use_sliding_window=True))) == (None, 32, 32)
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    listed = make_config("qwen2", use_sliding_window=True, layer_types=types)
    assert windows(spec_from_config(listed)) == (32, None, 32)
    assert windows(spec_from_config(make_config("gemma2", num_hidden_layers=5))) == (21, None, 21, None, 21)
    assert windows(spec_from_config(make_config("gemma2", sliding_window=...))) == (4096, None, 4096, None)


def test_defaults() -> None:
    spec = spec_from_config(
        make_config(
            "llama",
            num_key_value_heads=...,
            rms_norm_eps=...,
            hidden_act=...,
            rope_theta=...,
            torch_dtype=...,
            tie_word_embeddings=...,
        )
    )
    attention, feedforward = spec.layers[0].attention, spec.layers[0].feedforward
    assert (attention.kv_heads, spec.norm.eps, feedforward.activation, spec.tied_head) == (4, 1e-6, "silu", False)
    assert attention.rope is not None and attention.rope.theta == 10_000.0
    assert spec.dtype is None
    gpt2 = spec_from_config(make_config("gpt2", tie_word_embeddings=..., n_inner=...))
    assert gpt2.tied_head and gpt2.layers[0].feedforward.inner == 240
    assert spec_from_config(make_config("gpt2", scale_attn_weights=False)).layers[2].attention.scale == 1.0
    absent = dict.fromkeys(("rotary_pct", "rotary_emb_base", "use_parallel_residual", "hidden_act"), ...)
    neox = spec_from_config(make_config("gpt_neox", **absent)).layers[0]
    rope = neox.attention.rope
    assert rope is not None and (rope.dim, rope.theta) == (6, 10_000.0)
    assert (neox.parallel, neox.feedforward.activation, neox.attention.qkv_bias) == (True, "gelu", True)
    bloom = spec_from_config(make_config("bloom", tie_word_embeddings=..., seq_length=...))
    assert (bloom.tied_head, bloom.max_positions, bloom.layers[0].attention.slopes is not None) == (True, 2048, True)
    assert bloom.names.positions is None


def test_gemma2_defaults() -> None:
    keys = "attn_logit_softcapping final_logit_softcapping head_dim query_pre_attn_scalar hidden_activation"
    spec = spec_from_config(make_config("gemma2", **dict.fromkeys((*keys.split(), "tie_word_embeddings"), ...)))
    layer = spec.layers[1]
    found = (layer.attention.soft_cap, spec.logit_soft_cap, layer.attention.head_dim, spec.tied_head)
    assert found == (50.0, 30.0, 256, True)
    assert (layer.attention.scale, layer.feedforward.activation) == (256**-0.5, "gelu_pytorch_tanh")
    spec = spec_from_config(make_config("gemma2", attn_logit_softcapping=None, hidden_act="gelu"))
    layer = spec.layers[0]
    found = (layer.attention.soft_cap, spec.logit_soft_cap, layer.feedforward.activation)
    assert found == (None, 4.0, "gelu_pytorch_tanh")


def test_both_spellings_may_stand_if_they_agree(caplog: pytest.LogCaptureFixture) -> None:
    """As transformers 4 saved GPT-NeoX and BLOOM."""
    with caplog.at_level(logging.WARNING):
        spec_from_config(make_config("gpt_neox", rope_theta=10000.0, partial_rotary_factor=0.25))
        spec_from_config(make_config("bloom", num_attention_heads=6, num_hidden_layers=3, n_embed=48, n_inner=192))
    assert not caplog.records


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_rope_override_needs_rope(family: Family) -> None:
    with pytest.raises(ModelError, match="rope scaling does not apply"):
        spec_from_config(make_config(family), RopeOverride("linear", 2.0))
    assert spec_from_config(make_config(family), RopeOverride()).layers[0].attention.rope is None


def test_unsupported_type() -> None:
    supported = ", ".join(sorted(FAMILIES_BY_TYPE))
    assert "bloom, " in supported and "qwen2" in supported
    with pytest.raises(ModelError, match=f"Unsupported model type mamba; supported are {supported}"):
        spec_from_config({"model_type": "mamba"})
    with pytest.raises(ModelError, match=re.escape(r"Unsupported model type a\x1b[2J\ud800;")):
        spec_from_config({"model_type": "a\x1b[2J\ud800"})
    with pytest.raises(ModelError, match=re.escape(r"a\nb is not a language model")):
        spec_from_config({"model_type": "llama", "architectures": ["a\nb"]})
    with pytest.raises(ModelError, match="could not determine"):
        spec_from_config({})
    with pytest.raises(ModelError, match="Unsupported model type"):
        spec_from_config({"model_type": ["llama"]})


REFUSED: list[tuple[Family, dict[str, Any], str]] = [
    ("llama", {"hidden_act": "tanh"}, "`hidden_act` 'tanh' is not supported"),
    ("llama", {"sliding_window": 128}, "`sliding_window`"),
    ("llama", {"sliding_window": 128, "use_sliding_window": True}, "`use_sliding_window`"),
    ("llama", {"sliding_window": 128, "use_sliding_window": "no"}, "`use_sliding_window` must be true or false"),
    ("llama", {"num_hidden_layers": 1 << 30}, "`num_hidden_layers` must be at most 10000, it is 1073741824"),
    ("llama", {"num_hidden_layers": 10**400}, "`num_hidden_layers` must be a positive integer"),
    ("gpt2", {"n_layer": 1 << 30}, "`n_layer` must be at most 10000"),
    ("gpt2", {"n_layer": ..., "num_hidden_layers": 1 << 30}, "`num_hidden_layers` must be at most 10000"),
    ("gpt2", {"hidden_size": 61}, "`n_embd` and `hidden_size` differ"),
    ("gpt_neox", {"num_hidden_layers": 10_001}, "`num_hidden_layers` must be at most 10000"),
    ("bloom", {"n_layer": 1 << 30}, "`n_layer` must be at most 10000"),
    ("gemma2", {"sliding_window_pattern": 3}, "`sliding_window_pattern`"),
    ("llama", {"partial_rotary_factor": 0.5}, "`partial_rotary_factor`"),
    ("llama", {"attention_bias": "yes"}, "`attention_bias` must be true or false"),
    ("llama", {"attn_logit_softcapping": 50.0}, "`attn_logit_softcapping`"),
    ("llama", {"logits_scaling": 8.0}, "`logits_scaling`"),
    ("llama", {"num_local_experts": 8}, "`num_local_experts`"),
    ("llama", {"pruned_heads": {"0": [1]}}, "`pruned_heads`"),
    ("llama", {"layer_types": ["sliding_attention"] * 3}, "there is no sliding window"),
    ("llama", {"layer_types": ["linear_attention"] * 3}, "`layer_types`"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "is not a language model"),
    ("llama", {"num_key_value_heads": 3}, "cannot share 3"),
    ("llama", {"num_attention_heads": 7, "num_key_value_heads": 7}, "not a multiple of 7 heads"),
    ("llama", {"num_hidden_layers": 0}, "`num_hidden_layers` must be a positive integer"),
    ("llama", {"num_hidden_layers": True}, "`num_hidden_layers` must be a positive integer"),
    ("llama", {"hidden_size": ...}, "lacks `hidden_size`"),
    ("llama", {"vocab_size": "many"}, "`vocab_size` must be a positive integer"),
    ("llama", {"rms_norm_eps": float("nan")}, "`rms_norm_eps` must be a positive number"),
    ("llama", {"head_dim": 7}, "even head size"),
    ("mistral", {"attention_bias": True}, "`attention_bias`"),
    ("mistral", {"sliding_window": 0}, "`sliding_window` must be a positive integer"),
    ("qwen2", {"attention_bias": False}, "`attention_bias`"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "`max_window_layers`"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "`scale_attn_by_inverse_layer_idx`"),
    ("gpt2", {"add_cross_attention": True}, "`add_cross_attention`"),
    ("gpt2", {"activation_function": "swish2"}, "`activation_function`"),
    ("gpt_neox", {"rotary_pct": 0.3}, "even head size"),
    ("gpt_neox", {"rotary_pct": 1.5}, "cannot turn the part 1.5"),
    ("gpt_neox", {"rotary_pct": 0.01}, "cannot turn the part 0.01"),
    ("gpt_neox", {"rope_theta": 5000.0}, "`rope_theta` contradicts"),
    ("gpt_neox", {"partial_rotary_factor": 0.5}, "`partial_rotary_factor` contradicts"),
    ("gpt_neox", {"use_parallel_residual": 1}, "`use_parallel_residual` must be true or false"),
    ("gpt_neox", {"qk_layernorm": True}, "`qk_layernorm`"),
    ("bloom", {"apply_residual_connection_post_layernorm": 1}, "`apply_residual_connection_post_layernorm` must be"),
    ("bloom", {"slow_but_exact": True}, "`slow_but_exact`"),
    ("bloom", {"n_inner": 100}, "`n_inner`"),
    ("bloom", {"n_embed": 96}, "`hidden_size` and `n_embed` differ"),
    ("bloom", {"n_head": ...}, "lacks `n_head`"),
    ("gemma2", {"use_bidirectional_attention": True}, "`use_bidirectional_attention`"),
    ("gemma2", {"attn_logit_softcapping": -1.0}, "`attn_logit_softcapping` must be a positive number"),
    ("gemma2", {"final_logit_softcapping": "x"}, "`final_logit_softcapping` must be a positive number"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "`query_pre_attn_scalar` must be a positive number"),
    ("gemma2", {"layer_types": ["full_attention"]}, "`layer_types`"),
    ("gemma2", {"hidden_activation": "tanh"}, "`hidden_activation` 'tanh' is not supported"),
]


@pytest.mark.parametrize(("family", "overrides", "message"), REFUSED)
def test_refused_by_name(family: Family, overrides: dict[str, Any], message: str) -> None:
    spec_from_config(make_config(family))
    with pytest.raises(ModelError, match=re.escape(message)):
        spec_from_config(make_config(family, **overrides))


def test_neutral_values_are_fine(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        spec_from_config(
            make_config(
                "llama",
                pretraining_tp=1,
                sliding_window=None,
                rope_interleaved=False,
                partial_rotary_factor=1.0,
                is_llama_config=True,
            )
        )
    assert not caplog.records


LOADABLE: dict[str, tuple[Family, dict[str, Any]]] = {
    "slices of training": ("llama", {"pretraining_tp": 2}),
    "slices of training, mistral": ("mistral", {"pretraining_tp": 4}),
    "slices of training, bloom": ("bloom", {"pretraining_tp": 4}),
    "another order of the same": ("gpt2", {"reorder_and_upcast_attn": True}),
    "window switched off": ("llama", {"sliding_window": 128, "use_sliding_window": False, "max_window_layers": 2}),
    "window as wide as the context": ("llama", {"sliding_window": 512, "use_sliding_window": None}),
    "no window": ("llama", {"sliding_window": None, "use_sliding_window": True, "max_window_layers": None}),
    "window of 0 that is not used": ("qwen2", {"sliding_window": 0}),
    "no window to use": ("qwen2", {"sliding_window": None, "use_sliding_window": True}),
    "yarn of its authors": ("llama", {"rope_scaling": {"type": "yarn", "factor": 16.0, "finetuned": True,
                            "original_max_position_embeddings": 64}}),
    "yarn with every knob": ("mistral", {"rope_scaling": {"type": "yarn", "factor": 8, "finetuned": False,
                             "extrapolation_factor": 1, "attn_factor": 1.0, "beta_fast": 32, "beta_slow": 1,
                             "original_max_position_embeddings": 64}}),
    "dynamic that was trained": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0, "finetuned": True}}),
    "both names of the type": ("qwen2", {"rope_parameters": None, "rope_scaling": {"rope_type": "linear",
                               "type": "linear", "factor": 2}}),
    "names of another framework": ("gpt2", {"n_embd": ..., "hidden_size": 60, "n_head": ..., "num_attention_heads": 5,
                                   "n_layer": ..., "num_hidden_layers": 3, "n_positions": ...,
                                   "max_position_embeddings": 512}),
    "new names only": ("gpt_neox", {"rotary_pct": ..., "rotary_emb_base": ..., "rope_theta": 5000,
                       "partial_rotary_factor": 0.5}),
    "leftovers of gemma 1": ("gemma2", {"hidden_act": "gelu_10", "sliding_window_size": 4096,
                             "sliding_window_pattern": 2, "cache_implementation": "hybrid"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADABLE)
def test_loadable_in_transformers(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Keys at values with which transformers computes the same as without, or what other keys say."""
    family, overrides = LOADABLE[name]
    with caplog.at_level(logging.WARNING):
        spec = spec_from_config(make_config(family, **overrides))
    assert not caplog.records
    if "window" in name:
        assert windows(spec) == (None,) * len(spec.layers)


@pytest.mark.parametrize(
    ("name", "here"),
    [("swish", "silu"), ("gelu_python", "gelu"), ("gelu_fast", "gelu_new"), ("gelu_accurate", "gelu_new")],
)
def test_other_names_of_activations(name: str, here: str) -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(ops.ACTIVATIONS[here](x), ACT2FN[name](x), rtol=1e-6, atol=1e-6)
    keys = {"gpt2": "activation_function", "gemma2": "hidden_activation"}
    for family in FAMILIES:
        if family != "bloom":  # which has no such key
            config = make_config(family, **{keys.get(family, "hidden_act"): name})
            assert spec_from_config(config).layers[0].feedforward.activation == here


WRITTEN_BY_EVERY_VERSION_4 = {
    "_name_or_path": "", "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None, "decoder_start_token_id": None,
    "diversity_penalty": 0.0, "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "is_decoder": False,
    "is_encoder_decoder": False, "label2id": {"LABEL_0": 0}, "length_penalty": 1.0, "max_length": 20,
    "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
    "output_attentions": False, "output_hidden_states": False, "output_scores": False, "prefix": None,
    "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0,
    "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None,
    "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False,
    "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torchscript": False, "transformers_version": "4.30.2",
    "typical_p": 1.0, "use_bfloat16": False, "_attn_implementation_autoset": True, "attention_dropout": 0.0,
    "classifier_dropout": 0.1, "hidden_dropout": 0.0, "rope_scaling": None,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_configs_that_transformers_4_wrote(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """With `use_diff=False` it wrote all its keys, null or not."""
    with caplog.at_level(logging.WARNING):
        spec = spec_from_config(make_config(family, **WRITTEN_BY_EVERY_VERSION_4))
    assert not caplog.records
    assert spec == spec_from_config(make_config(family))


def test_key_heads_of_a_config_without_the_key() -> None:
    config = {"hidden_size": 128, "num_attention_heads": 32, "num_key_value_heads": ...}
    kinds: dict[Family, type] = {"mistral": MistralConfig, "qwen2": Qwen2Config, "gemma2": Gemma2Config}
    for family, kind in kinds.items():
        assert kv_heads(make_config(family, **config)) == kind().num_key_value_heads
        assert kv_heads(make_config(family, **{**config, "num_key_value_heads": None})) == 32


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "SmolLM2-135M": (
        {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
         "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
         "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
         "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
         "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
         "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
         "transformers_version": "4.40.1", "vocab_size": 49152},
        134_515_008,
    ),
    "Llama-3.2-1B": (
        {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
         "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
         "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
         "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
         "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"},
         "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
         "transformers_version": "4.45.0", "vocab_size": 128256},
        1_235_814_400,
    ),
    "Qwen2.5-0.5B": (
        {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
         "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
         "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
         "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
         "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
         "transformers_version": "4.40.1", "use_cache": True, "use_mrope": False, "use_sliding_window": False,
         "vocab_size": 151936},
        494_032_768,
    ),
    "gpt2": (
        {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
         "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
         "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
         "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
         "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
         "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257},
        124_439_808,
    ),
    "pythia-70m": (
        {"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
         "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05,
         "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 6,
         "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
         "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 50304},
        70_426_624,
    ),
    "bloom-560m": (
        {"apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
         "attention_softmax_in_fp32": True, "architectures": ["BloomForCausalLM"], "bias_dropout_fusion": True,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0, "hidden_dropout": 0.0,
         "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True,
         "model_type": "bloom", "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16,
         "offset_alibi": 100, "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": True,
         "skip_bias_add_qkv": False, "transformers_version": "4.20.0", "use_cache": True, "vocab_size": 250880},
        559_214_592,
    ),
    "gemma-2-2b": (
        {"architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
         "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
         "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
         "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
         "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2",
         "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0,
         "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
         "torch_dtype": "float32", "transformers_version": "4.42.4", "use_cache": True, "vocab_size": 256000},
        2_614_341_888,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """As they stand on the hub: no warning, and the published number of parameters."""
    config, parameters = PUBLISHED[name]
    with caplog.at_level(logging.WARNING):
        assert build(spec_from_config(config)).parameters == parameters
    assert not caplog.records


def test_unknown_keys_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        spec_from_config(make_config("llama", zz_new_axis=3, a_flag=True))
    assert [record.getMessage() for record in caplog.records] == [
        "config.json has keys unknown to this server, which it does not use: a_flag, zz_new_axis"
    ]


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_broken_config_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_spec(tmp_path)
    with pytest.raises(ModelError, match=r"has no config\.json"):
        read_spec(tmp_path / "absent")


def test_unknown_quantisations_are_refused_in_one_line(tmp_path: Path) -> None:
    assert isinstance(format_for(read_stored(tmp_path, {}, dict)), Plain)
    with pytest.raises(ModelError) as caught:
        format_for(read_stored(tmp_path, {"quantization_config": {"quant_method": "exl9", "bits": 4}}, dict))
    message = str(caught.value)
    assert "exl9" in message and "supported" in message and "\n" not in message
    with pytest.raises(ModelError, match="unknown"):
        read_stored(tmp_path, {"compression_config": "x"}, dict)


def test_every_method_has_a_format_of_its_own() -> None:
    for method in FORMATS:
        own = {"version": VERSION} if method == "tgi" else {}
        found = format_for(stored({"quant_method": method, **own}, "here"))
        assert found.quantised and found.name == method


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; import tgi.models.families, tgi.models.build.decoder, tgi.memory.cost, tgi.kernels.footprint; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": "src"})


WRONG: list[Any] = [None, -1, 0, 1, 3, 0.5, 1e308, float("inf"), 2**63, "x", True, [], ["x"], [{}], {}, {"a": 1}]


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_types_never_crash(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """Every key with every kind of wrong value: a spec or a ModelError, never another exception."""
    base = make_config(family, rope_scaling={"rope_type": "yarn", "factor": 2.0}, layer_types=None, head_dim=16)
    refused = 0
    for key in base:
        for value in WRONG:
            caplog.clear()
            for config in ({**base, key: value}, {**base, "rope_scaling": {**base["rope_scaling"], key: value}}):
                try:
                    spec_from_config(config)
                except ModelError as error:
                    assert "\n" not in str(error)
                    refused += 1
    assert refused > 100
