"""Angles of every rope type and the slopes of ALiBi against transformers, from every way of writing the config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.models.checkpoints import make_config
from tgi.errors import ModelError
from tgi.kernels.reference.rope import Rope
from tgi.models.config_reader import RopeOverride
from tgi.models.families.registry import spec_from_config
from tgi.models.families.shared import alibi_slopes

CPU = torch.device("cpu")
SCALINGS: dict[str, dict[str, Any] | None] = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 96},
    "llama3-step": {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
                    "original_max_position_embeddings": 96},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    "yarn-all": {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 200, "beta_fast": 20.0,
                 "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3},
    "yarn-mscale": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64, "mscale": 0.8,
                    "mscale_all_dim": 0.6},
}  # fmt: skip
POSITIONS = torch.tensor([0, 1, 2, 17, 100, 511, 2047, 4095])


def ours(config: dict[str, Any], positions: torch.Tensor, override: RopeOverride | None = None) -> Any:
    rope = spec_from_config(config, override).layers[0].attention.rope
    assert rope is not None
    return Rope(rope, CPU).angles(positions)


def theirs(config: dict[str, Any], positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rotary = LlamaRotaryEmbedding(LlamaConfig(**config))
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), positions[None])
    half = cos.shape[-1] // 2
    return cos[0, :, :half], sin[0, :, :half]


def config_of(scaling: dict[str, Any] | None, style: str) -> dict[str, Any]:
    base = {"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 512}
    if style == "rope_parameters":
        return make_config(
            "llama",
            rope_theta=...,
            rope_parameters={"rope_type": "default", **(scaling or {}), "rope_theta": 5e5},
            **base,
        )
    if style == "type":
        scaling = {("type" if key == "rope_type" else key): value for key, value in (scaling or {}).items()} or None
    return make_config("llama", rope_theta=5e5, rope_scaling=scaling, **base)


@pytest.mark.parametrize("style", ["rope_parameters", "rope_scaling", "type"])
@pytest.mark.parametrize("name", SCALINGS)
def test_same_angles_as_transformers(name: str, style: str) -> None:
    config = config_of(SCALINGS[name], style)
    for got, expected in zip(ours(config, POSITIONS), theirs(config, POSITIONS), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)  # float32 angles of thousands of radians
    if name != "default":
        plain = ours(config_of(None, style), POSITIONS)
        assert not torch.allclose(ours(config, POSITIONS)[0], plain[0], atol=1e-2)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_scaling_that_was_added_to_a_config_of_transformers_5(key: str) -> None:
    """It names its type in the older way or the newer one; the base stays."""
    base = {"rope_theta": 5e5, "rope_type": "default"}
    added = make_config("llama", rope_parameters=base, rope_scaling={key: "linear", "factor": 2.0})
    same = make_config("llama", rope_theta=5e5, rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert spec_from_config(added).layers[0].attention.rope == spec_from_config(same).layers[0].attention.rope
    with pytest.raises(ModelError, match="rope type 'unheard of' is not supported"):
        spec_from_config(make_config("llama", rope_parameters=base, rope_scaling={key: "unheard of"}))


def test_dynamic_follows_each_row() -> None:
    """Within the original context as transformers; beyond it as transformers when decoding that position."""
    config = config_of({"rope_type": "dynamic", "factor": 3.0}, "rope_scaling")
    inside = torch.arange(512)
    for got, expected in zip(ours(config, inside), theirs(config, inside), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    for position in (512, 700, 1500):
        row = torch.tensor([position])
        for got, expected in zip(ours(config, row), theirs(config, row), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-4)
    assert spec_from_config(config).max_positions == 1536


def test_longest_sequence() -> None:
    assert spec_from_config(config_of(SCALINGS["linear"], "type")).max_positions == 512
    assert spec_from_config(config_of(SCALINGS["llama3"], "type")).max_positions == 512
    stretched = config_of({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, "type")
    assert spec_from_config(stretched).max_positions == 2048


@pytest.mark.parametrize(
    ("scaling", "goes_on"),
    [("default", False), ("linear", True), ("llama3", False), ("yarn", False), ("dynamic", True)],
)
def test_which_positions_go_on(scaling: str, goes_on: bool) -> None:
    parameters = {"rope_type": "dynamic", "factor": 2.0} if scaling == "dynamic" else SCALINGS[scaling]
    for style in ("rope_parameters", "rope_scaling", "type"):
        assert spec_from_config(config_of(parameters, style)).positions_go_on is goes_on
    assert spec_from_config(config_of(None, "type"), RopeOverride("dynamic", 2.0)).positions_go_on
    assert not spec_from_config(make_config("gpt2")).positions_go_on
    assert spec_from_config(make_config("bloom")).positions_go_on


@pytest.mark.parametrize("parameter", [{"attn_factor": 0.5}, {"extrapolation_factor": 0}, {"finetuned": "yes"}])
def test_knobs_of_yarn_that_are_turned(parameter: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"unsupported parameters: {next(iter(parameter))}"):
        spec_from_config(config_of({**(SCALINGS["yarn"] or {}), **parameter}, "type"))


def test_override_by_flags() -> None:
    plain = config_of(None, "rope_scaling")
    scaled = config_of({"rope_type": "linear", "factor": 2.0}, "rope_scaling")
    override = RopeOverride(factor=2.0)  # a factor alone means linear
    assert torch.equal(ours(plain, POSITIONS, override)[0], ours(scaled, POSITIONS)[0])
    assert spec_from_config(plain, override).max_positions == 1024
    assert spec_from_config(plain, RopeOverride("dynamic", 2.0)).max_positions == 1024
    assert torch.equal(ours(plain, POSITIONS, RopeOverride("linear"))[0], ours(plain, POSITIONS)[0])
    with pytest.raises(ModelError, match="gpt2 has learned positions"):
        spec_from_config(make_config("gpt2"), override)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "longrope needs `short_factor`, a list of 8 numbers"),
        ({"rope_type": "mrope"}, "rope type 'mrope' is not supported"),
        ({"rope_type": "linear"}, "lacks `factor`"),
        ({"rope_type": "linear", "factor": -1}, "`factor` must be a positive number"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "unsupported parameters: beta_fast"),
        ({"rope_type": "default", "mrope_section": [1, 2]}, "unsupported parameters: mrope_section"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 3.0}, "high_freq_factor"),
        ("linear", "must be an object"),
    ],
)
def test_refusals(scaling: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        spec_from_config(make_config("llama", rope_scaling=scaling))


@pytest.mark.parametrize("name", SCALINGS)
def test_part_of_a_head(name: str) -> None:
    """GPT-NeoX: the exponents are those of a head as small as the part that turns."""
    scaling = {"rope_scaling": SCALINGS[name]} if SCALINGS[name] else {}
    config = make_config("gpt_neox", hidden_size=96, rotary_pct=0.5, rotary_emb_base=3000, **scaling)
    rotary = GPTNeoXRotaryEmbedding(GPTNeoXConfig(**config))
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), POSITIONS[None])
    got = ours(config, POSITIONS)
    assert got[0].shape == (len(POSITIONS), 8)
    torch.testing.assert_close(got[0], cos[0, :, :8], rtol=0, atol=2e-4)
    torch.testing.assert_close(got[1], sin[0, :, :8], rtol=0, atol=2e-4)


def test_alibi_slopes() -> None:
    for heads in (*range(1, 41), 64, 71, 112, 128):
        bias = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)  # [heads, 1, 2]: 0 and the slope
        torch.testing.assert_close(torch.tensor(alibi_slopes(heads)), bias[:, 0, 1])
    assert list(alibi_slopes(8)) == [2.0**-i for i in range(1, 9)]
