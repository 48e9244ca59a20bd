"""Reads config.json so that nothing in it is passed over in silence.

Owns the bookkeeping: a family consumes the keys it honours and refuses by name the values it does not;
`finish` then knows which keys nobody looked at. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tgi.errors import ModelError
from tgi.untrusted import printable, read_json

logger = logging.getLogger(__name__)
Name = TypeVar("Name", bound=str)

HARMLESS = frozenset(  # a string is easier to keep sorted than seventy literals
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled _model_name_or_path
    _name_or_path activation_dropout architectures attention_dropout attn_implementation attn_pdrop auto_map
    bad_words_ids begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward classifier_dropout
    decoder_layerdrop
    decoder_start_token_id diversity_penalty do_sample dropout dropout_rate early_stopping embd_pdrop embed_dropout
    embedding_dropout encoder_layerdrop encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task for_llm_compressor
    forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout id2label init_std
    initializer_factor initializer_range is_decoder is_llama_config label2id layerdrop length_penalty license max_length
    max_sequence_length min_length model_type n_ctx name_or_path no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp
    problem_type remove_invalid_values repetition_penalty resid_dropout resid_pdrop residual_dropout return_dict
    return_dict_in_generate sep_token_id summary_activation summary_first_dropout summary_proj_to_labels
    summary_type summary_use_proj suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class
    top_k top_p torchscript transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
    unsloth_version use_bfloat16 use_cache
    """.split()  # noqa: SIM905
)
"""Keys that do not change what the model computes: training, generation defaults, bookkeeping.

`pretraining_tp` is in how many slices transformers takes a matrix product, to repeat the rounding of training.
"""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "alibi": (False,),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "cross_attention_hidden_size": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (False,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "mup_width_multiplier": (None, 1, 1.0),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "parallel_attn": (False,),
    "partial_rotary_factor": (None, 1, 1.0),
    "pruned_heads": (None, {}),
    "qk_layernorm": (False,),
    "query_pre_attn_scalar": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "rope_interleaved": (False,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False,),
    "use_qk_norm": (False,),
}
"""Keys of other models' axes: accepted where they say "not used", refused by name otherwise."""


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory as a plain dict. Raises ModelError."""
    file = path / "config.json"
    if not os.path.lexists(file):
        raise ModelError(f"{path} is not a checkpoint: it has no config.json")
    config = read_json(file)
    if not isinstance(config, dict):
        raise ModelError(f"{printable(file)} is not a JSON object")
    return config


@dataclass(frozen=True, slots=True)
class RopeOverride:
    """The launcher's `--rope-scaling` and `--rope-factor`: takes the place of the checkpoint's scaling."""

    kind: str | None = None
    factor: float | None = None

    def parameters(self) -> dict[str, Any] | None:
        """As TGI reads the flags: a factor alone means linear, a kind alone factor 1."""
        if self.kind is None and self.factor is None:
            return None
        return {"rope_type": self.kind or "linear", "factor": self.factor or 1.0}


class ConfigReader:
    """Typed access to config.json that remembers what was asked for, and the flags that change it."""

    def __init__(self, config: dict[str, Any], override: RopeOverride | None = None) -> None:
        self._config = config
        self.override = override or RopeOverride()
        self._seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value; null counts as absent."""
        self._seen.add(key)
        value = self._config.get(key)
        return default if value is None else value

    def has(self, key: str) -> bool:
        """Whether the config has the key, even with null."""
        return key in self._config

    def size(self, key: str, default: int | None = None, *, most: int = (1 << 31) - 1) -> int:
        """A positive integer; required if there is no default. most: what larger ones are refused for."""
        value = self.get(key, default)
        if value is None:
            raise ModelError(f"config.json lacks `{key}`")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise ModelError(f"config.json: `{key}` must be a positive integer, it is {shown(value)}")
        if value > most:
            raise ModelError(f"config.json: `{key}` must be at most {most}, it is {value}")
        return value

    def optional_size(self, key: str, default: int | None = None) -> int | None:
        """The same where null means none at all, and only an absent key the default."""
        return default if not self.has(key) else None if self.get(key) is None else self.size(key)

    def ignore(self, *keys: str) -> None:
        """These keys change nothing for this model."""
        self._seen.update(keys)

    def nested(self, key: str) -> ConfigReader:
        """The object under this key, whose keys nobody else looks after."""
        given = self.get(key, {})
        if not isinstance(given, dict):
            raise ModelError(f"config.json: `{key}` must be an object, it is {given!r}")
        return ConfigReader(given)

    def number(self, key: str, default: float) -> float:
        """A positive, finite number."""
        return positive_number(self.get(key, default), key)

    def optional_number(self, key: str, default: float | None) -> float | None:
        """The same where null means none at all, and only an absent key the default."""
        value = self.get(key)
        if value is None:
            value = None if self.has(key) else default
        return None if value is None else positive_number(value, key)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ModelError(f"config.json: `{key}` must be true or false, it is {shown(value)}")
        return value

    def choice(self, key: str, default: Name, allowed: Iterable[Name]) -> Name:
        value = self.get(key, default)
        names = sorted(allowed)
        if value not in names:
            raise ModelError(f"config.json: `{key}` {shown(value)} is not supported; supported are {', '.join(names)}")
        return value

    def only(self, key: str, *allowed: Any) -> None:
        """The key may be absent or null or have one of these values; the model computes nothing else."""
        value = self.get(key)
        if value is not None and not any(value == item and type(value) is type(item) for item in allowed):
            raise ModelError(f"config.json: `{key}` = {json.dumps(value)} changes the model in a way not supported")

    def fixed(self, **values: Any) -> None:
        """The same for several keys, each with the one value that the model computes."""
        for key, value in values.items():
            self.only(key, value)

    def finish(self, *, warn: bool = True) -> None:
        """Refuse other models' axes, and, with `warn`, name in the log the keys that nobody knows."""
        for key, allowed in NEUTRAL.items():
            if key in self._config and key not in self._seen:
                self.only(key, *allowed)
        given = {key for key, value in self._config.items() if value is not None}
        unknown = sorted(given - self._seen - HARMLESS)
        if unknown and warn:
            logger.warning(
                "config.json has keys unknown to this server, which it does not use: %s",
                ", ".join(map(printable, unknown)),
            )


def positive_number(value: Any, key: str) -> float:
    """`value` as a float if it is a positive, finite number; ModelError naming `key` otherwise."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    if not good:
        raise ModelError(f"config.json: `{key}` must be a positive number, it is {shown(value)}")
    return float(value)


def shown(value: Any) -> str:
    """A value of a file for a message, as Python writes it."""
    return printable(repr(value), 100)
