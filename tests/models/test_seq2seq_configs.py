"""What configs of encoder-decoder models are refused for, and what their generation_config.json says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tests.models.seq2seq import CASES, VOCAB
from tgi.errors import ModelError
from tgi.models.decoder_start import decoder_ids, never_generated, not_done
from tgi.models.families.registry import spec_from_config


def config_of(name: str) -> dict[str, Any]:
    model_type, values = CASES[name]
    config = AutoConfig.for_model(model_type, **{"vocab_size": VOCAB, **values})
    return json.loads(config.to_json_string(use_diff=False)) | values


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("t5", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel is not a language model"),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, "is not a language model"),
        ("bart", {"architectures": ["BartForCausalLM"]}, "is not a language model"),
        ("t5", {"feed_forward_proj": "gated-mish"}, "`is_gated_act`"),
        ("t5", {"feed_forward_proj": "mish", "dense_act_fn": "mish"}, "`feed_forward_proj` 'mish' is not supported"),
        ("t5", {"feed_forward_proj": 3}, "`feed_forward_proj` must be a text"),
        ("t5", {"is_encoder_decoder": False}, "`is_encoder_decoder`"),
        ("t5", {"decoder_start_token_id": None, "pad_token_id": None}, "names no `decoder_start_token_id`"),
        ("t5", {"decoder_start_token_id": "x"}, "`decoder_start_token_id` must be a token id, it is 'x'"),
        ("bart", {"forced_bos_token_id": [1]}, "`forced_bos_token_id` must be a token id, it is [1]"),
        ("bart", {"decoder_attention_heads": 6}, "attention heads of different number or size"),
        ("bart", {"normalize_before": True}, "`normalize_before`"),
        ("mbart", {"add_final_layer_norm": False}, "`add_final_layer_norm`"),
        ("m2m_100", {"pad_token_id": "a"}, "`pad_token_id` must be a token id, it is 'a'"),
    ],
)
def test_refused_by_name(name: str, changes: dict[str, Any], message: str) -> None:
    config = config_of(name)
    spec_from_config(config)
    with pytest.raises(ModelError, match=re.escape(message)):
        spec_from_config(config | changes)


def test_generation_config_decides_how_answers_begin(tmp_path: Path) -> None:
    spec = spec_from_config(config_of("bart") | {"forced_bos_token_id": 0})
    (tmp_path / "config.json").write_text(json.dumps({"bad_words_ids": [[4]], "num_beams": 4}))
    assert decoder_ids(tmp_path, spec) == (2, 0)
    assert never_generated(tmp_path) == (4,) and not_done(tmp_path) == ["num_beams = 4"]
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"decoder_start_token_id": 5, "bad_words_ids": [[7], [8, 9], 3]}))
    assert decoder_ids(tmp_path, spec) == (5,)
    assert never_generated(tmp_path) == (7,) and not not_done(tmp_path)
    file.write_text(json.dumps({"forced_bos_token_id": VOCAB}))
    with pytest.raises(ModelError, match=f"begin with token {VOCAB}, the model has {VOCAB}"):
        decoder_ids(tmp_path, spec)
