"""litellm on the APIs that agents speak, unmodified."""

from __future__ import annotations

import json
from typing import Any

from tests.clients.conftest import RunScript
from tests.e2e.launched import Launched


def test_responses_and_messages(server: Launched, run_script: RunScript) -> None:
    answers: dict[str, Any] = run_script("litellm", "litellm_agents_client.py", server.url)
    responses, messages = answers["responses"], answers["messages"]
    assert responses["plain"]["output"][0]["content"][0]["text"]
    assert "response.completed" in " ".join(responses["events"]).lower() or "COMPLETED" in str(responses["events"])
    (call,) = (item for item in responses["called"]["output"] if item["type"] == "function_call")
    assert call["name"] == "get_weather" and "location" in json.loads(call["arguments"])
    text = messages["plain"]["choices"][0]["message"]["content"]
    assert text == "".join(piece or "" for piece in messages["stream"])
    (use,) = messages["called"]["choices"][0]["message"]["tool_calls"]
    assert use["function"]["name"] == "get_weather" and "location" in json.loads(use["function"]["arguments"])
