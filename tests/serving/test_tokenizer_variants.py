"""Ids equal those of transformers' AutoTokenizer, wherever a checkpoint's files list their special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from tests import small_tokenizers as build
from tgi.models.families.registry import FAMILIES
from tgi.models.text_part import WITH_OTHER_PARTS
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_library import TokenizerError
from tgi.serving.tokenizer_types import GENERIC_TYPES, OWN_CLASS

TEXTS = (
    "the quick fox",
    " the fox</s> <s>x",
    "<|user|>hello <|end|>\n<|assistant|>the<image>x<pad>",
    "<tool_call> it<tool_call>  <|end|> <|extra|>é 🎉<mask>",
    "the quickFox's 1234 foxes' DON'T/\r\n",
    "ab <|user|>ab<|end|>  ab\n<|end_of_x|><|endoftext|>",
    "",
)
NAMES = ["<|user|>", "<|end|>", "<|assistant|>"]


def token(text: str, **flags: Any) -> dict[str, Any]:
    """A token as transformers writes it into tokenizer_config.json."""
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": text, **plain, **flags}


def bare(text: str) -> dict[str, Any]:
    """A token as transformers writes it into special_tokens_map.json."""
    return {key: value for key, value in token(text).items() if key != "special"}


def typed(text: str, **flags: Any) -> dict[str, Any]:
    return {"__type": "AddedToken", **token(text, **flags)}


def decoder_of(fast: FastTokenizer, *more: dict[str, Any], first: int | None = None) -> dict[str, Any]:
    """`added_tokens_decoder`: what tokenizer.json holds, and more."""
    stored = {str(id): json.loads(json.dumps(t.__getstate__())) for id, t in fast.get_added_tokens_decoder().items()}
    start = fast.get_vocab_size() if first is None else first
    return stored | {str(start + number): one for number, one in enumerate(more)}


LISTED = build.byte_level()
CONFIGS: dict[str, dict[str, Any]] = {
    "additional": {"additional_special_tokens": NAMES},
    "additional, as objects": {"additional_special_tokens": [typed(name) for name in NAMES]},
    "extra": {"extra_special_tokens": NAMES},
    "extra, as roles": {"extra_special_tokens": {"image_token": "<image>", "end_token": "<|end|>"}},
    "extra and additional": {"extra_special_tokens": ["<|end|>"], "additional_special_tokens": NAMES},
    "extra is null": {"extra_special_tokens": None, "additional_special_tokens": NAMES},
    "extra as roles, and additional": {
        "extra_special_tokens": {"image_token": "<image>"}, "additional_special_tokens": NAMES
    },
    "a role of the model's own": {"image_token": "<image>", "boi_token": typed("<|user|>")},
    "pad": {"pad_token": "<pad>"},
    "pad as an object": {"pad_token": typed("<pad>", lstrip=True)},
    "pad and mask": {"pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>"},
    "decoder": {"added_tokens_decoder": decoder_of(LISTED, *(token(name) for name in NAMES))},
    "decoder with flags": {
        "added_tokens_decoder": decoder_of(
            LISTED, token("<|user|>", rstrip=True), token("<|end|>", lstrip=True), token("<image>", normalized=True)
        )
    },
    "decoder with plain tokens": {"added_tokens_decoder": decoder_of(LISTED, token("<image>", special=False))},
    "decoder with a gap": {"added_tokens_decoder": decoder_of(LISTED, *(token(name) for name in NAMES), first=400)},
    "decoder out of order": {"added_tokens_decoder": dict(reversed(decoder_of(LISTED, *map(token, NAMES)).items()))},
    "decoder alone": {"added_tokens_decoder": {"350": token("<|end|>"), "351": token("<|user|>")}},
    "decoder and additional": {
        "added_tokens_decoder": decoder_of(LISTED, token("<|end|>")),
        "additional_special_tokens": NAMES,
        "pad_token": "<pad>",
    },
    "single words": {"additional_special_tokens": [typed("ab", single_word=True), typed("<|end|>")]},
    "a word of the vocabulary": {"additional_special_tokens": ["the", "fox"]},
    "one within another": {"additional_special_tokens": ["<|end|>", "<|end_of_x|>", "<|end"]},
    "split": {"split_special_tokens": True, "additional_special_tokens": NAMES},
}  # fmt: skip
MAPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "additional in the map": ({}, {"additional_special_tokens": NAMES}),
    "extra in the map": ({"extra_special_tokens": ["<image>"]}, {"extra_special_tokens": [*NAMES, bare("<mask>")]}),
    "roles in the map": ({}, {"pad_token": token("<pad>"), "image_token": "<image>"}),
    "extra roles in the map": ({}, {"extra_special_tokens": {"image_token": "<image>"}}),
    "the map goes before the config": ({"pad_token": "<|end|>"}, {"pad_token": "<pad>"}),
    "the map yields to a decoder": (
        {"added_tokens_decoder": decoder_of(LISTED)},
        {"pad_token": "<pad>", "additional_special_tokens": NAMES},
    ),
    "both list additional": ({"additional_special_tokens": ["<image>"]}, {"additional_special_tokens": NAMES}),
}
LISTS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "added": ({}, {"<|user|>": 341, "<|end|>": 342}),
    "added with roles": (
        {"pad_token": "<pad>", "additional_special_tokens": ["<|end|>"]}, {"<pad>": 342, "<|end|>": 341}
    ),
    "added with roles as objects": ({"pad_token": typed("<pad>")}, {"<pad>": 341}),
    "added yields to a decoder": ({"added_tokens_decoder": decoder_of(LISTED)}, {"<|user|>": 341}),
}  # fmt: skip
MAKERS = {"byte-level": build.byte_level, "sentencepiece": build.sentencepiece, "word-piece": build.word_piece}


def byte_fallback(prepend: bool = True, extra: bool = True) -> FastTokenizer:
    """BPE of Llama 2's kind, with its normaliser that puts a space before each piece between special tokens."""
    fast = FastTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    fast.normalizer = normalizers.Sequence(steps if prepend else steps[1:])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    fast.train_from_iterator([build.WORDS] * 3, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    state = json.loads(fast.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    fast = FastTokenizer.from_str(json.dumps(state))
    fast.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if extra:
        fast.add_special_tokens(["<|user|>"])
        fast.add_tokens([AddedToken("<|end|>", normalized=False), AddedToken("<image>", normalized=True)])
    return fast


def write(path: Path, fast: FastTokenizer, model_type: str = "llama", **config: Any) -> Path:
    named = {} if fast.token_to_id("<s>") is None else {"bos_token": "<s>", "eos_token": "</s>"}
    build.write_checkpoint(
        path, fast, **({"bos_token": None, "eos_token": None, "chat_template": None} | named | config)
    )
    stated = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in stated.items() if v is not None or k in config})
    )
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


