"""Tokenizer: ids, offsets in bytes, truncation that keeps BOS, bytes of tokens, the files it reads."""

from __future__ import annotations

import io
import json

import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from tests import small_tokenizers as build
from tgi.errors import ModelError
from tgi.hub.convert_tokenizer import ensure_fast_tokenizer
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_library import TokenizerError
from tgi.serving.types import TokenSpan

TEXT = "hello wörld 🎉!"


@pytest.mark.parametrize("make", [build.byte_level, build.sentencepiece])
def test_bytes_of_tokens_add_up_to_the_text(make):
    tokenizer = build.tokenizer(make())
    ids = tokenizer.encode(TEXT)
    assert tokenizer.is_special(ids[0])
    text = b"".join(tokenizer.token_bytes(id) for id in ids[1:]).decode()
    assert text.removeprefix(" ") == TEXT
    assert tokenizer.byte_exact
    assert tokenizer.strips_first_space == (make is build.sentencepiece)


def test_word_piece_is_not_byte_exact():
    tokenizer = build.tokenizer(build.word_piece())
    assert not tokenizer.byte_exact
    assert tokenizer.decode(tokenizer.encode("Hello dogs.")) == "hello dogs ."


def test_special_tokens_on_request_only():
    tokenizer = build.tokenizer()
    with_bos, without = tokenizer.encode("hello"), tokenizer.encode("hello", add_special_tokens=False)
    assert with_bos == [tokenizer.bos_token_id, *without]
    assert tokenizer.decode(with_bos) == "<s>hello"
    assert tokenizer.decode(with_bos, skip_special_tokens=True) == "hello"


@pytest.mark.parametrize("truncate", [2, 3, 5, 100])
def test_truncate_keeps_bos_and_the_end(truncate):
    tokenizer = build.tokenizer()
    content = tokenizer.encode(TEXT, add_special_tokens=False)
    assert tokenizer.encode(TEXT, True, truncate) == [0, *content[-(truncate - 1) :]]
    assert tokenizer.encode(TEXT, False, truncate) == content[-truncate:]


def test_truncate_to_one_keeps_a_token_of_the_text():
    tokenizer = build.tokenizer()
    assert tokenizer.encode(TEXT, True, 1) == tokenizer.encode(TEXT)[-1:]


PIECES = {"<s>": 0, "</s>": 1, "b": 2, "c": 3}
WITHOUT_A = {
    "raises": models.WordLevel(PIECES, unk_token="<unk>"),
    "raises too": models.Unigram([(piece, -1.0) for piece in PIECES], unk_id=None),
    "drops it": models.BPE(PIECES, []),
    "has an unknown token": models.WordLevel(PIECES | {"<unk>": 4}, unk_token="<unk>"),
}


@pytest.mark.parametrize("model", WITHOUT_A.values(), ids=WITHOUT_A.keys())
def test_a_vocabulary_need_not_hold_the_letter_a(model):
    fast = FastTokenizer(model)
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", PIECES["<s>"]), ("</s>", PIECES["</s>"])]
    )
    tokenizer = build.tokenizer(fast)
    assert tokenizer.encode("b") == fast.encode("b").ids == [0, 2, 1]
    assert tokenizer.encode("b", add_special_tokens=False) == [2]


def test_a_tokenizer_that_can_encode_nothing_is_refused(tmp_path):
    fast = FastTokenizer(models.WordLevel({"b": 0}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Split("b", "removed")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot encode a single token of its own vocabulary"):
        Tokenizer.load(build.write_checkpoint(tmp_path, fast))


def test_spans_count_bytes():
    tokenizer = build.tokenizer()
    text = "hé</s>🎉x"
    spans = tokenizer.spans(text)
    assert spans[0] == TokenSpan(0, "", 0, 0)
    assert [span.id for span in spans] == tokenizer.encode(text)
    for span in spans[1:]:
        assert text.encode()[span.start : span.stop].decode() == span.text
    assert spans[-1] == TokenSpan(spans[-1].id, "x", len(text.encode()) - 1, len(text.encode()))
    assert TokenSpan(1, "</s>", 3, 7) in spans


def test_an_added_token_stands_for_its_own_text():
    fast = build.byte_level()
    fast.add_tokens(["é!"])  # é is also the byte-level alphabet's name for byte 0xE9
    tokenizer = build.tokenizer(fast)
    assert tokenizer.token_bytes(fast.token_to_id("é!")).decode() == "é!"


def test_ids_without_a_token_are_empty():
    assert build.tokenizer().token_bytes(10**6) == b""


def test_named_tokens_become_special():
    fast = build.byte_level()
    assert not build.tokenizer(fast).is_special(fast.token_to_id("h"))
    tokenizer = build.tokenizer(build.byte_level(), pad_token="h")
    assert tokenizer.is_special(fast.token_to_id("h"))


def test_load_from_disk(tmp_path):
    build.write_checkpoint(tmp_path, model_max_length=512, bos_token=None, eos_token=None)
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    )
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token_id, tokenizer.model_max_length) == ("<s>", 1, 512)
    assert build.tokenizer(model_max_length=1e30).model_max_length is None


