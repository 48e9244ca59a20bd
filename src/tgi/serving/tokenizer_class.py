"""`tokenizer_class`: of some, transformers 5 takes only the vocabulary from tokenizer.json and builds the rest anew.

The ids of a text then come out as the class has it, whatever tokenizer.json says of normalising and splitting. Owns
which class that is (`AutoTokenizer.from_pretrained` of transformers 5.24, for the model types served here) and what the
classes build. Code of the checkpoint (`auto_map`) is never run: then its class counts like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE

from tgi.serving.special_tokens import SpecialTokens, TokenFiles
from tgi.serving.tokenizer_types import (
    DISTRUSTED_TYPES,
    FAIRSEQ_ROLES,
    GENERIC_TYPES,
    KEPT_CLASSES,
    OTHER_CLASSES,
    OWN_CLASS,
)

logger = logging.getLogger(__name__)

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_3_5_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
MISTRAL_TYPES = (None, "mistral", "mistral3", "voxtral", "ministral", "pixtral")
MISTRAL_VOCABULARY = 100_000
MISTRAL_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What a class puts in the place of tokenizer.json's own."""

    parts: Callable[[Mapping[str, Any]], tuple[Any, Any, Any]]
    """Settings -> normaliser, pre-tokeniser, decoder."""
    defaults: Mapping[str, str | None]
    """Role -> the token it has when no file names one."""
    fuse_unk: bool = False
    byte_fallback: bool = False
    names_unk: bool = False
    """Whether the vocabulary's unknown token is the one with that role; else there is none."""
    around: Literal["kept", "nothing", "bos_token", "cls and sep"] = "kept"
    """The special tokens around a text: tokenizer.json's, or the class's own."""
    marks_special: bool = False
    """Whether tokens with a role become special although tokenizer.json says that they are not."""


def class_of(files: TokenFiles, fast: FastTokenizer) -> str | None:
    """The class that transformers builds anew for such a checkpoint; None when it takes tokenizer.json as it is."""
    model_type = files.model_config.get("model_type")
    stated = files.config.get("tokenizer_class") or files.model_config.get("tokenizer_class")
    name = stated.removesuffix("Fast") if isinstance(stated, str) else None
    own = OWN_CLASS.get(model_type) if isinstance(model_type, str) else None
    if "auto_map" not in files.config and name is not None:
        distrusted = model_type in DISTRUSTED_TYPES
        if model_type in GENERIC_TYPES or (name == "LlamaTokenizer" and not distrusted and _is_byte_level(fast)):
            return None
        if own is not None and distrusted:
            name = own
    name = name or own
    if name in OTHER_CLASSES:
        logger.warning(
            "tokenizer_class %s is not known here: tokenizer.json is taken as it is, where transformers may build "
            "another tokenizer. To make them agree, set tokenizer_class to PreTrainedTokenizerFast",
            name,
        )
    return name if name in REBUILDS or name in KEPT_CLASSES else None


def defaults_of(name: str | None) -> Mapping[str, str | None]:
    """The tokens that a class has for roles that no file names."""
    if name is None:
        return {}
    return KEPT_CLASSES[name] if name in KEPT_CLASSES else REBUILDS[name].defaults


def rebuild(fast: FastTokenizer, name: str, tokens: SpecialTokens) -> FastTokenizer:
    """The vocabulary and post-processor of `fast`, without its added tokens; the rest as the class builds it."""
    plan = REBUILDS[name]
    unk = tokens.named.get("unk_token")
    model = fast.model
    if not isinstance(model, BPE):
        logger.warning("tokenizer_class %s makes the vocabulary of tokenizer.json one of letters", name)
        model = BPE(vocab=fast.get_vocab(with_added_tokens=False), merges=[])
    before = _state(fast)
    model.fuse_unk, model.byte_fallback, model.ignore_merges = plan.fuse_unk, plan.byte_fallback, False
    model.unk_token = str(unk) if plan.names_unk and unk is not None else None
    model.continuing_subword_prefix, model.end_of_word_suffix, model.dropout = None, None, None
    fresh = FastTokenizer(model)
    parts = plan.parts(tokens.settings)
    fresh.normalizer, fresh.pre_tokenizer, fresh.decoder = parts
    if plan.around == "kept":
        fresh.post_processor = fast.post_processor
    if before != _state(fresh):
        logger.warning(
            "tokenizer_class %s replaces how tokenizer.json treats text, as transformers 5 does; "
            "to use tokenizer.json as it is, set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json",
            name,
        )
    return fresh


def finish(fast: FastTokenizer, name: str, tokens: SpecialTokens) -> None:
    """What the class does once the special tokens are there."""
    plan, bos = REBUILDS[name], tokens.named.get("bos_token")
    if plan.marks_special:
        fast.add_tokens([AddedToken(str(token), special=True) for token in (*tokens.named.values(), *tokens.extra)])
    if plan.around == "bos_token" and bos is not None:
        pair = (str(bos), fast.token_to_id(str(bos)))
        fast.post_processor = processors.TemplateProcessing(single=[pair[0], "$A"], special_tokens=[pair])
    if plan.around == "cls and sep":
        _surround(fast, tokens)


