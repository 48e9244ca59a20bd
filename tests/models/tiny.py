"""Tiny random checkpoints of every native family, written by transformers, which is also the oracle.

Each case is a config in which the family's special axes matter: windows shorter than the prompts, factors far from 1,
layers of every kind. Head sizes and grouping differ on purpose. docs/models.md is made from them: torch and
transformers are imported when they are needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCAB = 384
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0],
    "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 13.0],
}
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LATENT = {"kv_lora_rank": 32, "q_lora_rank": 28, "qk_nope_head_dim": 20, "qk_rope_head_dim": 12, "v_head_dim": 24,
           "n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "n_shared_experts": 1,
           "num_key_value_heads": 4}  # fmt: skip
_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 12,
          "linear_value_head_dim": 20, "linear_conv_kernel_dim": 4,
          "rms_norm_eps": 1e-3}  # a gated norm of nearly nothing enlarges the oracle's own rounding  # fmt: skip
_MAMBA = {"mamba_n_heads": 8, "mamba_d_state": 12, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 16,
          "shared_intermediate_size": 72}  # fmt: skip
_GPT = {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-longrope": (
        "llama",
        {
            "head_dim": 12,
            "rope_parameters": {**_LONGROPE, "rope_theta": 1e4, "factor": 3.0, "original_max_position_embeddings": 256},
        },
    ),
    "llama-longrope-long": (
        "llama",
        {
            "head_dim": 12,
            "rope_parameters": {
                **_LONGROPE,
                "short_factor": _LONGROPE["long_factor"],
                "rope_theta": 1e4,
                "attention_factor": 1.3,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "llama-proportional": (
        "llama",
        {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "proportional",
                "rope_theta": 1e2,
                "factor": 2.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "llama-yarn-mscale": (
        "llama",
        {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e3,
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
                "mscale": 0.9,
                "mscale_all_dim": 0.4,
                "truncate": False,
            },
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "qwen3-windows-biases": (
        "qwen3",
        {
            "head_dim": 16,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 19,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "smollm3-interval-window": (
        "smollm3",
        {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 23},
    ),
    "gemma": ("gemma", {"head_dim": 20, "num_key_value_heads": 1}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 24,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 21,
            "query_pre_attn_scalar": 20,
            "final_logit_softcapping": 4.0,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
            },
        },
    ),
    "olmo": ("olmo", {"clip_qkv": 0.7, "attention_bias": True}),
    "olmo2": ("olmo2", {}),
    "olmo3": (
        "olmo3",
        {
            "num_hidden_layers": 4,
            "sliding_window": 18,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
                "full_attention": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "rope_theta": 5e3,
                    "original_max_position_embeddings": 64,
                },
            },
        },
    ),
    "granite": (
        "granite",
        {
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.6,
            "embedding_multiplier": 3.0,
            "logits_scaling": 5.0,
            "mlp_bias": True,
        },
    ),
    "cohere": ("cohere", {"logit_scale": 0.4}),
    "cohere-qk-norm": ("cohere", {"use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False}),
    "cohere2": ("cohere2", {"num_hidden_layers": 4, "sliding_window": 22, "head_dim": 24}),
    "stablelm": ("stablelm", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm-parallel-qk-norm": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "starcoder2": ("starcoder2", {"sliding_window": 26}),
    "starcoder2-no-bias": ("starcoder2", {"use_bias": False, "tie_word_embeddings": False}),
    "phi": ("phi", {}),
    "phi-qk-norm": ("phi", {"qk_layernorm": True, "num_key_value_heads": 4, "hidden_act": "gelu"}),
    "phi3": ("phi3", {"sliding_window": 25}),
    "phi3-longrope-partial": (
        "phi3",
        {
            "partial_rotary_factor": 0.75,
            "rope_parameters": {**_LONGROPE, "partial_rotary_factor": 0.75},
            "original_max_position_embeddings": 256,
        },
    ),
    "opt": ("opt", {"word_embed_proj_dim": 64, "ffn_dim": 72, "activation_function": "gelu"}),
    "opt-350m": ("opt", {"word_embed_proj_dim": 40, "ffn_dim": 72, "do_layer_norm_before": False}),
    "opt-galactica": (
        "opt",
        {"word_embed_proj_dim": 64, "ffn_dim": 72, "enable_bias": False, "layer_norm_elementwise_affine": False},
    ),
    "gpt_bigcode": ("gpt_bigcode", {**_GPT, "n_inner": 72}),
    "gpt_bigcode-every-head": ("gpt_bigcode", {**_GPT, "multi_query": False, "scale_attn_weights": False}),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 6}),
    "gptj-whole-heads": ("gptj", {**_GPT, "rotary_dim": 16, "activation_function": "gelu"}),
    "codegen": ("codegen", {**_GPT, "rotary_dim": 8, "n_head": 8, "n_inner": 50}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 17},
    ),
    "falcon-7b": ("falcon", {"num_ln_in_parallel_attn": None}),
    "falcon-rw": ("falcon", {"multi_query": False, "parallel_attn": False, "bias": True, "num_kv_heads": 4}),
    "falcon-40b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-11b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    "falcon-alibi": (
        "falcon",
        {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "num_attention_heads": 4},
    ),
    "mpt": ("mpt", {"d_model": 48, "n_heads": 6, "n_layers": 2, "max_seq_len": 512, "attn_config": {"clip_qkv": 0.8}}),
    "mpt-eight-heads": (
        "mpt",
        {"d_model": 64, "n_heads": 8, "n_layers": 2, "max_seq_len": 512, "attn_config": {"softmax_scale": 0.5}},
    ),
    "xglm": (
        "xglm",
        {"d_model": 64, "ffn_dim": 72, "num_layers": 2, "attention_heads": 4, "scale_embedding": True},
    ),
    "nemotron": ("nemotron", {"head_dim": 24}),
    "nemotron-biases": ("nemotron", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "helium": ("helium", {"head_dim": 16}),
    "exaone4": ("exaone4", {"num_hidden_layers": 4, "sliding_window": 20, "sliding_window_pattern": 4}),
    "exaone4-without-windows": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "glm": ("glm", {"head_dim": 20}),
    "internlm3": ("internlm3", {"head_dim": 24}),
    "internlm3-biases": ("internlm3", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "glm4": ("glm4", {"head_dim": 24, "attention_bias": True}),
    "ernie4_5": ("ernie4_5", {"head_dim": 24}),
    "ernie4_5-biases": ("ernie4_5", {"head_dim": 16, "use_bias": True}),
    "seed_oss": ("seed_oss", {"head_dim": 24}),
    "seed_oss-biases": ("seed_oss", {"head_dim": 16, "attention_out_bias": True, "mlp_bias": True}),
    "arcee": ("arcee", {"head_dim": 20, "mlp_bias": True}),
    "apertus": ("apertus", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 24}),
    "hunyuan-alpha": (
        "hunyuan_v1_dense",
        {"head_dim": 16, "rope_parameters": {"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0, "rope_theta": 1e4}},
    ),
    "ministral": (
        "ministral",
        {"head_dim": 24, "sliding_window": 19, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "ministral3": (
        "ministral3",
        {
            "head_dim": 24,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "max_position_embeddings": 512,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.7,
            },
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 5, "head_dim": 16, "sliding_window": 24}),
    "qwen2_moe": (
        "qwen2_moe",
        {**_EXPERTS, "shared_expert_intermediate_size": 56, "num_hidden_layers": 3, "mlp_only_layers": [1]},
    ),
    "qwen3_moe": ("qwen3_moe", {**_EXPERTS, "num_experts_per_tok": 3, "norm_topk_prob": True, "head_dim": 24}),
    "qwen3_moe-every-second": ("qwen3_moe", {**_EXPERTS, "decoder_sparse_step": 2, "attention_bias": True}),
    "olmoe": ("olmoe", {"num_experts": 6, "num_experts_per_tok": 2}),
    "phimoe": (
        "phimoe",
        {
            "num_local_experts": 5,
            "router_jitter_noise": 0.3,
            "attention_bias": True,
            "lm_head_bias": True,
            "sliding_window": 40,
        },
    ),
    "phimoe-longrope": (
        "phimoe",
        {
            "head_dim": 12,
            "num_local_experts": 5,
            "rope_parameters": {
                **_LONGROPE,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 256,
                "short_mscale": 1.3,
                "long_mscale": 1.3,
            },
        },
    ),
    "granitemoe": (
        "granitemoe",
        {
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.6,
            "embedding_multiplier": 3.0,
            "logits_scaling": 5.0,
            "attention_bias": True,
        },
    ),
    "dbrx": (
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 512,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.8, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 6, "moe_top_k": 3},
        },
    ),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        {"head_dim": 24, "moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 48, "num_hidden_layers": 3},
    ),
    "glm4_moe": (
        "glm4_moe",
        {
            "head_dim": 24,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 48,
            "num_hidden_layers": 3,
            "use_qk_norm": True,
            "attention_bias": True,
            "routed_scaling_factor": 1.7,
        },
    ),
    "glm4_moe-groups": (
        "glm4_moe",
        {
            "head_dim": 16,
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 48,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "first_k_dense_replace": 0,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {
            "head_dim": 16,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": 23,
            "swiglu_limit": 1.5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "deepseek_v2": (
        "deepseek_v2",
        {**_LATENT, "q_lora_rank": None, "n_routed_experts": 6, "topk_method": "greedy", "first_k_dense_replace": 1},
    ),
    "deepseek_v2-groups": (
        "deepseek_v2",
        {
            **_LATENT,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "attention_bias": True,
            "routed_scaling_factor": 1.7,
        },
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **_LATENT,
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 1,
            "attention_bias": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 0.7,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "deepseek_v3-halves": (
        "deepseek_v3",
        {
            **_LATENT,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": None,
            "rope_interleave": False,
            "first_k_dense_replace": 0,
        },
    ),
    "mamba2": (
        "mamba2",
        {
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 12,
            "n_groups": 2,
            "conv_kernel": 4,
            "expand": 2,
            "chunk_size": 16,
            "tie_word_embeddings": False,
        },
    ),
    "mamba2-biases": (
        "mamba2",
        {
            "num_heads": 6,
            "head_dim": 8,
            "state_size": 16,
            "n_groups": 1,
            "conv_kernel": 3,
            "expand": 1,
            "use_bias": True,
            "hidden_size": 48,
            "use_conv_bias": False,
            "chunk_size": 16,
            "time_step_limit": [0.05, 0.9],
        },
    ),
    "lfm2": (
        "lfm2",
        {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "conv"], "block_multiple_of": 16},
    ),
    "lfm2-biases": (
        "lfm2",
        {
            "num_hidden_layers": 3,
            "full_attn_idxs": [1],
            "conv_bias": True,
            "conv_L_cache": 4,
            "block_auto_adjust_ff_dim": False,
        },
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **_DELTA,
            **_EXPERTS,
            "head_dim": 24,
            "shared_expert_intermediate_size": 56,
            "num_hidden_layers": 2,
            "full_attention_interval": 2,
        },
    ),
    "qwen3_5": (
        "qwen3_5_text",
        {
            **_DELTA,
            "head_dim": 16,
            "linear_num_value_heads": 2,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "attention_bias": True,
        },
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **_MAMBA,
            "num_hidden_layers": 3,
            "layer_types": ["mamba", "attention", "mamba"],
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.6,
            "embedding_multiplier": 3.0,
            "logits_scaling": 5.0,
        },
    ),
    "granitemoehybrid-rope": (
        "granitemoehybrid",
        {
            **_MAMBA,
            "mamba_n_groups": 2,
            "mamba_proj_bias": True,
            "position_embedding_type": "rope",
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
        },
    ),
    "gemma4": (
        "gemma4_text",
        {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "head_dim": 12,
            "global_head_dim": 20,
            "sliding_window": 19,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "vocab_size_per_layer_input": VOCAB,
            "hidden_size_per_layer_input": 24,
            "final_logit_softcapping": 20.0,
        },
    ),
    "gemma4-experts": (
        "gemma4_text",
        {
            "num_hidden_layers": 3,
            "head_dim": 16,
            "global_head_dim": 28,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "sliding_window": 19,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 2,
            "moe_intermediate_size": 48,
        },
    ),
    "baichuan": ("baichuan", {}),
    "baichuan-2": ("baichuan", {"vocab_size": 125_696, "hidden_size": 32, "num_attention_heads": 2}),
    "baichuan-alibi": (
        "baichuan",
        {"max_position_embeddings": None, "model_max_length": 512, "hidden_size": 48, "num_attention_heads": 6},
    ),
    "llama4": (
        "llama4_text",
        {
            "head_dim": 16,
            "intermediate_size_mlp": 72,
            "num_hidden_layers": 4,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "attention_chunk_size": 21,
            "interleave_moe_layer_step": 2,
            "floor_scale": 16,
            "attn_scale": 0.8,
        },
    ),
}
"""Name -> (`model_type`, values of the config that are not `_COMMON`)."""


def tiny_config(name: str, **overrides: Any) -> Any:
    """transformers' config of a case; a value of `...` leaves the key out."""
    import transformers

    from tests.models import baichuan

    baichuan.register()
    model_type, values = CASES[name]
    known = transformers.AutoConfig.for_model(model_type).to_dict()
    common = {key: value for key, value in _COMMON.items() if key in known}
    given = {key: value for key, value in {**common, **values, **overrides}.items() if value is not ...}
    config = transformers.AutoConfig.for_model(model_type, **given)
    # With ALiBi transformers' eager attention of Falcon adds the bias twice.
    config._attn_implementation = "sdpa" if name == "falcon-alibi" else "eager"
    return config


def corrections(model: Any) -> list[Any]:
    """Learned numbers that transformers does not count among the parameters."""
    names = ("e_score_correction_bias", "layer_scalar")
    return [buffer for name, buffer in model.named_buffers() if name.endswith(names)]


def write_tiny(path: Path, name: str, seed: int = 0, *, std: float = 0.2, **overrides: Any) -> Any:
    """Write the checkpoint of a case to `path` and return transformers' model of it.

    Weights are scaled up: the logits of a freshly initialised model are nearly uniform and would let wrong
    arithmetic pass.
    """
    import torch
    import transformers
    from transformers.models.bloom import modeling_bloom as bloom
    from transformers.models.falcon import modeling_falcon as falcon

    config = tiny_config(name, **overrides)
    torch.manual_seed(seed)
    if name == "falcon-alibi":  # else rounded to bfloat16, from position 257 on also the positions
        falcon.build_alibi_tensor = bloom.build_alibi_tensor
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * std)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        for key, parameter in model.named_parameters():
            if key.endswith("sinks"):
                parameter.add_(torch.randn_like(parameter) * 3)
        for buffer in corrections(model):
            buffer.add_(torch.randn_like(buffer) * 0.2)
    model.save_pretrained(path)
    return model
