"""What a chat template can read of a conversation, and the conversation brought into that form.

Owns the forms of content and what becomes of a role that the template does not name. Does not own how
the forms are found out (`template_probe`). Used on both sides of `template_helper`; knows no jinja2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tgi.errors import TemplateError

STRING = "string"
"""One text."""
PARTS = "parts"
"""A list of `{"type": "text", "text": ...}`."""
ONE_PART = "one part"
"""Such a list, of which only one is shown."""
EITHER = "either"
"""A text or a list, as the client has sent it."""
FORMS = (STRING, PARTS, ONE_PART, EITHER)

ROLES = ("user", "system", "assistant", "tool")
"""Roles whose form is known; any other has the user's."""


@dataclass(frozen=True)
class Wants:
    """What a template wants; the default is what a template gets that could not be tried."""

    forms: Mapping[str, str] = field(default_factory=dict)
    """Role -> one of FORMS; a role that is missing has the user's, the user's default is STRING."""
    names_developer: bool = False
    """Whether the template names the role `developer`."""
    shows_user: bool = True
    """Whether the text of a user shows in the prompt, in whatever form."""

    def form(self, role: Any) -> str:
        user = self.forms.get("user", STRING)
        return self.forms.get(role, user) if isinstance(role, str) else user

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types, for `of`."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Any) -> Wants:
        """The inverse of `plain`; anything in it that makes no sense is left out."""
        plain = plain if isinstance(plain, dict) else {}
        forms = plain.get("forms")
        forms = forms if isinstance(forms, dict) else {}
        return cls(
            {role: form for role, form in forms.items() if role in ROLES and form in FORMS},
            plain.get("names_developer") is True,
            plain.get("shows_user") is not False,
        )


def shaped(messages: list[dict[str, Any]], wants: Wants) -> list[dict[str, Any]]:
    """The messages as the template wants them; those given are not changed.

    Raises TemplateError when a part that is no text meets a template that reads text only.
    """
    return [_shaped(message, wants) for message in messages]


def _shaped(message: dict[str, Any], wants: Wants) -> dict[str, Any]:
    if message.get("role") == "developer" and not wants.names_developer:
        message = {**message, "role": "system"}
    content, form = message.get("content"), wants.form(message.get("role"))
    if isinstance(content, str) and form in (PARTS, ONE_PART):
        return {**message, "content": [_part(content)]}
    if isinstance(content, list) and form == STRING:
        return {**message, "content": _joined(content)}
    if isinstance(content, list) and form == ONE_PART:
        return {**message, "content": _merged(content)}
    return message


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def _joined(parts: list[Any]) -> str:
    texts = [_text(part) for part in parts]
    if None in texts:
        raise TemplateError("the model's template takes text only: send no other content parts")
    return "".join(text for text in texts if text is not None)


def _merged(parts: list[Any]) -> list[Any]:
    """All text in the place of the first text."""
    texts = [text for part in parts if (text := _text(part)) is not None]
    if len(texts) < 2:
        return parts
    first = next(place for place, part in enumerate(parts) if _text(part) is not None)
    others = [part for part in parts if _text(part) is None]
    return [*others[:first], _part("".join(texts)), *others[first:]]
