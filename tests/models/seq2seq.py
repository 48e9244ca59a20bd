"""Tiny random encoder-decoder checkpoints, written by transformers, which is also the oracle.

As `tests.models.tiny` for decoders: configs in which the family's special axes matter. docs/models.md is made from the
names: torch and transformers are imported when they are needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCAB = 300
_T5: dict[str, Any] = {
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 80,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "d_model": 48,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 400,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", _T5),
    "t5-1.1": ("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("mt5", _T5),
    "umt5": ("umt5", _T5),
    "bart": ("bart", _BART),
    "mbart": ("mbart", {**_BART, "scale_embedding": True, "decoder_start_token_id": 7}),
    "m2m_100": ("m2m_100", _BART),
    "marian": ("marian", {**_BART, "pad_token_id": 299, "decoder_start_token_id": 299, "eos_token_id": 0}),
    "marian-two-vocabularies": (
        "marian",
        {**_BART, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 280, "activation_function": "swish"},
    ),
    "pegasus": ("pegasus", {**_BART, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1}),
}
"""Name -> (`model_type`, values of the config)."""
FORCED = {"bart": 0, "m2m_100": 290}
"""Name -> the id that answers must begin with, by generation_config.json."""


def write_tiny(path: Path, name: str, seed: int = 0, **overrides: Any) -> Any:
    """Write the checkpoint of a case to `path` and return transformers' model of it, in float32.

    Weights are scaled up, as in `tests.models.tiny`.
    """
    import torch
    import transformers

    model_type, values = CASES[name]
    config = transformers.AutoConfig.for_model(model_type, **{"vocab_size": VOCAB, **values, **overrides})
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" in key and model_type in ("marian", "pegasus"):
                continue  # computed
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.25)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        if model_type == "m2m_100":  # transformers gives generated padding no position of its own
            model.get_input_embeddings().weight[config.pad_token_id] = 0
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(0, 0.5)
    model.generation_config.forced_bos_token_id = FORCED.get(name)
    if model_type == "marian":  # as in published ones; the bias would make it the most likely token
        model.generation_config.bad_words_ids = [[config.pad_token_id]]
        model.final_logits_bias[0, config.pad_token_id] = 100
    model.save_pretrained(path)
    return model
