"""Tiny random models with an encoder, of architectures that are not native."""

from __future__ import annotations

from typing import Any

VOCAB = 300
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "src_vocab_size": VOCAB,
    "tgt_vocab_size": VOCAB,
    "d_model": 48,
    "hidden_size": 48,
    "d_kv": 12,
    "d_ff": 80,
    "num_layers": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "encoder_sparse_step": 2,
    "decoder_sparse_step": 2,
    "num_experts": 4,
    "num_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 400,
    "max_encoder_position_embeddings": 400,
    "max_decoder_position_embeddings": 400,
    "attention_window": 8,
    "attention_type": "original_full",
    "block_size": 16,
    "num_global_tokens": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "expert_capacity": 400,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5GEMMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "sliding_window": 19,
    "query_pre_attn_scalar": 12,
    "max_position_embeddings": 400,
}


def build(model_type: str, seed: int = 0) -> Any:
    """A tiny model with weights large enough for clear choices."""
    import torch
    import transformers

    if model_type == "t5gemma":
        config = transformers.AutoConfig.for_model(
            model_type, encoder=T5GEMMA, decoder=T5GEMMA, vocab_size=VOCAB, decoder_start_token_id=2
        )
    else:
        known = transformers.AutoConfig.for_model(model_type).to_dict()
        given = {name: value for name, value in COMMON.items() if name in known}
        config = transformers.AutoConfig.for_model(model_type, **{**given, "decoder_start_token_id": 2})
    torch.manual_seed(seed)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name and not parameter.requires_grad:
                continue  # computed
            noise = torch.randn_like(parameter) * 0.2
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return model
