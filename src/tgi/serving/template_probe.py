"""Finds out what a template wants by rendering small conversations with it.

A template that iterates over parts shows nothing of a string, one that joins strings fails on a list
or writes the list out: what shows in the prompt tells them apart, however the template is written.
Runs in the process of `template_process`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import nodes

from tgi.errors import TemplateError
from tgi.serving.template_render import Renderer
from tgi.serving.template_wants import EITHER, ONE_PART, PARTS, ROLES, STRING, Wants

Messages = list[dict[str, Any]]

_FIRST, _SECOND, _DUMP = "zq1first", "zq2second", "zq3dump"
"""Words that no template contains. Compared without case, since a template may change it."""
_OTHER = "other"
MOST = 1_000_000
"""Characters of a small conversation's prompt; a template that writes more is not tried further."""
_DEVELOPER = re.compile(r"\bdeveloper\b")


def probe(renderer: Renderer, name: str) -> Wants:
    """What the template wants. Raises TemplateError when it does not compile."""
    renderer.compile(name)
    forms: dict[str, str] = {}
    for role in ROLES:
        form = _form(renderer, name, role, forms.get("user", STRING))
        if form is not None:
            forms[role] = form
    return Wants(forms, _names_developer(renderer, name), "user" in forms)


def _form(renderer: Renderer, name: str, role: str, users: str) -> str | None:
    """The form in which content of a role shows; None when it shows in none."""
    text = any(_FIRST in shown for shown in _shown(renderer, name, role, _FIRST, users))
    parts = [{"type": "text", "text": word, _DUMP: _DUMP} for word in (_FIRST, _SECOND)]
    some = all_ = False
    for shown in _shown(renderer, name, role, parts, users):
        found = {word for word in (_FIRST, _SECOND) if word in shown}
        if _DUMP not in shown:  # else the list itself was written out
            some, all_ = some or bool(found), all_ or len(found) == 2
    if all_:
        return EITHER if text else PARTS
    if text:
        return STRING
    return ONE_PART if some else None


def _shown(renderer: Renderer, name: str, role: str, content: Any, users: str) -> Iterator[str]:
    """What shows of some conversations that hold the content, in lower case; of none where it cannot be rendered."""
    for messages in _conversations(role, content, users):
        try:
            yield renderer.render(name, messages, most=MOST).lower()
        except TemplateError:
            continue


def _conversations(role: str, content: Any, users: str) -> Iterator[Messages]:
    """Conversations that templates accept, with `content` in a message of `role`."""
    text = isinstance(content, str)
    others = _OTHER if (users in (STRING, EITHER) if role != "user" else text) else [{"type": "text", "text": _OTHER}]
    same = _OTHER if text else [{"type": "text", "text": _OTHER}]
    user = {"role": "user", "content": others}
    assistant = {"role": "assistant", "content": same}
    message = {"role": role, "content": content}
    if role == "user":
        yield [message]
        for system in (_OTHER, same):
            yield [{"role": "system", "content": system}, message]
            yield [{"role": "system", "content": system}, user, assistant, message]
        yield [user, assistant, message]
    elif role == "system":
        yield [message, user]
        yield [message, user, assistant, user]
    elif role == "assistant":
        yield [user, message]
        yield [user, message, user]
        yield [{"role": "system", "content": same}, user, message, user]
    else:
        call = {"id": "probe0001", "type": "function", "function": {"name": "probe", "arguments": {}}}
        answer = {**message, "name": "probe", "tool_call_id": "probe0001"}
        for empty in ("", same):
            yield [user, {"role": "assistant", "content": empty, "tool_calls": [call]}, answer]
        yield [user, assistant, answer]


def _names_developer(renderer: Renderer, name: str) -> bool:
    """Whether the role stands in the template's code; the word in its prose does not count."""
    for node in renderer.parse(name).find_all((nodes.Const, nodes.Compare, nodes.Getattr, nodes.Keyword)):
        match node:
            case nodes.Const(value=value):
                found = value == "developer"
            case nodes.Getattr(attr=word) | nodes.Keyword(key=word):
                found = word == "developer"
            case _:  # such as: role in 'system developer'
                words = [const.value for const in node.find_all(nodes.Const) if isinstance(const.value, str)]
                found = any(_DEVELOPER.search(word) for word in words)
        if found:
            return True
    return False
