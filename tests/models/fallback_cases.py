"""Architectures that are not native and are tested by transformers' code; docs/models.md lists them. Without torch."""

from __future__ import annotations

PAGED = (
    "persimmon", "cwm", "granite_swa", "cohere2_moe", "afmoe", "apertus1p5_text", "aria_text", "beam", "bitnet", "ctrl",
    "dots1", "exaone_moe", "flex_olmo", "flint", "granitemoe_swa", "granitemoeshared", "hunyuan_v1_moe", "hy_v3",
    "hyperclovax", "jais2", "jetmoe", "kolibri1", "mellum", "mimo_v2_flash", "minimax_m2",
)  # fmt: skip
OWN_CACHE = (
    "doge", "mamba", "biogpt", "diffllama", "gpt_neox_japanese", "lara_mini", "minimax", "megatron-bert",
    "falcon_h1", "nemotron_h", "jamba", "bamba", "qwen3_5_moe_text", "recurrent_gemma", "olmo_hybrid",
)  # fmt: skip
FAST = ("persimmon", "granite_swa", "doge", "mamba")
"""In the fast suite; all others are slow."""

WITH_ENCODER = (
    "blenderbot", "blenderbot-small", "plbart", "mvp", "led", "switch_transformers", "t5gemma", "longt5",
    "bigbird_pegasus", "pegasus_x", "nllb-moe",
)  # fmt: skip
FAST_WITH_ENCODER = ("plbart", "t5gemma")
