"""Chat templates render byte for byte as in transformers; foreign templates can do no harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests import small_tokenizers as build
from tgi.errors import ModelError, TemplateError, ValidationError
from tgi.serving.chat_template import ChatTemplate, continues

TEMPLATES = sorted((Path(__file__).parents[1] / "data" / "chat_templates").glob("*.jinja"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TEXTS = ["Hi!", " spaces \n", "<b>&'\"</b>", "naïve 日本 🎉", "{{ not.a.template }}", "a\n\nb", "0"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city <tagged> & 'quoted' é.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object"}}},
]
DOCUMENTS = [{"title": "One", "text": "First."}, {"title": "Two", "text": "Second.\nLine."}]


def test_there_are_enough_templates():
    assert len(TEMPLATES) >= 40


@pytest.fixture(scope="module")
def reference():
    """transformers' own rendering; gives the text, or the exception it raised."""
    from transformers import PreTrainedTokenizerFast

    fast = build.byte_level()
    fast.add_special_tokens(["<unk>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, **TOKENS)

    def render(template: str, messages: list[dict[str, Any]], **options: Any) -> str | Exception:
        try:
            return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        except Exception as error:
            return error

    return render


PARTS = [
    [{"type": "text", "text": " Look: "}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "é"}],
    [{"type": "image"}, {"type": "text", "text": "there\n"}],
    [{"type": "text", "text": "<b>"}],
    [{"type": "audio"}],
    [],
]


def conversation(rng: random.Random, parts: bool = False) -> list[dict[str, Any]]:
    """Random turns: system or not, tool calls and results, names, nulls, reasoning, and with `parts` lists of parts."""
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": rng.choice(TEXTS)})
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": rng.choice(TEXTS)})
        if parts and rng.random() < 0.7:
            messages[-1]["content"] = rng.choice(PARTS)
        if rng.random() < 0.3:
            messages[-1]["name"] = "ann"
        if rng.random() < 0.3:
            call = {"name": "get_weather", "arguments": {"city": rng.choice(TEXTS)}}
            calls = [{"id": "call_1", "type": "function", "function": call}]
            messages.append({"role": "assistant", "content": rng.choice([None, ""]), "tool_calls": calls})
            messages.append({"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "Sun"})
        messages.append({"role": "assistant", "content": rng.choice(TEXTS), "tool_calls": None})
        if rng.random() < 0.3:
            messages[-1][rng.choice(["reasoning_content", "reasoning", "thinking"])] = rng.choice(TEXTS)
    return messages[: rng.choice([None, None, -1])]


def compare(ours: ChatTemplate, expected: str | Exception, messages: list[dict[str, Any]], **options: Any) -> bool:
    """Equal text, or an error where transformers has one; True when there was text."""
    if isinstance(expected, Exception):
        with pytest.raises(TemplateError) as caught:
            ours.render(messages, **options)
        if not isinstance(expected, ValueError):  # the library's own words are its own; a template's are not
            assert caught.value.message == str(expected)
        return False
    assert ours.render(messages, **options) == expected
    return True


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_equal_to_transformers(reference, path):
    template = path.read_text(encoding="utf-8")
    ours = ChatTemplate({"default": template}, TOKENS)
    rendered = 0
    for number in range(60):
        rng = random.Random(f"{path.stem} {number}")
        messages = conversation(rng, path.stem.startswith("parts"))
        options: dict[str, Any] = {
            "tools": rng.choice([None, TOOLS, TOOLS[:1], []]),
            "documents": rng.choice([None, DOCUMENTS]),
            "add_generation_prompt": rng.random() < 0.6,
        }
        arguments = rng.choice([{}, {"enable_thinking": False}, {"thinking": "é<"}, {"bos_token": "[B]"}])
        expected = reference(template, messages, **options, **arguments)
        rendered += compare(ours, expected, messages, **options, arguments=arguments)
    assert rendered > 5


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.stem for path in TEMPLATES])
def test_continued_message_equals_transformers(reference, path):
    template = path.read_text(encoding="utf-8")
    ours = ChatTemplate({"default": template}, TOKENS)
    rendered = 0
    for text in [*TEXTS, "", "no", "trailing space "]:
        messages = [{"role": "user", "content": "Say no"}, {"role": "assistant", "content": text}]
        expected = reference(template, messages, continue_final_message=True)
        rendered += compare(ours, expected, messages, continue_final_message=True)
    assert rendered > 0 or path.stem == "break_loop"  # that one shortens its messages


def test_parts_of_content(reference):
    template = next(path for path in TEMPLATES if path.stem == "parts").read_text(encoding="utf-8")
    parts = [{"type": "text", "text": "Look: "}, {"type": "image_url"}, {"type": "text", "text": "there"}]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": parts}]
    before = json.dumps(messages)
    ours = ChatTemplate({"default": template}, TOKENS)
    for options in ({"continue_final_message": True}, {"add_generation_prompt": True}):
        assert compare(ours, reference(template, messages, **options), messages, **options)
    assert json.dumps(messages) == before


def test_the_template_speaks_for_itself():
    gemma = next(path for path in TEMPLATES if path.stem == "gemma").read_text(encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        ChatTemplate({"default": gemma}).render([{"role": "system", "content": "x"}])
    assert caught.value.text == "Template error: System role not supported"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ dict.__init__.__globals__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ raise_exception.__code__.co_consts }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__class__=1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ undefined.attribute }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{% include 'x' %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_harmful_templates_fail(template):
    """They raise, or render nothing: never an object's inside."""
    try:
        text = ChatTemplate({"default": template}).render([{"role": "user", "content": "x"}])
    except TemplateError as error:
        assert "Traceback" not in error.message
        assert " at 0x" not in error.message
    else:
        assert text == ""


@pytest.mark.parametrize("name", ["tokenize", "chat_template", "add_generation_prompt", "tools", "messages"])
def test_reserved_arguments_are_refused(name):
    with pytest.raises(ValidationError, match=f"cannot set `{name}`"):
        ChatTemplate({"default": "{{ x }}"}).render([], arguments={name: 1})


def test_which_template():
    named = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "rag"})
    assert named.render([]) == "plain"
    assert named.render([], tools=TOOLS) == "tools"
    assert not ChatTemplate({})
    with pytest.raises(TemplateError, match="template not found"):
        ChatTemplate({}).render([])
    with pytest.raises(TemplateError, match="no default among rag"):
        ChatTemplate({"rag": "x"}).render([])