def assert_equal(path: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    reference, ours = AutoTokenizer.from_pretrained(path), Tokenizer.load(path)
    for text in TEXTS:
        for special in (True, False):
            try:
                ids = reference(text, add_special_tokens=special)["input_ids"]
            except Exception:  # a class whose unknown token is not in the vocabulary
                with pytest.raises(TokenizerError):
                    ours.encode(text, add_special_tokens=special)
                continue
            assert ours.encode(text, add_special_tokens=special) == ids, (text, reference.convert_ids_to_tokens(ids))
            assert ours.decode(ids, True) == reference.decode(ids, True, clean_up_tokenization_spaces=False)
    assert ours.named_tokens == reference.special_tokens_map
    assert {reference.convert_tokens_to_ids(name) for name in reference.special_tokens_map.values()} <= ours.special_ids
    return ours


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_tokens_of_the_config(tmp_path, make, config):
    assert_equal(write(tmp_path, make(), **config))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize(("config", "mapped"), MAPS.values(), ids=MAPS.keys())
def test_tokens_of_the_map(tmp_path, make, config, mapped):
    write(tmp_path, make(), **config)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(mapped))
    assert_equal(tmp_path)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize(("config", "listed"), LISTS.values(), ids=LISTS.keys())
def test_tokens_of_the_list(tmp_path, make, config, listed):
    write(tmp_path, make(), **config)
    (tmp_path / "added_tokens.json").write_text(json.dumps(listed))
    assert_equal(tmp_path)


CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {"tokenizer_class": "LlamaTokenizer"}),
    "LlamaFast": ("llama", {"tokenizer_class": "LlamaTokenizerFast"}),
    "Llama, legacy": ("llama", {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    "Llama, legacy is null": ("llama", {"tokenizer_class": "LlamaTokenizer", "legacy": None}),
    "Llama without a space": ("llama", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}),
    "Llama with more tokens": (
        "llama", {"tokenizer_class": "LlamaTokenizer", "additional_special_tokens": NAMES, "pad_token": "<pad>"}
    ),
    "Llama, null roles": ("llama", {"tokenizer_class": "LlamaTokenizer", "unk_token": None, "bos_token": None}),
    "Llama for mistral": ("mistral", {"tokenizer_class": "LlamaTokenizer"}),
    "Llama for qwen2": ("qwen2", {"tokenizer_class": "LlamaTokenizer"}),
    "Llama for gemma2": ("gemma2", {"tokenizer_class": "LlamaTokenizer"}),
    "Llama for gpt_neox": ("gpt_neox", {"tokenizer_class": "LlamaTokenizerFast"}),
    "GPT-2 for llama": ("llama", {"tokenizer_class": "GPT2Tokenizer"}),
    "GPT-2": ("gpt2", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}),
    "GPT-2 without a word": ("gpt2", {}),
    "GPT-2, fast": ("gpt2", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "NeoX for llama": ("llama", {"tokenizer_class": "GPTNeoXTokenizer"}),
    "NeoX": ("gpt_neox", {}),
    "Qwen2": ("qwen2", {"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": NAMES}),
    "Qwen2, fast": ("qwen2", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "Qwen2 for llama": ("llama", {"tokenizer_class": "Qwen2Tokenizer"}),
    "Gemma": ("gemma2", {"tokenizer_class": "GemmaTokenizer"}),
    "Gemma without a word": ("gemma2", {"pad_token": "<pad>"}),
    "Gemma, fast": ("gemma2", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "Code Llama": ("llama", {"tokenizer_class": "CodeLlamaTokenizer"}),
    "Code Llama with more": (
        "llama", {"tokenizer_class": "CodeLlamaTokenizerFast", "additional_special_tokens": NAMES}
    ),
    "Code Llama without a space": ("llama", {"tokenizer_class": "CodeLlamaTokenizer", "add_prefix_space": False}),
    "Cohere": ("cohere", {}),
    "Cohere with a space": ("cohere2", {"tokenizer_class": "CohereTokenizerFast", "add_prefix_space": True}),
    "Roberta": ("bart", {}),
    "Roberta for llama": ("llama", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
    "Qwen3": ("qwen3", {}),
    "Qwen3.5": ("qwen3_5_text", {"extra_special_tokens": NAMES}),
    "GPT-2 for granite": ("granite", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
    "Llama for phi3": ("phi3", {"tokenizer_class": "LlamaTokenizer", "legacy": False}),
    "Llama for mixtral": ("mixtral", {"tokenizer_class": "LlamaTokenizer"}),
    "Phi": ("phi", {}),
    "Bloom": ("bloom", {"tokenizer_class": "BloomTokenizerFast", "pad_token": "<pad>"}),
    "fast": ("llama", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "backend": ("llama", {"tokenizer_class": "TokenizersBackend"}),
    "unknown": ("llama", {"tokenizer_class": "HomemadeTokenizer"}),
}  # fmt: skip


@pytest.mark.parametrize("make", [byte_fallback, build.byte_level], ids=["byte fallback", "byte-level"])
@pytest.mark.parametrize(("model_type", "config"), CLASSES.values(), ids=CLASSES.keys())
def test_classes(tmp_path, make, model_type, config):
    assert_equal(write(tmp_path, make(), model_type, **config))


@pytest.mark.parametrize(
    "config", [{}, {"added_tokens_decoder": decoder_of(byte_fallback(extra=False), token("<|end|>"))}]
)
@pytest.mark.parametrize("make", [build.sentencepiece, build.word_piece, lambda: byte_fallback(prepend=False)])
def test_llama_of_other_vocabularies(tmp_path, make, config):
    assert_equal(write(tmp_path, make(), tokenizer_class="LlamaTokenizer", **config))


@pytest.mark.parametrize(
    ("words", "version"), [("ByteLevel", "4.50.0"), ("Metaspace", None), ("Sequence", "4.57.1"), ("Sequence", "5.1")]
)
def test_mistrals_pattern_is_mended(tmp_path, words, version):
    fast = build.byte_level()
    state = json.loads(fast.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {f"filler{number}": len(vocabulary) + 1000 + number for number in range(100_001)}
    fast = FastTokenizer.from_str(json.dumps(state))
    each = {
        "ByteLevel": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "Metaspace": pre_tokenizers.Metaspace(),
        "Sequence": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{L}+|."), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        ),
    }
    fast.pre_tokenizer = each[words]
    write(tmp_path, fast, "mistral", fix_mistral_regex=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral", "transformers_version": version}))
    assert_equal(tmp_path)


def test_classes_of_model_types_are_those_of_transformers():
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    for model_type in (*FAMILIES, *WITH_OTHER_PARTS):
        named = TOKENIZER_MAPPING_NAMES.get(model_type)
        generic = named in ("TokenizersBackend", "MistralCommonBackend")
        assert OWN_CLASS.get(model_type) == (None if generic else named), model_type
        assert (model_type in GENERIC_TYPES) == generic, model_type
