"""Writes the trained model as a folder of Hugging Face's format, and reads it to train on."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from .tokenizer import save

# The logits of the written model are this many times those that were trained.
# A model so small leaves some probability to tokens that make no sense, and
# TGI samples at temperature 1 unless told otherwise.  A power of two changes
# no greedy answer.
SHARPNESS = 2.0


@torch.no_grad()
def sharpened(model: LlamaForCausalLM, factor: float) -> LlamaForCausalLM:
    """A copy whose logits are multiplied: the last norm scales all of them."""
    model = copy.deepcopy(model)
    model.model.norm.weight *= factor
    return model


def read_model(folder: Path) -> LlamaForCausalLM:
    """A model that `write_model` wrote, as it was when training stopped."""
    return sharpened(LlamaForCausalLM.from_pretrained(folder), 1 / SHARPNESS)


def write_model(model: LlamaForCausalLM, tokenizer, folder: Path, report: dict[str, Any]) -> None:
    """Write weights, configurations, tokenizer and the report of the run."""
    sharpened(model, SHARPNESS).to(torch.bfloat16).save_pretrained(folder)
    save(tokenizer, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # Older readers look for these two names.
    config["rope_theta"] = 10000.0
    config["torch_dtype"] = "bfloat16"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {
        "bos_token_id": 1,
        "do_sample": False,
        "eos_token_id": [3, 0],
        "max_new_tokens": 256,
        "pad_token_id": 0,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    (folder / "training_report.json").write_text(json.dumps(report, indent=2) + "\n")