def test_a_stored_truncation_does_not_apply(tmp_path):
    fast = build.byte_level()
    fast.enable_truncation(max_length=3)
    fast.enable_padding(length=9)
    assert len(Tokenizer.load(build.write_checkpoint(tmp_path, fast)).encode("abcdefgh")) == 9  # <s> and 8 letters


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ModelError, match="no other tokenizer file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ModelError, match=r"only tokenizer\.model"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ModelError, match="cannot be converted"):
        ensure_fast_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    build.write_checkpoint(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="JSON object"):
        Tokenizer.load(tmp_path)


def test_a_sentencepiece_model_is_converted(tmp_path):
    spm = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([build.WORDS] * 20), model_writer=model, vocab_size=320, model_type="bpe",
        byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}'
    )
    assert ensure_fast_tokenizer(tmp_path) == tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.load(tmp_path)
    original = spm.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.encode("the fox é 🎉") == [1, *original.encode("the fox é 🎉")]
    assert tokenizer.byte_exact


@pytest.mark.parametrize("make", [build.byte_level, build.sentencepiece, build.word_piece])
@pytest.mark.parametrize("config", [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"pad_token": "q"}])
def test_ids_equal_transformers(tmp_path, make, config):
    from transformers import PreTrainedTokenizerFast

    named = {} if make is build.word_piece else {"bos_token": "<s>", "eos_token": "</s>"}
    path = build.write_checkpoint(tmp_path, make(), **({"bos_token": None, "eos_token": None} | named | config))
    reference, ours = PreTrainedTokenizerFast.from_pretrained(path), Tokenizer.load(path)
    for text in (TEXT, "", " the fox</s> <s>x", "\n\n<|im_start|>the  dog's", "fox<tool_call>it"):
        ids = ours.encode(text)
        assert ids == reference(text)["input_ids"]
        assert ours.encode(text, add_special_tokens=False) == reference(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids, True) == reference.decode(ids, True, clean_up_tokenization_spaces=False)


