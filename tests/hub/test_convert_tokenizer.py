"""Tokenizers of other formats: after their conversion texts become the ids that transformers makes of the files."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import small_tokenizers as build
from tgi.errors import ModelError
from tgi.hub import convert_tokenizer, tekken
from tgi.serving.tokenizer import Tokenizer

ROUNDS = 60
RUSSIAN = "жить в лесу и не тужить мир всем людям доброй воли да"
Files = dict[str, bytes]


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def files_of(model_type: str, name: str, model: bytes, **config: Any) -> Files:
    """Of a checkpoint with a SentencePiece model; config: tokenizer_config.json, none where it is empty."""
    files = {"config.json": as_json({"model_type": model_type}), name: model}
    return files | ({"tokenizer_config.json": as_json(config)} if config else {})


def byte_fallback(**options: Any) -> bytes:
    return build.pieces("bpe", byte_fallback=True, **options)


def t5_pieces(**options: Any) -> bytes:
    return build.pieces(size=90, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, **options)


def gpt2_files(model_type: str, **config: Any) -> Files:
    fast = build.byte_level(bos=False)
    state = json.loads(fast.to_str())["model"]
    vocabulary = state["vocab"] | {"<|endoftext|>": len(state["vocab"])}
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in state["merges"])
    files = {"config.json": as_json({"model_type": model_type}), "vocab.json": as_json(vocabulary)}
    return files | {"merges.txt": merges.encode(), "tokenizer_config.json": as_json(config)}


def word_pieces() -> Files:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(build.WORDS.split())]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces += [*letters, *(f"##{letter}" for letter in letters), *".,!?'#()<>_0123456789"]
    text = "\n".join(dict.fromkeys(pieces)).encode()
    return {"config.json": as_json({"model_type": "megatron-bert"}), "vocab.txt": text}


SLOW: dict[str, Callable[[], Files]] = {
    "Llama": lambda: files_of(
        "llama", "tokenizer.model", byte_fallback(), tokenizer_class="LlamaTokenizer", legacy=False, add_bos_token=True
    ),
    "Llama, legacy": lambda: files_of(
        "llama", "tokenizer.model", byte_fallback(), tokenizer_class="LlamaTokenizer", pad_token="<pad>"
    ),
    "Llama, nothing else": lambda: files_of("llama", "tokenizer.model", byte_fallback()),
    "Mistral": lambda: files_of("mistral", "tokenizer.model", byte_fallback(), tokenizer_class="LlamaTokenizer"),
    "Mistral, nothing else": lambda: files_of("mistral", "tokenizer.model", byte_fallback()),
    "Gemma": lambda: files_of(
        "gemma2", "tokenizer.model",
        byte_fallback(pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", bos_piece="<bos>", eos_piece="<eos>",
                      add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity"),
        tokenizer_class="GemmaTokenizer",
    ),
    "a space is not put first": lambda: files_of(
        "granite", "tokenizer.model", build.pieces(size=90, add_dummy_prefix=False)
    ),
    "Unigram with bytes": lambda: files_of("granite", "tokenizer.model", build.pieces(byte_fallback=True)),
    "spaces are kept": lambda: files_of(
        "granite", "tokenizer.model", byte_fallback(remove_extra_whitespaces=False, normalization_rule_name="identity")
    ),
    "T5": lambda: files_of("t5", "spiece.model", t5_pieces(), tokenizer_class="T5Tokenizer", extra_ids=5),
    "T5, nothing else": lambda: files_of("t5", "spiece.model", t5_pieces()),
    "mT5": lambda: files_of("mt5", "spiece.model", t5_pieces(), tokenizer_class="T5Tokenizer", extra_ids=0),
    "Pegasus": lambda: files_of("pegasus", "spiece.model", t5_pieces(), tokenizer_class="PegasusTokenizer", offset=4),
    "mBART": lambda: files_of(
        "mbart", "sentencepiece.bpe.model", build.pieces(size=90), tokenizer_class="MBartTokenizer", src_lang="de_DE"
    ),
    "mBART-50": lambda: files_of(
        "mbart", "sentencepiece.bpe.model", build.pieces(size=90), tokenizer_class="MBart50Tokenizer"
    ),
    "NLLB": lambda: files_of(
        "m2m_100", "sentencepiece.bpe.model", build.pieces("bpe", size=90), tokenizer_class="NllbTokenizer",
        extra_special_tokens=["eng_Latn", "deu_Latn"],
    ),
    "XGLM": lambda: files_of("xglm", "sentencepiece.bpe.model", build.pieces(size=90), tokenizer_class="XGLMTokenizer"),
    "GPT-2": lambda: gpt2_files("gpt2", tokenizer_class="GPT2Tokenizer"),
    "Qwen2": lambda: gpt2_files("qwen2", tokenizer_class="Qwen2Tokenizer"),
    "WordPiece": word_pieces,
}  # fmt: skip


def write(path: Path, files: Files) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def assert_equal(path: Path, name: str, *, extra: tuple[str, ...] = (), strips: bool = False) -> Tokenizer:
    """Random texts, as transformers reads the original files. strips: it removes spaces around what it decodes."""
    from transformers import AutoTokenizer

    original = shutil.copytree(path, path.with_name("original"))
    reference = AutoTokenizer.from_pretrained(original)
    convert_tokenizer.convert(path)
    ours = Tokenizer.load(path)
    rng = random.Random(name)
    named = [*reference.special_tokens_map.values(), *extra]
    for _ in range(ROUNDS):
        text = build.random_text(rng, [one for one in named if isinstance(one, str)])
        for special in (True, False):
            ids = reference(text, add_special_tokens=special)["input_ids"]
            assert ours.encode(text, special) == ids, (text, reference.convert_ids_to_tokens(ids))
        theirs = reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        got = ours.decode(ids, True)
        assert (got.strip() == theirs.strip()) if strips else (got == theirs), text
        spans = ours.spans(text)
        assert [span.id for span in spans] == ours.encode(text)
        assert all(span.text == text.encode()[span.start : span.stop].decode() for span in spans)
    assert ours.named_tokens == reference.special_tokens_map
    return ours


@pytest.mark.parametrize("name", SLOW)
def test_slow_formats(tmp_path: Path, name: str) -> None:
    """Also once more from the tokenizer.json that was made: transformers builds of it what we take as it is."""
    from transformers import AutoTokenizer

    path = write(tmp_path / "model", SLOW[name]())
    ours, reference = assert_equal(path, name), AutoTokenizer.from_pretrained(path)
    for number in range(ROUNDS // 4):
        text = build.random_text(random.Random(number), list(ours.named_tokens.values()))
        assert ours.encode(text) == reference(text)["input_ids"], text


def m2m_files(drop: int = 0, **config: Any) -> Files:
    """vocab.json has ids of its own, lacks some pieces, and has some that the model does not know."""
    model = build.pieces("bpe", size=120)
    names = [name for name in build.piece_names(model)[3:] if hash_of(name) % 7 >= drop]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *reversed(names), "madeupword0000", "madeupword0001", "ж", "жить"]
    files = {"config.json": as_json({"model_type": "m2m_100"}), "sentencepiece.bpe.model": model}
    files["vocab.json"] = as_json({piece: id for id, piece in enumerate(vocabulary)})
    return files | {"tokenizer_config.json": as_json({"tokenizer_class": "M2M100Tokenizer", **config})}


def marian_files(separate: bool = False, **config: Any) -> Files:
    source, target = build.pieces(size=90), build.pieces("unigram", RUSSIAN, size=90)
    names = [name for model in (source, target) for name in build.piece_names(model)[3:] if hash_of(name) % 9]
    if separate:
        names = build.piece_names(source)[3:]
    vocabulary = ["</s>", "<unk>", ">>fra<<", *dict.fromkeys(names), ">>rus<<", "<pad>"]
    files = {"config.json": as_json({"model_type": "marian"}), "source.spm": source, "target.spm": target}
    files["vocab.json"] = as_json({piece: id for id, piece in enumerate(vocabulary)})
    if separate:
        side = ["</s>", "<unk>", *build.piece_names(target)[3:], "<pad>"]
        files["target_vocab.json"] = as_json({piece: id for id, piece in enumerate(side)})
        config |= {"separate_vocabs": True}
    return files | {"tokenizer_config.json": as_json({"tokenizer_class": "MarianTokenizer", **config})}


def hash_of(text: str) -> int:
    return sum(text.encode())


@pytest.mark.parametrize("config", [{}, {"src_lang": "de", "tgt_lang": "fr"}, {"language_codes": "wmt21"}])
def test_m2m100(tmp_path: Path, config: dict[str, Any]) -> None:
    files = m2m_files(2, **config)
    ours = assert_equal(write(tmp_path / "model", files), str(config), extra=("__de__", "__xx__", "жж"), strips=True)
    source = config.get("src_lang", "en")
    assert ours.around == ([ours.token_id(f"__{source}__")], [2])
    assert ours.byte_exact and ours.vocab_size >= len(json.loads(files["vocab.json"]))


@pytest.mark.parametrize("config", [{}, {"source_lang": "eng", "target_lang": "rus", "model_max_length": 512}])
def test_marian(tmp_path: Path, config: dict[str, Any]) -> None:
    ours = assert_equal(
        write(tmp_path / "model", marian_files(**config)), str(config), extra=(">>fra<<", "жить", "ж"), strips=True
    )
    assert ours.encode(">>rus<< fox")[0] == ours.token_id(">>rus<<")
    assert ours.around == ([], [0])


def test_marian_with_two_vocabularies(tmp_path: Path) -> None:
    """Texts are read by the source's vocabulary, ids by the target's."""
    from transformers import AutoTokenizer

    path = write(tmp_path / "model", marian_files(separate=True))
    reference = AutoTokenizer.from_pretrained(shutil.copytree(path, tmp_path / "original"))
    convert_tokenizer.convert(path)
    ours = Tokenizer.load(path)
    side = json.loads((path / "target_vocab.json").read_text())
    rng = random.Random(5)
    for _ in range(ROUNDS):
        text = build.random_text(rng, [">>fra<<", "</s>", "жить"])
        assert ours.encode(text) == reference(text)["input_ids"]
        special = {0, 1, ours.token_id("<pad>"), side["<pad>"]}  # transformers shows the source's among them
        ids = rng.sample([id for id in side.values() if id not in special], 12)
        assert ours.decode(ids).strip() == reference.decode(ids, use_source_tokenizer=False).strip()
    assert ours.token_id(">>rus<<") == json.loads((path / "vocab.json").read_text())[">>rus<<"]


def test_a_class_of_the_checkpoint_is_not_run(tmp_path: Path) -> None:
    """What it adds to its SentencePiece model is not known; the model is."""
    import sentencepiece

    model = byte_fallback()
    files = files_of(
        "baichuan", "tokenizer.model", model, tokenizer_class="BaichuanTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]}, bos_token="<s>",
    )  # fmt: skip
    path = write(tmp_path / "model", files | {"tokenization_baichuan.py": b"raise SystemExit(7)"})
    convert_tokenizer.convert(path)
    ours, theirs = Tokenizer.load(path), sentencepiece.SentencePieceProcessor(model_proto=model)
    rng = random.Random(3)
    for _ in range(ROUNDS):
        text = build.random_text(rng).replace("\u2581", "")
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text), text


def test_the_command_converts(tmp_path: Path) -> None:
    path = write(tmp_path / "model", m2m_files())
    assert convert_tokenizer.ensure_fast_tokenizer(path) == path / "tokenizer.json"
    assert not list(path.glob("*.part"))
    assert Tokenizer.load(path).encode("the fox")[-1] == 2


# --- tekken.json


PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tekken_files(special: list[str] | None, count: int = 30, more: int = 3) -> tuple[Files, list[bytes]]:
    """A vocabulary of byte strings, with some more than the model uses; the ranks that it does use."""
    state = json.loads(build.byte_level().to_str())["model"]
    alphabet = {chr(code): byte for byte, code in build.byte_codes().items()}
    pieces = [piece for piece in state["vocab"] if "<" not in piece or piece == "<"]
    tokens = [bytes(alphabet[letter] for letter in piece) for piece in pieces]
    tokens = [bytes([byte]) for byte in range(256)] + [token for token in tokens if len(token) > 1]
    tokens += [b"aa", b"aaa", b"aaaa", b"  ", b"   ", "жи".encode(), "日".encode(), "日本".encode()]
    entries = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate([*tokens, *(b"more%d" % number for number in range(more))])
    ]
    config = {"pattern": PATTERN, "default_vocab_size": len(tokens) + count, "default_num_special_tokens": count}
    content: dict[str, Any] = {"config": config | {"version": "v3"}, "vocab": entries}
    if special is not None:
        listed = [{"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(special)]
        content["special_tokens"] = listed[::-1]
    return {"config.json": as_json({"model_type": "mistral"}), "tekken.json": as_json(content)}, tokens


def greedy(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's rule: join the neighbours whose joint bytes have the lowest rank, the first of equal ones."""
    parts = [word[at : at + 1] for at in range(len(word))]
    while True:
        joint = [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not joint:
            return [ranks[part] for part in parts]
        _, at = min(joint)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("special", [None, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"]])
def test_tekken(tmp_path: Path, special: list[str] | None) -> None:
    import regex

    files, tokens = tekken_files(special)
    path = write(tmp_path / "model", files)
    convert_tokenizer.convert(path)
    ours, ranks = Tokenizer.load(path), {token: rank for rank, token in enumerate(tokens)}
    named = {name: ours.fast.token_to_id(name) for name in ("<s>", "</s>", "[INST]", "[/INST]", "<SPECIAL_29>")}
    assert named["[INST]"] == 3 and named["<SPECIAL_29>"] == 29
    rng = random.Random(str(special))
    for _ in range(4 * ROUNDS):
        text = build.random_text(rng, ["aaaaa", "aaaaaaa", "the", *named])
        expected = [1]
        for part in regex.split("(" + "|".join(map(regex.escape, named)) + ")", text):
            if part in named:
                expected.append(named[part])
            else:
                expected += [30 + id for word in regex.findall(PATTERN, part) for id in greedy(word.encode(), ranks)]
        assert ours.encode(text) == expected, text
        assert ours.decode(ours.encode(text, False)) == text
    assert (ours.bos_token, ours.eos_token, ours.eos_token_id) == ("<s>", "</s>", 2)
    assert ours.fast.get_vocab_size() == len(tokens) + 30


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no pattern": (lambda content: content["config"].pop("pattern"), "not a tekken.json"),
    "no vocabulary": (lambda content: content.pop("vocab"), "at least 256"),
    "a token twice": (lambda content: content["vocab"][300].update(token_bytes="AA=="), "each token once"),
    "no base64": (lambda content: content["vocab"][300].update(token_bytes="?"), "entry 300 of `vocab`"),
    "another rank": (lambda content: content["vocab"][300].update(rank=5), "entry 300 of `vocab`"),
    "too few": (lambda content: content["config"].update(default_vocab_size=10**6), "asks for"),
    "a number that is text": (lambda content: content["config"].update(default_vocab_size="x"), "not a number"),
    "ranks with a gap": (lambda content: content["special_tokens"][0].update(rank=77), "each rank"),
    "more special than counted": (
        lambda content: content["config"].update(default_num_special_tokens=2), "and counts 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_tekken_ends_in_a_sentence(tmp_path: Path, case: str) -> None:
    change, says = BROKEN[case]
    content = json.loads(tekken_files(["<unk>", "<s>", "</s>"])[0]["tekken.json"])
    change(content)
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=says):
        tekken.convert(tmp_path / "tekken.json")


TABLES: dict[str, tuple[str, bytes, str]] = {
    "no table": ("tokenizer_pieces.json", b"[]", "cannot be read"),
    "a path": ("tokenizer_pieces.json", b'{"model":"../x","vocabulary":"v","unknown":0,"added":[]}', "not a file of"),
    "no model": ("sentencepiece.bpe.model", b"nonsense", "is not a SentencePiece model"),
    "no ids": ("vocab.json", b'{"a": "b"}', "does not map pieces to ids"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_damaged_table_ends_in_a_sentence(tmp_path: Path, case: str) -> None:
    name, content, says = TABLES[case]
    path = write(tmp_path / "model", m2m_files())
    convert_tokenizer.convert(path)
    (path / name).write_bytes(content)
    with pytest.raises(ModelError, match=says):
        Tokenizer.load(path)
