"""Language models that are published beside parts for images or sound: served as if they were alone."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.models.driver import Driver
from tests.models.test_parity import BACKENDS, TOLERANCE, assert_close, backend_named
from tests.models.tiny import CASES, VOCAB, tiny_config
from tgi.errors import ModelError
from tgi.models.build.decoder import build
from tgi.models.families.registry import UnknownFamilyError, read_spec, spec_from_config
from tgi.models.inventory import compare, read_stored
from tgi.models.loader import load_model
from tgi.models.text_part import WITH_OTHER_PARTS

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
PARTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma3": ("gemma3", "gemma3", {"vision_config": VISION, "mm_tokens_per_image": 4}),
    "gemma4": ("gemma4", "gemma4", {}),
    "llama4": (
        "llama4",
        "llama4",
        {
            "vision_config": {
                **VISION,
                "intermediate_size": 128,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            }
        },
    ),
    "mistral3": ("mistral3", "mistral", {"vision_config": {**VISION, "model_type": "pixtral"}}),
    "ministral3": ("mistral3", "ministral3", {"vision_config": {**VISION, "model_type": "pixtral"}}),
    "qwen3_5": (
        "qwen3_5",
        "qwen3_5",
        {
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 64,
            }
        },
    ),
}
"""Name -> (`model_type`, the case of `tests.models.tiny` that its language model is, other keys)."""


def text_config(case: str) -> dict[str, Any]:
    if case in CASES:
        # A cap of Gemma 3's logits, which no published one has, is not applied by the class of the whole.
        changes = {"final_logit_softcapping": None} if case == "gemma3" else {}
        return tiny_config(case, **changes).to_dict()
    config = transformers.MistralConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, sliding_window=24, max_position_embeddings=512,
    )  # fmt: skip
    return config.to_dict()


def write(path: Path, name: str, seed: int, **changes: Any) -> Any:
    """A checkpoint with all its parts, and transformers' model of it."""
    model_type, case, others = PARTS[name]
    config = transformers.AutoConfig.for_model(model_type, text_config=text_config(case), **others, **changes)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForImageTextToText.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * 0.2
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("name", PARTS)
def test_logits_are_those_of_the_whole_model(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{name}: seed {seed}")
    oracle = write(tmp_path, name, seed)
    spec = read_spec(tmp_path)
    inventory = compare(read_stored(tmp_path, spec.names), spec, build(spec))
    inventory.check()
    assert bool(inventory.ignored) == (name != "gemma4"), "which is written without its other parts"
    rng = random.Random(seed)
    ids = [rng.randrange(3, VOCAB - 20) for _ in range(90)]
    with torch.inference_mode():
        whole = oracle.language_model if name == "llama4" else oracle  # its own class fails on texts
        expected = whole(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    for kind in BACKENDS:
        backend = backend_named(kind)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="tgi.models"):
            loaded = load_model(tmp_path, None, backend)
        assert [record.levelno for record in caplog.records] == [logging.INFO], caplog.text
        assert "Of the checkpoint the language model is served" in caplog.text
        assert loaded.model_type == text_config(PARTS[name][1])["model_type"]
        for chunk in (None, 7):
            assert_close(Driver(loaded, backend).run(ids, chunk=chunk), expected, TOLERANCE)


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "gemma-3-4b-it": (
        {"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
         "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
         "model_type": "gemma3", "text_config": {
             "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
             "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
         "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "vision_config": {
             "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
             "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False}},
        3_880_263_168,
    ),
    "Mistral-Small-3.1-24B": (
        {"architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10, "model_type": "mistral3",
         "multimodal_projector_bias": False, "projector_hidden_act": "gelu", "spatial_merge_size": 2, "text_config": {
             "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
             "initializer_range": 0.02, "intermediate_size": 32768, "max_position_embeddings": 131072,
             "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
             "rms_norm_eps": 1e-05, "rope_theta": 1e9, "sliding_window": None, "use_cache": True,
             "vocab_size": 131072},
         "torch_dtype": "bfloat16", "vision_config": {"model_type": "pixtral"}, "vision_feature_layer": -1},
        23_572_403_200,
    ),
    "Ministral-3-3B": (
        {"architectures": ["Mistral3ForConditionalGeneration"], "dtype": "bfloat16", "image_token_index": 10,
         "model_type": "mistral3", "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
         "spatial_merge_size": 2, "text_config": {
             "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 3072,
             "initializer_range": 0.02, "intermediate_size": 9216, "max_position_embeddings": 262144,
             "model_type": "ministral3", "num_attention_heads": 32, "num_hidden_layers": 26, "num_key_value_heads": 8,
             "rms_norm_eps": 1e-05, "rope_parameters": {
                 "beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1, "mscale": 1.0,
                 "mscale_all_dim": 1.0, "original_max_position_embeddings": 16384, "rope_theta": 1e6,
                 "rope_type": "yarn", "type": "yarn"},
             "sliding_window": None, "tie_word_embeddings": True, "use_cache": True, "vocab_size": 131072},
         "vision_config": {"model_type": "pixtral"}, "vision_feature_layer": -1},
        3_429_006_336,
    ),
    "Llama-4-Scout-17B-16E": (
        {"architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080, "eoi_token_index": 200081,
         "image_token_index": 200092, "model_type": "llama4", "text_config": {
             "_attn_implementation_autoset": True, "attention_bias": False, "attention_chunk_size": 8192,
             "attention_dropout": 0.0, "bos_token_id": 200000, "eos_token_id": [200001, 200007, 200008],
             "for_llm_compressor": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
             "initializer_range": 0.02, "interleave_moe_layer_step": 1, "intermediate_size": 8192,
             "intermediate_size_mlp": 16384, "max_position_embeddings": 10485760, "model_type": "llama4_text",
             "no_rope_layers": [], "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
             "num_key_value_heads": 8, "num_local_experts": 16, "output_router_logits": False,
             "pad_token_id": 200018, "rms_norm_eps": 1e-05, "rope_scaling": {
                 "factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0,
                 "original_max_position_embeddings": 8192, "rope_type": "llama3"},
             "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
             "torch_dtype": "bfloat16", "use_cache": True, "use_qk_norm": True, "vocab_size": 202048},
         "torch_dtype": "bfloat16", "vision_config": {"model_type": "llama4_vision_model"}},
        107_769_861_120,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """No key is named in a warning, and the language model has as many parameters as transformers gives it."""
    config, parameters = PUBLISHED[name]
    with caplog.at_level(logging.WARNING):
        spec = spec_from_config(config)
    assert not caplog.records
    assert build(spec).parameters == parameters and spec.dtype == "bfloat16"
    with torch.device("meta"):
        made = transformers.AutoConfig.for_model(**config).get_text_config()
        assert sum(one.numel() for one in transformers.AutoModelForCausalLM.from_config(made).parameters()) in (
            parameters,
            parameters + spec.vocab_size * spec.hidden_size,  # where only the whole says that the head is the embedding
        )


@pytest.mark.parametrize("model_type", WITH_OTHER_PARTS)
def test_keys_that_are_left_out(model_type: str) -> None:
    """What a language model's config lacks is what transformers takes for it."""
    usual = transformers.AutoConfig.for_model(model_type).get_text_config().to_dict()
    assert {key: usual[key] for key in WITH_OTHER_PARTS[model_type]} == WITH_OTHER_PARTS[model_type]


def test_what_is_said_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = PUBLISHED["gemma-3-4b-it"][0]
    with caplog.at_level(logging.INFO):
        spec_from_config({**config, "zz_new_axis": 3})
    assert [record.getMessage() for record in caplog.records] == [
        "config.json has keys unknown to this server, which it does not use: zz_new_axis",
        "Of the checkpoint the language model is served, gemma3_text; not its vision parts",
    ]
    with pytest.raises(ModelError, match="is not a language model"):
        spec_from_config({**config, "architectures": ["Gemma3ForSequenceClassification"]})
    with pytest.raises(UnknownFamilyError, match="Unsupported model type zz_text"):
        spec_from_config({**config, "text_config": {**config["text_config"], "model_type": "zz_text"}})


def test_a_tensor_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    """Among those of the language model; what other parts have is not looked at."""
    from safetensors.torch import load_file, save_file

    write(tmp_path, "mistral3", 1)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "vision_tower.zz": torch.zeros(3)}, file)
    load_model(tmp_path, None, backend_named("reference"))
    save_file({**tensors, "language_model.model.zz": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match=r"does not use: model\.zz"):
        load_model(tmp_path, None, backend_named("reference"))


def test_inspect(tmp_path: Path) -> None:
    from tests.commands.test_inspect import found

    write(tmp_path, "mistral3", 1)
    config = json.loads((tmp_path / "config.json").read_text())
    report = found(tmp_path)
    assert config["model_type"] == report.model_type == "mistral3" and report.title == "Mistral"
    assert report.route == "native"
    assert report.why == "its language model, Mistral, is one of the native families; not served: vision"
    assert report.tensors is not None and report.tensors.missing == report.tensors.unused == []
    assert report.tensors.ignored_count == report.tensors.stored - report.tensors.needed > 0
    assert report.bits_per_weight == 32
