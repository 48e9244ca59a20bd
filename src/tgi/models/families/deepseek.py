"""DeepSeek-V2 and V3, and GLM-4, whose experts are chosen as V3's. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.moe import MOE_NAMES
from tgi.models.families.shared import LLAMA_NAMES, Defaults, experts_of, llama_like, next_token_layers, with_experts
from tgi.models.names import LatentNames, Names
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import ExpertsSpec, LatentSpec, ModelSpec, NormSpec

_ATTENTION = "model.layers.{}.self_attn"
DEEPSEEK_NAMES = replace(
    MOE_NAMES,
    correction="model.layers.{}.mlp.gate.e_score_correction_bias",
    shared_router=None,
    shared_up=tuple(f"model.layers.{{}}.mlp.shared_experts.{part}_proj" for part in ("gate", "up")),
    shared_down="model.layers.{}.mlp.shared_experts.down_proj",
    latent=LatentNames(
        query_down=f"{_ATTENTION}.q_a_proj",
        query_norm=f"{_ATTENTION}.q_a_layernorm",
        query_up=f"{_ATTENTION}.q_b_proj",
        down=f"{_ATTENTION}.kv_a_proj_with_mqa",
        norm=f"{_ATTENTION}.kv_a_layernorm",
        up=f"{_ATTENTION}.kv_b_proj",
    ),
)
GLM_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.gate_up_proj",))
GLM4_NAMES = replace(
    GLM_NAMES,
    attention_post_norm="model.layers.{}.post_self_attn_layernorm",
    feedforward_post_norm="model.layers.{}.post_mlp_layernorm",
)


def deepseek_v2(reader: ConfigReader) -> ModelSpec:
    """Keys and values are kept as latents; experts of some groups, and some that are always there."""
    reader.fixed(scoring_func="softmax", norm_topk_prob=False)
    method = reader.choice("topk_method", "greedy", ("greedy", "group_limited_greedy"))
    spec = _with_latents(reader, reader.flag("mlp_bias", False), adjacent=True)
    experts = _experts(spec, reader, 64, normalise=False, scale=1.0, groups=method == "group_limited_greedy")
    return _after_dense_layers(spec, reader, replace(experts, group_best=1), 0)


def deepseek_v3(reader: ConfigReader) -> ModelSpec:
    """Scores are sigmoids, and a learned number is added to each for the choice."""
    reader.fixed(scoring_func="sigmoid", topk_method="noaux_tc")
    spec = _with_latents(reader, False, adjacent=reader.flag("rope_interleave", True))
    normalise = reader.flag("norm_topk_prob", True)
    experts = _experts(spec, reader, 256, normalise=normalise, scale=2.5, default_groups=(8, 4))
    return _after_dense_layers(spec, reader, replace(experts, scores="sigmoid", correction=True), 3)


def glm(reader: ConfigReader, names: Names = GLM_NAMES) -> ModelSpec:
    """Half of each head turns, in pairs of neighbours; gate and up are one matrix."""
    return llama_like(
        reader,
        Defaults(positions=131_072, head_dim=128, kv_heads=2, partial=0.5, eps=1.5625e-07),
        rope_adjacent=True,
        qkv_bias=reader.flag("attention_bias", True),
        names=names,
    )


def glm4(reader: ConfigReader) -> ModelSpec:
    """GLM-4 with norms also after attention and feed-forward."""
    return glm(reader, GLM4_NAMES)


def glm4_moe(reader: ConfigReader) -> ModelSpec:
    """Half of each head turns; experts as in DeepSeek-V3."""
    spec = llama_like(
        reader,
        Defaults(positions=131_072, head_dim=128, kv_heads=8, partial=0.5, eps=1e-5),
        qkv_bias=reader.flag("attention_bias", False),
        qk_norm="head" if reader.flag("use_qk_norm", False) else None,
        names=DEEPSEEK_NAMES,
    )
    experts = _experts(spec, reader, 128, normalise=reader.flag("norm_topk_prob", True), scale=1.0)
    return _after_dense_layers(spec, reader, replace(experts, scores="sigmoid", correction=True), 1)


def _with_latents(reader: ConfigReader, mlp_bias: bool, *, adjacent: bool) -> ModelSpec:
    bias = reader.flag("attention_bias", False)
    turning, plain = reader.size("qk_rope_head_dim", 64), reader.size("qk_nope_head_dim", 128)
    reader.fixed(qk_head_dim=plain + turning, head_dim=turning)
    reader.ignore("aux_loss_alpha", "seq_aux", "ep_size")  # of training
    spec = llama_like(
        reader,
        Defaults(positions=2048, head_dim=turning),
        rope_adjacent=adjacent,
        attention_out_bias=bias,
        feedforward_bias=mlp_bias,
        names=DEEPSEEK_NAMES,
    )
    own = not reader.has("q_lora_rank") or reader.get("q_lora_rank") is not None
    latent = LatentSpec(
        rank=reader.size("kv_lora_rank", 512),
        query_rank=reader.size("q_lora_rank", 1536) if own else None,
        turning=turning,
        value_dim=reader.size("v_head_dim", 128),
        norm=NormSpec(kind="rms", eps=1e-6),
        bias=bias,
    )
    scale = (plain + turning) ** -0.5 * _score_factor(reader)
    attention = {"head_dim": plain + turning, "kv_heads": 1, "scale": scale, "latent": latent}
    return next_token_layers(spec.with_layers(attention=attention), reader)


def _score_factor(reader: ConfigReader) -> float:
    """What yarn's `mscale_all_dim` multiplies scores with."""
    parameters = rope_parameters(reader)
    all_dim, factor = parameters.get("mscale_all_dim"), parameters.get("factor")
    if not all_dim or not factor or factor <= 1 or reader.override.parameters():
        return 1.0
    return (0.1 * all_dim * math.log(factor) + 1.0) ** 2


