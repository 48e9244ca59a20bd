"""Content and roles reach a template in the form it wants, however the client has sent them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests import small_tokenizers as build
from tgi.errors import TemplateError
from tgi.serving.chat_template import ChatTemplate, continues
from tgi.serving.template_probe import probe
from tgi.serving.template_render import Renderer
from tgi.serving.template_wants import EITHER, ONE_PART, PARTS, STRING, Wants, shaped

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LOOP = "{% for m in messages %}[{{ m.role }}]BODY{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
BODIES = {
    # parts, in the ways in which templates read them
    "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}": PARTS,
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text | trim }} {% endif %}{% endfor %}": PARTS,
    "{% for p in m.content if p['type'] == 'text' %}{{ p['text'] | upper }}{% endfor %}": PARTS,
    "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p['text'] + ' ' }}{% endfor %}": PARTS,
    "{{ m.content | map(attribute='text') | join('\n') }}": PARTS,
    "{% macro show(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}{{ show(m['content']) }}": PARTS,
    "{{ ':' if m.content[0].type == 'image' else ': ' }}{% for p in m.content %}{{ p.text }}{% endfor %}": PARTS,
    "{% set ns = namespace(t='') %}{% for p in m.content %}{% set ns.t = ns.t ~ p.text %}{% endfor %}{{ ns.t }}": PARTS,
    "{{ m['content'][0]['text'] }}": ONE_PART,
    "{{ m.content[-1].text | trim }}": ONE_PART,
    "{{ (m.content | first).text }}": ONE_PART,
    # both
    "{% set c = m.content %}{% if c is string %}{{ c }}{% else %}{% for p in c %}{{ p.text }}-"
    "{% endfor %}{% endif %}": EITHER,
    "{{ m.content if m.content is string else m.content | map(attribute='text') | join(' ') }}": EITHER,
    # strings
    "{{ m.content }}": STRING,
    "{{ 'x' + m['content'] }}": STRING,
    "{{ m.content | trim | lower }}": STRING,
    "{{ m.content | tojson }}": STRING,
    "{{ m.content | string }}": STRING,
    "{{ m.content if m.content is string else m.content[0].text }}": STRING,
    "{% if m.content is string %}{{ m.content }}{% endif %}": STRING,
    "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content | tojson }}{% endif %}": STRING,
    "{% for letter in m.content %}{{ letter }}{% endfor %}": STRING,
}
CONTENTS: list[Any] = [
    "Tell me, é <b>",
    [{"type": "text", "text": "Only one"}],
    [{"type": "text", "text": "First "}, {"type": "text", "text": "and second"}],
]


@pytest.fixture(scope="module")
def reference():
    """transformers' own rendering."""
    from transformers import PreTrainedTokenizerFast

    fast = build.byte_level()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, **TOKENS)
    return lambda template, messages, **options: tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, **options
    )


class Rendered:
    """A template in this process, which spares the start of one for each."""

    def __init__(self, template: str) -> None:
        self._renderer = Renderer({"default": template}, TOKENS)
        self.wants = probe(self._renderer, "default")

    def render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        return self._renderer.render("default", messages, wants=self.wants, **options)


def parts_of(content: Any) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(content: Any) -> str:
    return "".join(part["text"] for part in parts_of(content))


def in_form(content: Any, form: str) -> Any:
    """What a user of transformers would have to write for a template of that form."""
    return {
        PARTS: parts_of(content),
        ONE_PART: [{"type": "text", "text": text_of(content)}],
        EITHER: content,
        STRING: text_of(content),
    }[form]


@pytest.mark.parametrize("body", BODIES)
def test_content_comes_in_the_form_that_the_template_reads(reference, body):
    template, form = LOOP.replace("BODY", body), BODIES[body]
    ours = Rendered(template)
    assert ours.wants.form("user") == form
    for content in CONTENTS:
        for answer in (None, *CONTENTS):
            messages = [{"role": "user", "content": content}]
            messages += [] if answer is None else [{"role": "assistant", "content": answer}, messages[0]]
            given = [{**message, "content": in_form(message["content"], form)} for message in messages]
            text = ours.render(messages)
            assert text == reference(template, given, add_generation_prompt=True)
            shown = [part["text"] for part in parts_of(content)] if form in (PARTS, EITHER) else [text_of(content)]
            assert all(piece.strip().lower() in text.lower() for piece in shown)
        continued = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": content}]
        assert continues(continued)
        if "lower" not in body and "upper" not in body:
            given = [{**message, "content": in_form(message["content"], form)} for message in continued]
            ours_cut = ours.render(continued, continue_final_message=True)
            assert ours_cut == reference(template, given, continue_final_message=True)


