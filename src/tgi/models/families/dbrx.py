"""DBRX. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import MAX_LAYERS, activation_of, experts_of, gpt_like, with_experts
from tgi.models.names import FusedExperts, Names
from tgi.models.rope_config import rope_parameters, rope_spec
from tgi.models.spec import ExpertsSpec, ModelSpec

_BLOCK = "transformer.blocks.{}"
DBRX_NAMES = Names(
    prefix="transformer.",
    embedding="transformer.wte",
    attention_norm=f"{_BLOCK}.norm_attn_norm.norm_1",
    qkv=(f"{_BLOCK}.norm_attn_norm.attn.Wqkv",),
    attention_out=f"{_BLOCK}.norm_attn_norm.attn.out_proj",
    feedforward_norm=f"{_BLOCK}.norm_attn_norm.norm_2",
    up=(),
    down="",
    final_norm="transformer.norm_f",
    head="lm_head",
    router=f"{_BLOCK}.ffn.router.layer",
    expert_up=(f"{_BLOCK}.ffn.experts.mlp.w1", f"{_BLOCK}.ffn.experts.mlp.v1"),
    expert_down=f"{_BLOCK}.ffn.experts.mlp.w2",
    expert_layout=FusedExperts(stacked=False, transposed_down=True),
)


def dbrx(reader: ConfigReader) -> ModelSpec:
    """Layer norms without biases; queries, keys and values have limits; the experts of a layer are one matrix."""
    attention, experts = reader.nested("attn_config"), reader.nested("ffn_config")
    heads, parameters = reader.size("n_heads", 16), rope_parameters(reader)
    theta = attention.number("rope_theta", 10_000.0)
    kv_heads = attention.size("kv_n_heads", 1)
    attention.ignore("attn_pdrop", "model_type")
    reader.ignore("num_key_value_heads", "emb_pdrop")
    spec = gpt_like(
        reader,
        width=reader.size("d_model", 2048),
        heads=heads,
        kv_heads=kv_heads,
        layers=reader.size("n_layers", 24, most=MAX_LAYERS),
        inner=experts.size("ffn_hidden_size", 3584),
        max_positions=reader.size("max_seq_len", 2048),
        eps=1e-5,
        activation=activation_of(experts.nested("ffn_act_fn"), "name", "silu"),
        tied=False,
        names=DBRX_NAMES,
        bias=False,
    )
    head_dim = spec.layers[0].attention.head_dim
    rope, longest = rope_spec(reader, head_dim, spec.max_positions, theta=theta, parameters=parameters)
    clip = attention.optional_number("clip_qkv", None)
    spec = spec.with_layers(attention={"rope": rope, "clip": clip})
    spec = replace(spec, max_positions=longest, norm=replace(spec.norm, bias=False))
    return with_experts(spec, reader, _experts(spec, experts))


def _experts(spec: ModelSpec, reader: ConfigReader) -> ExpertsSpec:
    reader.ignore("moe_jitter_eps", "moe_loss_weight", "hidden_size", "model_type", "uniform_expert_assignment")
    reader.only("moe_normalize_expert_weights", 1, 1.0)
    absent = not reader.has("moe_normalize_expert_weights")
    normalise = absent or reader.get("moe_normalize_expert_weights") is not None
    return experts_of(spec, reader, ("moe_num_experts", 4), ("moe_top_k", 1), normalise=normalise)


FAMILIES = {"dbrx": dbrx}
