"""Grammars on llguidance: the one place that knows how a `messages.Grammar` is compiled, and within which limits.

Used by the engine, which constrains with them, and by the process that tries them first (`serving.grammars.process`):
what is compiled there in less stack and memory is compiled in the engine, too. Imports no torch.
"""

from __future__ import annotations

import re

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from tgi.messages import Grammar, Vocabulary
from tgi.untrusted import printable

MAX_TEXT = 512 * 1024
"""Characters of a grammar. Of 1.5 MB compiled, llguidance takes 100 MB and a second."""
WHITESPACE = r"[ \t]{1,8}|\r?\n[ \t]{0,40}"
"""Between the tokens of JSON: some blanks, or a new line and its indentation. Without a bound, models that have lost
their way write blanks until their answer is cut."""
MAX_FORCED = 1 << 15
"""Bytes of text that a grammar may leave without a choice: they are cut into tokens at once, while a step waits."""
REHEARSED = 6
"""Tokens."""
SHOWN = 300
"""Characters of llguidance's reasons that are passed on."""


_SOURCE = re.compile(r"\s*(\d+ \||\^+\s*$)")
"""Lines that show a piece of the grammar, which may be ours around the user's."""
_PLACE = re.compile(r"(at )?\d+\(\d+\): ")


class GrammarError(Exception):
    """The grammar cannot be used; the message is a clause that says why."""


def parser_limits() -> LLParserLimits:
    """llguidance's own limits of work, with less memory for the states of a lexer (1 to 2 kB each)."""
    return LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


def make_tokenizer(vocabulary: Vocabulary, vocab_size: int) -> LLTokenizer:
    """vocab_size: rows of the model's logits. Takes 0.3 s for 50 000 tokens, and holds the interpreter's lock.

    Raises ValueError for a tokenizer.json that llguidance does not know.
    """
    ends = list(vocabulary.eos_token_ids) or [next(iter(vocabulary.special_ids), 0)]  # llguidance wants one
    if vocabulary.tokenizer:
        text = vocabulary.tokenizer.decode()
        try:
            return LLTokenizer(text, n_vocab=vocab_size, eos_token=ends)
        except ValueError as error:
            if "too small" not in str(error):
                raise
        return LLTokenizer(text, eos_token=ends)  # the model has fewer tokens than the tokenizer
    return LLTokenizer(TokenizerWrapper(_Table(vocabulary, ends[0], vocab_size)), eos_token=ends)


class _Table:
    """A tokenizer as llguidance wants it, of the bytes of each token alone: texts are cut greedily."""

    def __init__(self, vocabulary: Vocabulary, end: int, vocab_size: int) -> None:
        self.tokens = [*vocabulary.tokens, *[b""] * (vocab_size - len(vocabulary.tokens))]
        self.special_token_ids = list(vocabulary.special_ids)
        self.eos_token_id = end
        self.bos_token_id = None
        special = set(vocabulary.special_ids)
        self._ids = {token: id for id, token in enumerate(self.tokens) if token and id not in special}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            lengths = range(min(self._longest, len(text) - at), 0, -1)
            length = next((length for length in lengths if text[at : at + length] in self._ids), 0)
            if not length:
                break
            ids.append(self._ids[text[at : at + length]])
            at += length
        return ids


def compile_grammar(tokenizer: LLTokenizer, grammar: Grammar) -> LLMatcher:
    """A matcher at the beginning of an answer; copy it for each. Lets other threads run meanwhile. Raises GrammarError.

    Recurses as deeply as the grammar does, outside of Python: give its thread a large stack.
    """
    if len(grammar.text) > MAX_TEXT:
        raise GrammarError(f"it has {len(grammar.text)} characters, the limit is {MAX_TEXT}")
    try:
        matcher = LLMatcher(tokenizer, _translated(grammar), log_level=0, limits=parser_limits())
    except ValueError as error:
        raise GrammarError(reason_of(str(error))) from None
    if not matcher.is_error():
        matcher.compute_bitmask()
        matcher.reset()
    if matcher.is_error():
        raise GrammarError(reason_of(matcher.get_error()))
    return matcher


def rehearse(tokenizer: LLTokenizer, matcher: LLMatcher) -> None:
    """Begin an answer, since some limits show only then: thousands of optional properties or alternatives.

    Raises GrammarError.
    """
    liked = [tokenizer.tokenize_str(text)[:1] for text in ('{"', '["', '"', "{", "[")]
    likes = [ids[0] for ids in liked if ids]
    matcher = matcher.deep_copy()
    for _ in range(REHEARSED):
        if matcher.is_stopped():
            break
        if (forced := len(matcher.compute_ff_bytes())) > MAX_FORCED:
            raise GrammarError(f"it prescribes {forced} bytes in one piece, and may prescribe {MAX_FORCED}")
        if forced and matcher.try_consume_tokens(matcher.compute_ff_tokens()) and matcher.is_stopped():
            break
        allowed = int.from_bytes(matcher.compute_bitmask(), "little")
        if not allowed:
            break
        token = next((id for id in likes if allowed >> id & 1), (allowed & -allowed).bit_length() - 1)
        matcher.consume_token(token)
    if matcher.is_error():
        raise GrammarError(reason_of(matcher.get_error()))


def _translated(grammar: Grammar) -> str:
    if grammar.kind == "regex":
        if (len(grammar.text) - len(grammar.text.rstrip("\\"))) % 2:  # which llguidance would leave out
            raise GrammarError("it ends with a backslash that escapes nothing")
        return LLMatcher.grammar_from_regex(ascii_digits(grammar.text))
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(grammar.text)
    text = "{}" if grammar.text.strip() == "true" else grammar.text
    return LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": WHITESPACE})


def ascii_digits(pattern: str) -> str:
    r"""The pattern with `\d` as 0 to 9: a number in Bengali is one to Unicode, but to nobody who asks for digits."""
    return re.sub(r"\\(.)", lambda escape: "[0-9]" if escape[1] == "d" else escape[0], pattern, flags=re.DOTALL)


def reason_of(error: str) -> str:
    """llguidance's message without its state, in one line."""
    text = error.partition("<state>")[0].partition("<non-verbose/>")[0]
    text = "\n".join(line for line in text.splitlines() if not _SOURCE.match(line))
    text = _PLACE.sub("", text.strip(), count=1).removeprefix("failed to compile JSON schema: ")
    if text.strip() in ("NoExtension", "NoExtensionBias"):
        return "nothing fits it"
    if text.startswith("oneOf constraints are not supported"):
        return "oneOf is supported only where its parts surely exclude each other: use anyOf instead"
    return printable(" ".join(text.split()), SHOWN)