def _surround(fast: FastTokenizer, tokens: SpecialTokens) -> None:
    """<s> text </s>, where both are there."""
    trim, prefix = tokens.settings.get("trim_offsets"), bool(tokens.settings.get("add_prefix_space"))
    pairs = []
    for role in ("sep_token", "cls_token"):
        text = str(tokens.named.get(role))
        if (id := fast.token_to_id(text)) is not None:
            pairs.append((text, id))
    if len(pairs) == 2:
        sep, cls = pairs
        fast.post_processor = processors.RobertaProcessing(sep, cls, trim is None or bool(trim), prefix)


def mend_mistral(fast: FastTokenizer, files: TokenFiles) -> None:
    """Carry out `fix_mistral_regex`: another way of splitting than the wrong one that a checkpoint was saved with."""
    words, model = fast.pre_tokenizer, files.model_config
    version = str(model.get("transformers_version") or "4").partition(".")[0]
    concerned = model.get("model_type") in MISTRAL_TYPES and version.isdecimal() and int(version) < 5
    wanted = files.config.get("fix_mistral_regex") is True and concerned
    if words is None or not wanted or fast.get_vocab_size() <= MISTRAL_VOCABULARY:
        return
    split = pre_tokenizers.Split(Regex(MISTRAL_WORDS), behavior="isolated")
    if isinstance(words, pre_tokenizers.Sequence):
        words[0] = split
        fast.pre_tokenizer = words
        return
    if isinstance(words, pre_tokenizers.Metaspace):
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([split, words])


def _state(fast: FastTokenizer) -> list[Any]:
    parts = (fast.normalizer, fast.pre_tokenizer, fast.decoder, fast.post_processor)
    model = fast.model
    flags = [
        getattr(model, name, None) for name in ("fuse_unk", "byte_fallback", "ignore_merges", "end_of_word_suffix")
    ]
    return [*(part and part.__getstate__() for part in parts), *map(bool, flags), type(model)]


def _is_byte_level(fast: FastTokenizer) -> bool:
    parts = (fast.normalizer, fast.pre_tokenizer, fast.decoder, fast.post_processor)
    return any(part is not None and b'"ByteLevel"' in part.__getstate__() for part in parts)


def _llama(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    prefix = settings.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = ("always" if settings.get("legacy") else "first") if prefix else "never"
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    words = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme, split=False)
    return None, words, decoders.Sequence(steps)


def _code_llama(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    prefix = settings.get("add_prefix_space")
    scheme = "never" if prefix is not None and not prefix else "first"
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
    words = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme, split=False)
    return None, words, decoders.Sequence(steps)


def _gemma(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    words = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    return normalizers.Replace(" ", _SPACE), words, decoders.Sequence(steps)


def _gpt2(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    words = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space")))
    return None, words, decoders.ByteLevel()


def _gpt_neox(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return normalizers.NFC(), *_gpt2(settings)[1:]


def _cohere(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    prefix = bool(settings.get("add_prefix_space"))
    words = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
    return normalizers.NFC(), pre_tokenizers.Sequence(words), decoders.ByteLevel()


def _qwen3_5(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    normalizer, words, decoder = _qwen2(settings)
    words[0] = pre_tokenizers.Split(Regex(QWEN_3_5_WORDS), behavior="isolated", invert=False)
    return normalizer, words, decoder


def _qwen2(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space")), use_regex=False)
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated", invert=False)
    return normalizers.NFC(), pre_tokenizers.Sequence([words, bytes_]), decoders.ByteLevel()


_END = "<|endoftext|>"
REBUILDS: dict[str, Rebuild] = {
    "LlamaTokenizer": Rebuild(
        _llama, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, fuse_unk=True, byte_fallback=True
    ),
    "CodeLlamaTokenizer": Rebuild(
        _code_llama,
        {
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "prefix_token": f"{_SPACE}<PRE>",
            "middle_token": f"{_SPACE}<MID>",
            "suffix_token": f"{_SPACE}<SUF>",
            "eot_token": f"{_SPACE}<EOT>",
            "fill_token": "<FILL_ME>",
        },
        fuse_unk=True,
        byte_fallback=True,
        names_unk=True,
        around="bos_token",
    ),
    "GemmaTokenizer": Rebuild(
        _gemma,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        fuse_unk=True,
        byte_fallback=True,
        names_unk=True,
    ),
    "GPT2Tokenizer": Rebuild(_gpt2, {"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": None}),
    "GPTNeoXTokenizer": Rebuild(
        _gpt_neox,
        {"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": "<|padding|>"},
        around="nothing",
    ),
    "CohereTokenizer": Rebuild(
        _cohere,
        {
            "unk_token": "<UNK>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
            "pad_token": "<PAD>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
        },
    ),
    "RobertaTokenizer": Rebuild(
        _gpt2, {**FAIRSEQ_ROLES, "bos_token": "<s>", "mask_token": "<mask>"}, around="cls and sep"
    ),
    "Qwen3_5Tokenizer": Rebuild(_qwen3_5, {"unk_token": _END, "bos_token": None, "eos_token": _END, "pad_token": _END}),
    "Qwen2Tokenizer": Rebuild(
        _qwen2, {"unk_token": _END, "bos_token": None, "eos_token": _END, "pad_token": _END}, marks_special=True
    ),
}
"""Class -> what it builds."""