DAMAGED = {
    "not UTF-8": ("tokenizer_config.json", b'{"eos_token": "\xff"}', "not valid JSON"),
    "nested objects": ("tokenizer_config.json", b'{"a":' * 100_000, "nested too deeply"),
    "nested arrays": ("special_tokens_map.json", b'{"a":' + b"[" * 100_000, "nested too deeply"),
    "nested list of tokens": ("added_tokens.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    "nested config.json": ("config.json", b'{"a":' * 100_000, "nested too deeply"),
    "nested tokenizer": ("tokenizer.json", b'{"model":' * 100_000, "cannot be read"),
    "half a pair in the tokenizer": ("tokenizer.json", b'{"model": "\\ud83d"}', "cannot be read"),
    "an empty tokenizer": ("tokenizer.json", b"", "cannot be read"),
    "a tokenizer without model": ("tokenizer.json", b"{}", "cannot be read"),
    "a number of 5,000 digits": ("tokenizer_config.json", b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
    "a role that is a number": ("tokenizer_config.json", b'{"eos_token": 5}', "`eos_token` must be a token, it is 5"),
    "a role that is a list": ("special_tokens_map.json", b'{"pad_token": ["<pad>"]}', "`pad_token` must be a token"),
    "a token without text": ("tokenizer_config.json", b'{"eos_token": {"text": "x"}}', "`eos_token` must be a token"),
    "a flag that is text": (
        "tokenizer_config.json", b'{"eos_token": {"content": "x", "lstrip": "no"}}', "`eos_token` must be a token"
    ),
    "half a surrogate pair": ("tokenizer_config.json", b'{"eos_token": "\\ud83d"}', "half of a surrogate pair"),
    "half a pair in a list": (
        "tokenizer_config.json", b'{"additional_special_tokens": ["a\\udc00"]}', "half of a surrogate pair"
    ),
    "half a pair in the map": ("special_tokens_map.json", b'{"pad_token": "\\ud83d"}', "half of a surrogate pair"),
    "half a pair in added tokens": ("added_tokens.json", b'{"\\ud83d": 400}', "half of a surrogate pair"),
    "half a pair in a decoder": (
        "tokenizer_config.json", b'{"added_tokens_decoder": {"5": {"content": "\\ud83d"}}}', "half of a surrogate pair"
    ),
    "extra tokens that are a text": ("tokenizer_config.json", b'{"extra_special_tokens": "x"}', "must be a list"),
    "extra tokens of numbers": ("tokenizer_config.json", b'{"additional_special_tokens": [5]}', "must be a token"),
    "a decoder that is a list": ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', "must be an object"),
    "a decoder without ids": ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "y"}}}', "map ids"),
    "added ids that are text": ("added_tokens.json", b'{"<x>": "400"}', "must map texts to ids"),
    "added ids that are true": ("added_tokens.json", b'{"<x>": true}', "must map texts to ids"),
    "added ids below zero": ("added_tokens.json", b'{"<x>": -1}', "must map texts to ids"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_end_in_a_sentence(tmp_path, name, content, message):
    build.write_checkpoint(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


BACKTRACKING = [r"(a+)+$", r"(x+x+)+y", r"(?:[0-9]|\d)*:$", r"(\s+\s*)+\S{200}"]


@pytest.mark.parametrize("pattern", BACKTRACKING)
def test_a_pattern_that_backtracks_is_refused_at_the_start(tmp_path, pattern, capfd):
    fast = build.byte_level()
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    with pytest.raises(ModelError, match="too many steps"):
        Tokenizer.load(build.write_checkpoint(tmp_path, fast))
    assert capfd.readouterr().err == "", "the library's panic is not shown"


def test_a_pattern_that_backtracks_later_is_an_ordinary_error():
    fast = build.byte_level()
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"(ж+ж+)+я"), "isolated")
    tokenizer = build.tokenizer(fast)
    for call in (tokenizer.encode, tokenizer.spans):
        with pytest.raises(TokenizerError, match="too many steps"):
            call("ж" * 80)


BLOWN_UP = {
    "one step": [normalizers.Replace("a", "b" * 1_000_000)],
    "before each piece": [normalizers.Prepend("b" * 5_000_000)],
    "in steps": [normalizers.Replace("a", "b" * 20), normalizers.Replace("b", "c" * 20)],
    "between characters": [normalizers.Replace(Regex("x*"), "y" * 5_000)],
}


@pytest.mark.parametrize("steps", BLOWN_UP.values(), ids=BLOWN_UP.keys())
def test_a_normaliser_that_blows_texts_up_is_refused_at_the_start(tmp_path, steps):
    fast = build.byte_level()
    fast.normalizer = normalizers.Sequence(steps)
    with pytest.raises(ModelError, match=r"cannot be used: its normalizer may make a text [0-9,]+ times"):
        Tokenizer.load(build.write_checkpoint(tmp_path, fast))


def test_a_decoder_that_blows_texts_up_is_refused_at_the_start(tmp_path):
    fast = build.byte_level()
    fast.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("a", "b" * 5_000)])
    with pytest.raises(ModelError, match="its decoder may make a text 5,000 times"):
        Tokenizer.load(build.write_checkpoint(tmp_path, fast))


def test_ordinary_normalisers_may_lengthen_texts(tmp_path):
    fast = build.byte_level()
    fast.normalizer = normalizers.Sequence([normalizers.Replace(" ", "\u2581" * 4), normalizers.Prepend("\u2581")])
    assert Tokenizer.load(build.write_checkpoint(tmp_path, fast)).encode("a b")


def test_a_missing_tokenizer_config_is_refused(tmp_path):
    path = build.write_checkpoint(tmp_path / "model")
    for given in (tmp_path / "absent.json", path):
        with pytest.raises(ModelError, match=r"--tokenizer-config-path: there is no file"):
            Tokenizer.load(path, given)
