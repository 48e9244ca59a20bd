"""The languages of a translation: what a request's codes mean to the model.

Multilingual models have a token for each language. It stands beside the input to name the source, and begins the
answer, or stands before the input, to name the target. Owns how a code becomes that token and where it goes; a code is
what Hugging Face's translation clients send: `en`, `en_XX`, `eng_Latn`, `fra`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tgi.serving.tokenizer import Tokenizer
from tgi.serving.validation import SHOWN_CHARACTERS, Checker
from tgi.shorten import shorten

LANGUAGE = re.compile(r"__[a-z_]{2,12}__|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
"""Tokens of M2M100; of mBART and NLLB."""


SOME = 12
"""Codes that a message names."""


@dataclass(frozen=True, slots=True)
class Route:
    """From which language to which, in tokens; None: as the tokenizer or the model has it."""

    source: int | None = None
    prefix: int | None = None
    """Names the target, before the input."""
    target: int | None = None
    """Names the target, at the beginning of the answer."""


class Languages:
    """The language tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.codes = sorted(token.strip("_") for token in tokenizer.added.values() if LANGUAGE.fullmatch(token))
        """Of the languages that have a token of their own."""

    def route(self, check: Checker, encodes: bool) -> Route:
        """What the request's codes mean; encodes: the model has an encoder. Raises ValidationError."""
        params = check.params
        if params.src_lang is None and params.tgt_lang is None:
            return Route()
        if not encodes:
            given = "src_lang" if params.tgt_lang is None else "tgt_lang"
            check.fail(
                given, f"`{given}` is for translation models, and this one has no encoder: ask for it in `inputs`"
            )
        source = prefix = target = None
        if params.src_lang is not None and (source := self.token_of(params.src_lang)) is None:
            self._refuse(check, "src_lang", params.src_lang)
        if params.tgt_lang is not None:
            target, prefix = self.token_of(params.tgt_lang), self.prefix_of(params.tgt_lang)
            if target is None and prefix is None:
                self._refuse(check, "tgt_lang", params.tgt_lang)
        return Route(source, prefix if target is None else None, target)

    def _refuse(self, check: Checker, name: str, code: str) -> NoReturn:
        shown = shorten(code, SHOWN_CHARACTERS)
        if not self.codes:
            check.fail(name, f"`{name}` {shown} is unknown: this model's tokenizer has no languages")
        near = difflib.get_close_matches(code, self.codes, n=3, cutoff=0.4)
        some = near or self.codes[:SOME]
        check.fail(
            name, f"`{name}` {shown} is not one of the model's {len(self.codes)} languages, such as {', '.join(some)}"
        )

    def apply(self, route: Route, text: str, add_special_tokens: bool, truncate: int | None) -> list[int]:
        """The ids of a text with the tokens of its languages, at most `truncate` of them."""
        before, after = self._tokenizer.around
        has_place = add_special_tokens and any(map(self.is_language, (*before, *after)))
        added = (route.prefix is not None) + (route.source is not None and not has_place)
        ids = self._tokenizer.encode(text, add_special_tokens, truncate and max(1, truncate - added))
        if route.source is not None:
            ids = self.with_source(ids, route.source) if has_place else [route.source, *ids]
        return ids if route.prefix is None else [route.prefix, *ids]

    def token_of(self, code: str) -> int | None:
        """The token of a language that begins answers, or names the source."""
        for text in (code, f"__{code}__"):
            id = self._tokenizer.token_id(text)
            if id is not None and self.is_language(id):
                return id
        return None

    def prefix_of(self, code: str) -> int | None:
        """The token of a language that goes before the input to name the target (Marian)."""
        return self._tokenizer.token_id(f">>{code}<<")

    def is_language(self, id: int) -> bool:
        return LANGUAGE.fullmatch(self._tokenizer.added.get(id, "")) is not None

    def with_source(self, ids: Sequence[int], source: int) -> list[int]:
        """The ids of an encoded text with this token in the place of the one that names the source."""
        before, after = self._tokenizer.around
        places = [*range(len(before)), *range(len(ids) - len(after), len(ids))]
        for place in places:
            if self.is_language(ids[place]):
                return [*ids[:place], source, *ids[place + 1 :]]
        return list(ids)

    def beginning(self, decoder_ids: Sequence[int], target: int | None) -> tuple[int, ...]:
        """What an answer in this language begins with; decoder_ids: of an answer in the model's own."""
        if target is None:
            return tuple(decoder_ids)
        start = decoder_ids[0]
        return (target,) if self.is_language(start) else (start, target)
