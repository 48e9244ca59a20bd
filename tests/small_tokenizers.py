"""Small tokenizers of the kinds that checkpoints use, in memory or on disk, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as FastTokenizer

from tgi.serving.tokenizer import Tokenizer

WORDS = "the quick brown fox jumps over a lazy dog hello world count to ten this is some text and more of it"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONFIG = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": CHATML}
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def byte_level(bos: bool = True) -> FastTokenizer:
    """Byte-level BPE (GPT-2, Llama 3, Qwen); every byte has a token. `bos`: put <s> before each text."""
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([WORDS], trainer)
    fast.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    if bos:
        fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return fast


def sentencepiece() -> FastTokenizer:
    """Unigram with byte fallback and a space before the first word (Llama 2, Mistral, T5)."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    pieces += [f"\u2581{word}" for word in dict.fromkeys(WORDS.split())] + list("abcdefghijklmnopqrstuvwxyz.,!?é")
    vocabulary = [(piece, -1.0 - len(pieces) / (1 + len(piece))) for piece in dict.fromkeys(pieces)]
    fast = FastTokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    fast.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return fast


def word_piece() -> FastTokenizer:
    """WordPiece, whose decoder looks at neighbouring tokens (spaces between words, none before ##parts)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [
        "[UNK]",
        "[SEP]",
        *dict.fromkeys(WORDS.split()),
        *letters,
        *(f"##{letter}" for letter in letters),
        ".",
        "'",
    ]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    fast = FastTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    fast.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    fast.add_special_tokens(["[UNK]", "[SEP]"])
    return fast


def tokenizer(fast: FastTokenizer | None = None, **config: Any) -> Tokenizer:
    """A serving tokenizer; byte-level BPE unless another is given."""
    return Tokenizer(fast or byte_level(), CONFIG | config)


def write_checkpoint(path: Path, fast: FastTokenizer | None = None, **config: Any) -> Path:
    """The files of a checkpoint that serving reads (no weights)."""
    path.mkdir(parents=True, exist_ok=True)
    (fast or byte_level()).save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(CONFIG | config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    return path