@pytest.mark.parametrize("system", ["trimmed", "not alone", "first part"])
def test_each_role_has_its_own_form(reference, system):
    """As in templates of vision models: the system message as text, the turns as parts."""
    shown = {
        "trimmed": "{{ one['content'] | trim }}",
        "not alone": "{% if not messages[1:] %}{{ raise_exception('no user') }}{% endif %}{{ '<' + one.content }}",
        "first part": "{{ one.content if one.content is string else one.content[0].text }}",
    }[system]
    head = "{% set one = messages[0] %}{% if one.role == 'system' %}BODY{% set messages = messages[1:] %}{% endif %}"
    head = head.replace("BODY", shown)
    turns = (
        "{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
        "{% else %}{{ '/' + m.content + '/' }}{% endif %}{% endfor %}"
    )
    ours = Rendered(head + turns)
    wants = ours.wants
    assert (wants.form("system"), wants.form("user"), wants.form("assistant")) == (STRING, PARTS, STRING)
    for one, two, three in itertools.product(CONTENTS, repeat=3):
        messages = [
            {"role": "system", "content": one},
            {"role": "user", "content": two},
            {"role": "assistant", "content": three},
        ]
        given = [
            {**message, "content": in_form(message["content"], wants.form(message["role"]))} for message in messages
        ]
        assert ours.render(messages, add_generation_prompt=False) == reference(head + turns, given)


@pytest.mark.parametrize(
    "demand",
    [
        "messages[0].role == 'system'",
        "messages | length > 2",
        "messages[0].role == 'system' and messages | length > 3",
        "messages[0].role == 'user'",
        "messages | map(attribute='role') | unique | list == messages | map(attribute='role') | list",
    ],
)
def test_templates_with_demands_are_tried_with_what_they_demand(demand):
    parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    strict = "{% if not (" + demand + ") %}{{ raise_exception('no') }}{% endif %}"
    assert Rendered(strict + parts).wants.form("user") == PARTS
    assert Rendered(strict + "{{ '' + messages[-1].content }}").wants.form("user") == STRING


def test_results_of_tools_have_a_form_too():
    ours = Rendered(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content + '!' }}{% elif m.tool_calls %}call"
        "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}]
    messages = [
        {"role": "user", "content": "Call"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": [{"type": "text", "text": "re"}, {"type": "text", "text": "sult"}]},
    ]
    assert ours.render(messages) == "Callcallresult!"


def test_named_templates_have_forms_of_their_own():
    parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    ours = ChatTemplate({"default": "{{ 'x' + messages[0].content }}", "tool_use": parts})
    messages = [{"role": "user", "content": "Hi"}]
    assert (ours.render(messages), ours.render(messages, tools=[])) == ("xHi", "Hi")
    ours.close()


def test_a_template_that_shows_nothing_is_warned_about():
    silent = ChatTemplate({"default": "{% for m in messages %}{{ m.text }}{% endfor %}"})
    assert silent.inspect() == ["The chat template 'default' does not show what a user writes"]
    broken = ChatTemplate({"default": "{% for %}"})
    (warning,) = broken.inspect()
    assert warning.startswith("The chat template 'default' cannot be used: syntax error")
    with pytest.raises(TemplateError, match="syntax error"):
        broken.render([{"role": "user", "content": "x"}])
    for template in (silent, broken):
        template.close()


def test_a_part_that_is_no_text_needs_a_template_that_reads_parts():
    image = {"type": "image", "url": "x"}
    content = [{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": content}]
    with pytest.raises(TemplateError, match="takes text only"):
        shaped(messages, Wants())
    assert shaped(messages, Wants({"user": PARTS})) == messages
    merged = [{"type": "text", "text": "ab"}, image]
    assert shaped(messages, Wants({"user": ONE_PART})) == [{"role": "user", "content": merged}]


GENERIC = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
DEVELOPER = {
    GENERIC: False,
    "{% for m in messages %}{% if m.role == 'system' %}S{{ m.content }}{% elif m.role == 'user' %}U{{ m.content }}"
    "{% endif %}{% endfor %}": False,
    "{# the developer is system #}You help a developer. " + GENERIC: False,
    "{{ 'For every developer: ' }}" + GENERIC: False,
    "{% for m in messages %}{{ {'system': 'S', 'user': 'U'}[m.role] }}{{ m.content }}{% endfor %}": False,
    "{% for m in messages %}{% if m['role'] == 'developer' %}D{% endif %}{{ m.content }}{% endfor %}": True,
    "{% for m in messages if m.role in ['system', 'developer'] %}{{ m.content }}{% endfor %}": True,
    "{% for m in messages if m.role in 'system developer' %}{{ m.content }}{% endfor %}": True,
    "{% set n = {'developer': 'D'} %}{% for m in messages %}{{ n[m.role] }}{{ m.content }}{% endfor %}": True,
    "{% set n = dict(developer='D') %}{% for m in messages %}{{ n.get(m.role) }}{{ m.content }}{% endfor %}": True,
    "{{ messages | selectattr('role', 'equalto', 'developer') | map(attribute='content') | join }}": True,
}


@pytest.mark.parametrize("template", DEVELOPER)
def test_developer_is_system_where_the_template_does_not_name_it(reference, template):
    messages = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    role = "developer" if DEVELOPER[template] else "system"
    text = Rendered(template).render(messages)
    assert text == reference(template, [{**messages[0], "role": role}, messages[1]])
    assert "Be brief" in text


def test_wants_travel_and_nonsense_in_them_does_not():
    wants = Wants({"user": PARTS, "tool": STRING}, True, False)
    assert Wants.of(wants.plain()) == wants
    for nonsense in (None, [], 5, {"forms": 5}, {"forms": {"user": "x", "y": PARTS}, "shows_user": None}):
        assert Wants.of(nonsense) == Wants()
