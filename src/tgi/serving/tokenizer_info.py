"""What there is to know of a tokenizer beside its vocabulary, as its tokenizer_config.json would say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

from tgi.errors import TemplateError
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.tokenizer import Tokenizer

PATHS = ("name_or_path", "cache_dir", "chat_template")
"""Keys that are left out, as those that end in `_file`: paths of this machine, and what is told anew."""
DEFAULT_CLASS = "PreTrainedTokenizerFast"


def tokenizer_info(tokenizer: Tokenizer, template: ChatTemplate) -> dict[str, Any]:
    """Settings, special tokens by role, added tokens by id, and the chat template that is used; all of it JSON."""
    settings = tokenizer.special.settings
    told = {key: plain(value) for key, value in settings.items() if not key.endswith("_file") and key not in PATHS}
    told |= tokenizer.named_tokens
    added = tokenizer.fast.get_added_tokens_decoder()
    told["added_tokens_decoder"] = {str(id): plain(token) for id, token in sorted(added.items())}
    told["tokenizer_class"] = str(told.get("tokenizer_class") or DEFAULT_CLASS)
    try:
        told["chat_template"] = template.source()
    except TemplateError:
        told["chat_template"] = None
    return told


def plain(value: Any) -> Any:
    """As JSON has it: numbers beyond 64 bits as floats, tokens as objects, others as texts."""
    if isinstance(value, AddedToken):
        names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        return {name: getattr(value, name) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)
