"""`LLM.chat` with tools, by the demo model, which knows them."""

from __future__ import annotations

import json

import pytest

from tgi import LLM
from tgi.errors import ToolError
from tgi.hub.prepare import demo_directory

pytestmark = pytest.mark.skipif(
    not (demo_directory() / "model.safetensors").exists(), reason="the demo model is not there"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=1, kv_cache_memory="16MiB") as llm:
        yield llm


def test_a_call_and_its_result(llm):
    output = llm.chat(ASKED, tools=[WEATHER], max_tokens=60)
    (call,) = output.message["tool_calls"]
    assert output.message["content"] is None
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])
    turns = [*ASKED, output.message, {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]
    answer = llm.chat(turns, tools=[WEATHER["function"]], max_tokens=8)
    assert "<|im_start|>tool\nsunny<|im_end|>" in answer.prompt
    assert set(answer.message) == {"role", "content"}


NOW = {"name": "now", "description": "The time"}


def test_calls_that_must_be(llm):
    output = llm.chat(ASKED, tools=[WEATHER, NOW], tool_choice="required", max_tokens=60)
    assert json.loads(output.message["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    named = llm.chat(ASKED, tools=[WEATHER, NOW], tool_choice="now", max_tokens=60)
    assert [call["function"] for call in named.message["tool_calls"]] == [{"name": "now", "arguments": "{}"}]
    several = llm.chat(ASKED, tools=[WEATHER, NOW], tool_choice="required", n=3, do_sample=True, seed=1, max_tokens=60)
    for message, sample in zip(several.messages, several.samples, strict=True):
        for call in message.get("tool_calls", []):
            if sample.finish_reason != "length":
                assert call["function"]["name"] in ("get_weather", "now")
                assert set(json.loads(call["function"]["arguments"])) <= {"city"}
    alone = llm.chat(ASKED, tools=[WEATHER, NOW], tool_choice="required", parallel_tool_calls=False, max_tokens=60)
    assert len(alone.message["tool_calls"]) == 1


def test_an_answer_of_a_form(llm):
    number = {"type": "integer", "minimum": 0, "maximum": 99}
    schema = {"type": "object", "properties": {"sum": number}, "required": ["sum"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}
    output = llm.chat([{"role": "user", "content": "What is 3 plus 4?"}], response_format=form, max_tokens=80)
    assert isinstance(json.loads(output.message["content"])["sum"], int)


def test_answers_without_tools_are_as_they_were(llm):
    output = llm.chat([{"role": "user", "content": "What is 3 plus 4?"}], max_tokens=20)
    assert output.generated_text == "3 plus 4 is 7."
    assert output.message == {"role": "assistant", "content": "3 plus 4 is 7."}
    hidden = llm.chat(ASKED, tools=[WEATHER], tool_choice="none", max_tokens=4)
    assert "get_weather" not in hidden.prompt


def test_what_makes_no_sense(llm):
    with pytest.raises(ToolError, match="not found"):
        llm.chat(ASKED, tools=[WEATHER], tool_choice="other")
    with pytest.raises(ToolError, match=r"`tools\.0`"):
        llm.chat(ASKED, tools=[{"type": "web_search"}])


def test_a_budget_of_thoughts(tmp_path):
    """The demo model does not reason, but goes on with what its template begins."""
    template = tmp_path / "thinking.jinja"
    template.write_text(
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>\n{# </think> #}"
    )
    asked = [{"role": "user", "content": "What is deep learning?"}]
    with LLM(threads=1, kv_cache_memory="16MiB", chat_template=str(template)) as llm:
        free = llm.chat(asked, max_tokens=40)
        assert free.message["content"] == ""  # it never ends its thoughts
        assert free.message["reasoning_content"] in free.generated_text
        bound = llm.chat(asked, max_tokens=40, max_thinking_tokens=6)
        thoughts, _, rest = bound.generated_text.partition("</think>")
        assert free.generated_text.startswith(thoughts)
        assert bound.message["reasoning_content"] == thoughts.strip()
        assert bound.message["content"] == rest.lstrip()
        assert len(llm._service.tokenizer.encode(thoughts, add_special_tokens=False)) <= 6
        assert llm.chat(asked, max_tokens=40, max_thinking_tokens=0).generated_text.startswith("</think>")
