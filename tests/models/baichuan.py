"""Baichuan for transformers, which has no code of it: the oracle of its tests, written from its papers and configs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb

SECOND_VOCABULARY = 125_696


class BaichuanConfig(PretrainedConfig):
    """max_position_embeddings: None for models with ALiBi."""

    model_type = "baichuan"

    def __init__(self, **given: Any) -> None:
        defaults = {
            "vocab_size": 64_000,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "hidden_act": "silu",
            "max_position_embeddings": None,
            "model_max_length": 4096,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
        }
        super().__init__(**{**defaults, **given})


class Layer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.turns = config.max_position_embeddings is not None
        self.self_attn = nn.ModuleDict(
            {"W_pack": nn.Linear(width, 3 * width, bias=False), "o_proj": nn.Linear(width, width, bias=False)}
        )
        shape = {"hidden_size": width, "intermediate_size": config.intermediate_size, "hidden_act": config.hidden_act}
        self.mlp = LlamaMLP(SimpleNamespace(**shape, mlp_bias=False))
        self.input_layernorm = LlamaRMSNorm(width, config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(width, config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))

    def attention(self, x: Tensor) -> Tensor:
        count, width = x.shape[1], x.shape[2]
        packed = self.self_attn["W_pack"](x).unflatten(-1, (3, self.heads, -1))  # [1, tokens, 3, heads, head_dim]
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        mask = torch.full((count, count), float("-inf")).triu(1)
        if self.turns:
            dim = width // self.heads
            angles = torch.arange(count)[:, None] / 10_000.0 ** (torch.arange(0, dim, 2) / dim)
            angles = torch.cat((angles, angles), dim=-1)[None]
            q, k = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
        else:
            mask = mask + build_alibi_tensor(torch.ones((1, count)), self.heads, torch.float32).view(1, -1, 1, count)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.self_attn["o_proj"](out.transpose(1, 2).flatten(2))


class BaichuanForCausalLM(PreTrainedModel):
    config_class = BaichuanConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab_size, config.hidden_size),
                "layers": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers)),
                "norm": LlamaRMSNorm(config.hidden_size, config.rms_norm_eps),
            }
        )
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        x = self.model["embed_tokens"](input_ids)
        for layer in self.model["layers"]:
            x = layer(x)
        head = self.lm_head.weight
        if self.config.vocab_size == SECOND_VOCABULARY:
            head = F.normalize(head)
        return SimpleNamespace(logits=self.model["norm"](x) @ head.T)


def register() -> None:
    """Make transformers know the family."""
    AutoConfig.register("baichuan", BaichuanConfig, exist_ok=True)
    AutoModelForCausalLM.register(BaichuanConfig, BaichuanForCausalLM, exist_ok=True)
