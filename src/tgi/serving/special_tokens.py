"""Which tokens a checkpoint's files add to its tokenizer, and in which roles.

Five places can name them: tokenizer.json, `added_tokens_decoder` and further keys of
tokenizer_config.json, special_tokens_map.json and added_tokens.json. Their order of precedence, and thereby the ids of
tokens that tokenizer.json does not hold, is that of transformers 5.24 (`PreTrainedTokenizerBase._from_pretrained` and
`TokenizersBackend.__init__`), with one leniency: a token written as an object need not say that it is one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from tgi.errors import ModelError
from tgi.serving.tokenizer_library import TokenizerError, guarded

logger = logging.getLogger(__name__)

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Token: TypeAlias = str | AddedToken
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
"""Names of transformers 5 and 4 for the same: special tokens without a role."""


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """The small files of a tokenizer, parsed; each is empty where there is no such file."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """tokenizer_config.json, or the file given in its place."""
    special_map: Mapping[str, Any] = field(default_factory=dict)
    """special_tokens_map.json."""
    added: Mapping[str, Any] = field(default_factory=dict)
    """added_tokens.json: text -> id."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """config.json."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What the files name."""

    settings: Mapping[str, Any]
    """The keys of tokenizer_config.json after the merge."""
    named: Mapping[str, Token]
    """Role (`bos_token`, also a model's own such as `image_token`) -> token."""
    extra: tuple[Token, ...]
    """Special tokens without a role."""
    added: Mapping[int, AddedToken]
    """Tokens listed with an id, which is only where they stand in the order of adding."""


def merge(files: TokenFiles, stored: Mapping[int, AddedToken], defaults: Mapping[str, str | None]) -> SpecialTokens:
    """All that the files say. `stored`: the added tokens of tokenizer.json; `defaults`: for roles without a word.

    Raises ModelError for a value that is no token.
    """
    settings, specific = _unify_extra(dict(files.config)), {}
    for key in [key for key in settings if _is_own_role(key) and isinstance(settings[key], str)]:
        specific[key] = settings.pop(key)
    _move_own_roles(settings, specific)
    listed = settings.pop("added_tokens_decoder", None)
    if listed is not None:
        pairs = _decoder_tokens(listed)
    else:
        for key, value in files.special_map.items():
            settings[key] = _mapped(key, value, settings.get(_EXTRA))
        _move_own_roles(settings, specific)
        pairs = [*_legacy_tokens(files.added, settings), *stored.items()]
    if _ADDITIONAL in settings and _EXTRA not in settings:
        settings[_EXTRA] = settings.pop(_ADDITIONAL)
    own = {key: value for key, value in settings.items() if _is_own_role(key) and _is_token(value)} | specific
    by_text = {token.content: token for _, token in pairs}
    named = {}
    for role in (*ROLES, *{**dict.fromkeys(filter(_is_own_role, defaults)), **own}):
        stated = settings if role in ROLES else own
        if token := _token(stated[role] if role in stated else defaults.get(role), role):
            named[role] = by_text.get(str(token), token) if role in ROLES and role in stated else token
    extra = settings.get(_EXTRA) or []
    if not isinstance(extra, list):
        raise ModelError(f"the tokenizer's `{_EXTRA}` must be a list or an object of tokens, it is {_shown(extra)}")
    return SpecialTokens(settings, named, tuple(t for value in extra if (t := _token(value, _EXTRA))), dict(pairs))


def register(fast: FastTokenizer, tokens: SpecialTokens) -> None:
    """Add the tokens to the tokenizer, so that none is split and every named one is special.

    Raises ModelError.
    """
    adding: list[Token] = [token for _, token in sorted(tokens.added.items())]
    known = {token.content for token in fast.get_added_tokens_decoder().values()} | {str(token) for token in adding}
    for token in (*tokens.named.values(), *tokens.extra):
        if str(token) not in known and token not in adding:
            adding.append(token)
    names = {str(token) for token in tokens.named.values()}
    special = [_special(token, str(token) in names) for token in adding]
    try:
        guarded(fast.add_tokens, special)
    except TokenizerError as error:
        raise ModelError(f"the tokenizer's special tokens cannot be added: {error}") from error
    _say_moved(fast, tokens.added)


