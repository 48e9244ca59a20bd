"""What llama.cpp calls the modules of a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from tgi.models.names import Names

IGNORED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Made into numbers of the configuration."""


def renamed(names: Names, layers: int) -> Iterator[tuple[str, str]]:
    """llama.cpp's names of modules -> the model's, `{expert}` left open where they are stacked."""
    whole = {
        "token_embd": names.embedding,
        "output_norm": names.final_norm,
        "output": names.head,
        "position_embd": names.positions,
        "token_embd_norm": names.embedding_norm,
    }
    yield from ((stored, name) for stored, name in whole.items() if name)
    qkv = ("attn_q", "attn_k", "attn_v") if len(names.qkv) == 3 else ("attn_qkv",)
    up = ("ffn_gate", "ffn_up") if len(names.up) == 2 else ("ffn_up",)
    inside = dict(zip((*qkv, *up), (*names.qkv, *names.up), strict=True)) | {
        "attn_output": names.attention_out,
        "attn_norm": names.attention_norm,
        "ffn_norm": names.feedforward_norm if names.feedforward_norm != names.attention_norm else None,
        "ffn_down": names.down,
        "post_attention_norm": names.attention_post_norm,
        "post_ffw_norm": names.feedforward_post_norm,
        "attn_q_norm": names.query_norm,
        "attn_k_norm": names.key_norm,
        "ffn_gate_inp": names.router,
        "ffn_down_exps": names.expert_down,
        "ffn_gate_inp_shexp": names.shared_router,
        "ffn_down_shexp": names.shared_down,
    }
    inside |= dict(zip(("ffn_gate_exps", "ffn_up_exps"), names.expert_up, strict=False))
    inside |= dict(zip(("ffn_gate_shexp", "ffn_up_shexp"), names.shared_up, strict=False))
    for layer in range(layers):
        for stored, name in inside.items():
            if name:
                yield f"blk.{layer}.{stored}", name.replace("{}", str(layer))
