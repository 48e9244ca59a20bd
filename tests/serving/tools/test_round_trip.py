"""Call, result and answer over a template of each family: what the template writes of a call, its format reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.serving.tools.samples import TOOLS
from tests.serving.tools.templates import TEMPLATES
from tests.serving.tools.test_formats import meaning
from tgi.serving.chat import plan as planning
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.family import find_family
from tgi.serving.template_render import Renderer
from tgi.serving.template_wants import Wants
from tgi.serving.tools.registry import NAMES

ARGUMENTS = {"city": 'Paris "é"\nthere', "days": 3, "unit": "C", "exact": True}


class InProcess:
    """A chat template of ours, rendered here."""

    def __init__(self, source: str) -> None:
        self._source, self._renderer = source, Renderer({"default": source}, {})

    def source(self, with_tools: bool = False) -> str:
        return self._source

    def wants(self, with_tools: bool = False) -> Wants:
        return Wants({"user": "string", "system": "string"})

    def render(self, messages: list[dict[str, Any]], **more: Any) -> str:
        more.setdefault("add_generation_prompt", False)
        return self._renderer.render("default", messages, **more)


class FakeTokenizer:
    """Knows no special tokens."""

    def __init__(self) -> None:
        self.added: dict[int, str] = {}
        self.special_ids: frozenset[int] = frozenset()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())


def service_of(source: str) -> Any:
    template = InProcess(source)

    async def render_chat(messages: Any, arguments: Any = None, **more: Any) -> str:
        return template.render(messages, **more)

    family = find_family(template, FakeTokenizer(), frozenset())  # type: ignore[arg-type]
    return SimpleNamespace(family=family, chat_template=template, tokenizer=FakeTokenizer(), render_chat=render_chat)


def test_every_format_has_a_template() -> None:
    assert set(TEMPLATES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_found(name: str) -> None:
    family = service_of(TEMPLATES[name]).family
    assert family.format.name == name
    assert family.template_knows_tools


@pytest.mark.parametrize("name", NAMES)
async def test_call_result_answer(name: str) -> None:
    service = service_of(TEMPLATES[name])
    calls = [
        {
            "id": f"functions.{tool}:{number}",
            "type": "function",
            "function": {"name": tool, "arguments": arguments},
        }
        for number, (tool, arguments) in enumerate([("get_weather", ARGUMENTS), ("now", {})])
    ]
    if name in ("glm4", "harmony"):
        calls = calls[:1]  # one call a turn
    asked = [{"role": "user", "content": "How is it there?"}]
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": f"result {place}"}
        for place, call in enumerate(calls)
    ]

    plan = await planning.plan_chat(service, Conversation(messages=asked, tools=TOOLS))
    assert "get_weather" in plan.prompt
    assert plan.grammar is None

    whole = await planning.plan_chat(service, Conversation(messages=[*asked, called, *results], tools=TOOLS))
    assert all(f"result {place}" in whole.prompt for place in range(len(calls)))
    reader = whole.reader()
    written = whole.prompt.partition("<assistant>")[2]
    written = written[: min(written.index(end) for end in ENDS if end in written)]
    said, found = meaning([*reader.feed(written), *reader.end()])
    assert said == ""
    assert found == [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


ENDS = (
    "<tool>", "<tool_response>", "<|observation|>", "<|start_header_id|>", "[TOOL_RESULTS]", "<｜tool▁output▁begin｜>",
    "## Return", "<|start|>functions",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_choice_constrains(name: str) -> None:
    service = service_of(TEMPLATES[name])
    asked = [{"role": "user", "content": "How is it there?"}]
    plan = await planning.plan_chat(service, Conversation(messages=asked, tools=TOOLS, choice="required"))
    assert plan.grammar is not None
    assert plan.grammar.kind == "lark"