def _special(token: Token, named: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if named and not token.special:
        token.special = True
    return token


def _say_moved(fast: FastTokenizer, added: Mapping[int, AddedToken]) -> None:
    moved = [(token.content, id, fast.token_to_id(token.content)) for id, token in added.items() if token.content]
    moved = [entry for entry in moved if entry[1] != entry[2]]
    if moved:
        text, stated, given = moved[0]
        logger.warning(
            "%d added tokens have other ids than the tokenizer's files say, as in transformers; "
            "the first is %r: %s, not %d. Save the tokenizer anew to make them agree",
            len(moved), text, given, stated,
        )  # fmt: skip


def _unify_extra(settings: dict[str, Any]) -> dict[str, Any]:
    if _ADDITIONAL in settings and not settings.get(_EXTRA):
        settings[_EXTRA] = settings.pop(_ADDITIONAL)
    return settings


def _move_own_roles(settings: dict[str, Any], specific: dict[str, Any]) -> None:
    """`extra_special_tokens` as an object gives roles of the model's own."""
    if isinstance(settings.get(_EXTRA), dict):
        specific.update(settings.pop(_EXTRA))


def _is_own_role(key: str) -> bool:
    return key.endswith("_token") and key not in ROLES


def _mapped(key: str, value: Any, extra: Any) -> Any:
    """A value of special_tokens_map.json, which goes before tokenizer_config.json."""
    if isinstance(value, dict) and key != _EXTRA:
        return _token(value | {"special": True}, key)
    if key == _EXTRA and isinstance(value, list):
        existing = list(extra or [])
        given = [_token(one | {"special": True} if isinstance(one, dict) else one, key) for one in value]
        return existing + [token for token in given if token not in existing]
    return value


def _decoder_tokens(listed: Any) -> list[tuple[int, AddedToken]]:
    """`added_tokens_decoder`: id -> token, as tokenizer_config.json holds it."""
    if not isinstance(listed, dict):
        raise ModelError(f"the tokenizer's `added_tokens_decoder` must be an object, it is {_shown(listed)}")
    pairs = []
    for id, value in listed.items():
        token = _token(value, "added_tokens_decoder")
        if not isinstance(token, AddedToken) or not (id.isdecimal() and len(id) < 20):
            raise ModelError(
                f"the tokenizer's `added_tokens_decoder` must map ids to tokens, {id!r} is not such a pair"
            )
        pairs.append((int(id), token))
    return pairs


def _legacy_tokens(listed: Mapping[str, Any], settings: Mapping[str, Any]) -> list[tuple[int, AddedToken]]:
    """added_tokens.json: text -> id, special where the text has a role."""
    # Of tokens that are still objects here transformers does not notice that they are the same.
    roles = {str(value) for role in ROLES if isinstance(value := settings.get(role), str | AddedToken)}
    roles |= {str(value) for value in _iterable(settings.get(_EXTRA)) if isinstance(value, str | AddedToken)}
    pairs = []
    for text, id in listed.items():
        if not isinstance(id, int) or isinstance(id, bool) or id < 0:
            raise ModelError(f"added_tokens.json must map texts to ids; of {text[:64]!r} it is {_shown(id)}")
        special = text in roles
        token = _added({"content": text, "normalized": not special, "special": special}, "added_tokens.json")
        pairs.append((id, token))
    return pairs


def _iterable(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | dict) else ()


def _is_token(value: Any) -> bool:
    return isinstance(value, str | AddedToken) or (isinstance(value, dict) and value.get("__type") == "AddedToken")


def _token(value: Any, name: str) -> Token | None:
    """A token as written: a text, or an object with its text and flags; None for "there is none"."""
    if value is None or value == "":
        return None
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, dict):
        return _added(value, name)
    if not isinstance(value, str):
        raise ModelError(f"the tokenizer's `{name}` must be a token, it is {_shown(value)}")
    _check_text(value, name)
    return value


def _added(value: Mapping[str, Any], name: str) -> AddedToken:
    content, flags = value.get("content"), {flag: value[flag] for flag in _FLAGS if flag in value}
    if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise ModelError(f"the tokenizer's `{name}` must be a token, it is {_shown(dict(value))}")
    _check_text(content, name)
    return AddedToken(content, **flags)


def _check_text(text: str, name: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ModelError(
            f"the tokenizer's `{name}` holds half of a surrogate pair, which is no text: {ascii(text)[:64]}"
        )


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 64 else f"{text[:64]}..."
