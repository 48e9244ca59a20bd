"""Languages of translation models: where the tokens of a request's codes go, and what is said of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, processors

from tests import small_tokenizers as build
from tests.fake_engine import FakeEngine
from tgi.errors import ValidationError
from tgi.serving.dialect import TGI
from tgi.serving.service import Service
from tgi.serving.types import SamplingParams
from tgi.settings.config import ApiConfig

CODES = {
    "m2m_100": ("__en__", "__de__", "__fr__"),
    "mbart": ("en_XX", "de_DE", "fr_XX"),
    "nllb": ("eng_Latn", "deu_Latn", "fra_Latn"),
    "marian": (">>eng<<", ">>deu<<", ">>fra<<"),
}


def make_service(path: Path, codes: Sequence[str], around: tuple[str, str], begun: tuple[int | str, ...]) -> Service:
    """around: what the tokenizer puts before and after a text. begun: what the decoder begins with."""
    path = build.write_checkpoint(path)
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(path / "tokenizer.json"))
    fast.add_special_tokens([AddedToken(code, special=True) for code in codes])
    pieces = " ".join((*around[:1], "$A", *around[1:])).split()
    ids = [(piece, fast.token_to_id(piece)) for piece in pieces if piece != "$A"]
    fast.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=ids)
    fast.save(str(path / "tokenizer.json"))
    engine = FakeEngine.saying([10], finish="eos_token", delay_s=0.0)
    start = tuple(fast.token_to_id(id) if isinstance(id, str) else id for id in begun)
    engine.info = type(engine.info)(
        **{name: getattr(engine.info, name) for name in engine.info.__struct_fields__} | {"decoder_ids": start}
    )
    return Service.load(ApiConfig("m", str(path)), engine)


@pytest.mark.parametrize(
    ("codes", "around", "begun", "source", "target", "ids", "decoder"),
    [
        ("m2m_100", ("__en__", "</s>"), (2,), "fr", "de", ("__fr__", "</s>"), (2, "__de__")),
        ("m2m_100", ("", "</s>"), (2,), "fr", "de", ("__fr__", "</s>"), (2, "__de__")),
        ("m2m_100", ("__en__", "</s>"), (2, "__fr__"), None, "de", ("__en__", "</s>"), (2, "__de__")),
        ("m2m_100", ("__en__", "</s>"), (2, "__fr__"), None, None, ("__en__", "</s>"), (2, "__fr__")),
        ("nllb", ("", "</s> eng_Latn"), (2,), "deu_Latn", "fra_Latn", ("", "</s> deu_Latn"), (2, "fra_Latn")),
        ("mbart", ("", "</s> en_XX"), ("de_DE",), "fr_XX", None, ("", "</s> fr_XX"), ("de_DE",)),
        ("mbart", ("", "</s> en_XX"), ("de_DE",), None, "fr_XX", ("", "</s> en_XX"), ("fr_XX",)),
        ("marian", ("", "</s>"), (7,), None, "fra", (">>fra<<", "</s>"), (7,)),
    ],
)
async def test_where_the_tokens_go(tmp_path, codes, around, begun, source, target, ids, decoder):
    service = make_service(tmp_path / "model", CODES[codes], around, begun)
    fast = service.tokenizer.fast
    params = SamplingParams(src_lang=source, tgt_lang=target)
    request = (await service.prepare("hello you", params, TGI)).request
    text = service.tokenizer.encode("hello you", add_special_tokens=False)
    before, after = ([fast.token_to_id(piece) for piece in part.split()] for part in ids)
    assert request.prompt_ids == [*before, *text, *after]
    assert request.decoder_ids == tuple(fast.token_to_id(id) if isinstance(id, str) else id for id in decoder)
    short = await service.prepare("hello you", SamplingParams(src_lang=source, tgt_lang=target, truncate=4), TGI)
    assert len(short.request.prompt_ids) == 4
    service.close()


@pytest.mark.parametrize(
    ("begun", "given", "message"),
    [
        ((2,), {"tgt_lang": "xx"}, "`tgt_lang` xx is not one of the model's 3 languages, such as de, en, fr"),
        ((2,), {"src_lang": "deu"}, "`src_lang` deu is not one of the model's 3 languages, such as de"),
        ((), {"tgt_lang": "de"}, "`tgt_lang` is for translation models, and this one has no encoder"),
    ],
)
async def test_refusals_name_what_there_is(tmp_path, begun, given, message):
    service = make_service(tmp_path / "model", CODES["m2m_100"], ("__en__", "</s>"), begun)
    with pytest.raises(ValidationError) as caught:
        await service.prepare("hello", SamplingParams(**given), TGI)
    assert message in str(caught.value)
    service.close()
