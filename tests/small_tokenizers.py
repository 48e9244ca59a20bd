"""Small tokenizers of the kinds that checkpoints use, in memory or on disk, for tests."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
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


def pieces(kind: str = "unigram", text: str = "", size: int = 320, **options: Any) -> bytes:
    """A SentencePiece model, trained on WORDS and `text`. options: as its trainer takes them."""
    import sentencepiece

    model = io.BytesIO()
    lines = [*(" ".join(part) for part in zip(*[iter((WORDS + " " + text).split())] * 3, strict=False))] * 8
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type=kind, minloglevel=2,
        hard_vocab_limit=False, num_threads=1, **options,
    )  # fmt: skip
    return model.getvalue()


def piece_names(model: bytes) -> list[str]:
    """What a SentencePiece model calls its pieces, by number."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def random_text(rng: random.Random, extra: Sequence[str] = ()) -> str:
    """Words, runs of spaces, other scripts, signs and bytes of all kinds, and of `extra`."""
    bits = [
        *WORDS.split(), "The", "foXes", "don't", "123", "3.14", "naïve", "éè", "e\u0301", "日本語", "жить", "ß", "ﬁn",
        "１２", "🎉", "👩‍👧", "\u00a0", "\u200b", "\ufeff", "\u2581", "#", "!!", "...", "(", "</", "<x>", "__", ">>",
        "\\", "%", "zzzzzz", "aaaaaaaa", "\x07", *extra,
    ]  # fmt: skip
    gaps = [" ", " ", " ", " ", "", "", "  ", "   ", "\n", "\n\n", "\t", " \n "]
    text = "".join(rng.choice(bits) + rng.choice(gaps) for _ in range(rng.randint(1, 12)))
    return rng.choice(["", "", " ", "  ", "\n"]) + text


def byte_codes() -> dict[int, int]:
    """Byte -> code point that stands for it in byte-level vocabularies (GPT-2)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return dict(zip(shown, shown, strict=True)) | {byte: 256 + number for number, byte in enumerate(others)}