def _experts(
    spec: ModelSpec,
    reader: ConfigReader,
    count: int,
    *,
    normalise: bool,
    scale: float,
    groups: bool = True,
    default_groups: tuple[int, int] = (1, 1),
) -> ExpertsSpec:
    """The keys that name experts; `groups`: only those of the best groups are chosen."""
    inner, shared = reader.size("moe_intermediate_size", 1408), reader.get("n_shared_experts", 1)
    own = reader.size("n_group", default_groups[0]), reader.size("topk_group", default_groups[1])
    of_groups, best_groups = own if groups else (1, 1)
    experts = experts_of(
        spec,
        reader,
        ("n_routed_experts", count),
        8,
        inner=inner,
        normalise=normalise,
        beside=inner * reader.size("n_shared_experts", 1) if shared else 0,
        groups=of_groups,
        top_groups=best_groups,
        group_best=2,
        scale=reader.number("routed_scaling_factor", scale),
    )
    size = experts.count // of_groups
    if experts.count % of_groups or best_groups > of_groups or experts.top > best_groups * size or size < 2:
        raise ModelError(
            f"config.json: {experts.top} of {experts.count} experts cannot be chosen from "
            f"{best_groups} of {of_groups} groups"
        )
    return experts


def _after_dense_layers(spec: ModelSpec, reader: ConfigReader, experts: ExpertsSpec, default: int) -> ModelSpec:
    """The same model with experts behind the first layers."""
    reader.only("moe_layer_freq", 1)
    dense = reader.get("first_k_dense_replace", default)
    if not isinstance(dense, int) or dense < 0:
        raise ModelError(f"config.json: `first_k_dense_replace` must be a number of layers, it is {dense!r}")
    return next_token_layers(with_experts(spec, reader, experts, lambda number: number >= dense), reader)


FAMILIES = {"deepseek_v2": deepseek_v2, "deepseek_v3": deepseek_v3, "glm": glm, "glm4": glm4, "glm4_moe": glm4_moe}