def test_sources_in_order(tmp_path):
    assert not ChatTemplate.load(tmp_path)

    def found(**arguments: Any) -> str:
        return ChatTemplate.load(tmp_path, **arguments).render([])

    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "config"}))
    assert found() == "config"
    config.write_text(json.dumps({"chat_template": [{"name": "default", "template": "list"}]}))
    assert found() == "list"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert found() == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja é", encoding="utf-8")
    assert found() == "jinja é"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    assert ChatTemplate.load(tmp_path).render([], tools=TOOLS) == "with tools"
    (tmp_path / "own.json").write_text(json.dumps({"chat_template": "own"}))
    assert found(tokenizer_config_path=tmp_path / "own.json") == "own"
    config.write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        ChatTemplate.load(tmp_path, tokenizer_config_path=config)


PLACES: dict[str, dict[str, Any]] = {
    "config": {"tokenizer_config.json": {"chat_template": "config {{ messages | length }}"}},
    "config, named": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "default", "template": "plain"},
                {"name": "tool_use", "template": "{{ tools | length }} tools"},
            ]
        }
    },
    "jinja": {"chat_template.jinja": "{{ bos_token }}jinja\n"},
    "jinja over config": {"tokenizer_config.json": {"chat_template": "config"}, "chat_template.jinja": "jinja\n\n"},
    "additional": {
        "chat_template.jinja": "default {{ messages[0].content }}",
        "additional_chat_templates/tool_use.jinja": "{% for tool in tools %}{{ tool.function.name }}\n{% endfor %}\n",
        "additional_chat_templates/rag.jinja": "rag",
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_the_same_template_is_chosen_as_in_transformers(tmp_path, place):
    """Of files as checkpoints have them; `chat_template.json` is one that transformers reads for processors alone."""
    from transformers import PreTrainedTokenizerFast

    build.write_checkpoint(tmp_path, chat_template=None, **TOKENS)
    for name, content in PLACES[place].items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(json.loads(file.read_text()) | content)
        file.write_text(content, encoding="utf-8")
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(tmp_path), ChatTemplate.load(tmp_path, special_tokens=TOKENS)
    messages = [{"role": "user", "content": "Hi"}]
    for tools in (None, TOOLS):
        expected = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
        assert ours.render(messages, tools=tools, add_generation_prompt=False) == expected


def test_what_is_continued():
    assert continues([{"role": "assistant", "content": "So"}])
    assert not continues([{"role": "assistant", "content": "So", "tool_calls": [{}]}])
    assert not continues([{"role": "assistant", "content": None}])
    assert not continues([{"role": "user", "content": "So"}])
    assert not continues([])
