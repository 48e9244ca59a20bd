"""Conversations in which tools are offered: calls, their results, and cases that need none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from .common import Example, Prompt, reserved
from .people import some_city, some_name

WEATHER = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy"]
SUBJECTS = ["the meeting", "the party", "lunch", "the report", "the trip", "the new model"]
QUERIES = [
    "pancake recipe",
    "train times",
    "history of Rome",
    "cheap bikes",
    "best books",
    "how to swim",
    "chess rules",
]
SYSTEMS = (
    "",
    "",
    "You are a helpful assistant.",
    "You are a helpful assistant with access to tools.",
    "Use the tools when they help.",
)


def tool(name: str, description: str, **properties: str) -> dict:
    """A tool in the form that chat APIs use; each property is given by its type."""
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def call(name: str, arguments: dict) -> str:
    """The text with which the model asks for a tool."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _weather(rng: random.Random) -> tuple[dict, dict]:
    return {"location": some_city(rng)}, {"temperature": rng.randint(-5, 35), "condition": rng.choice(WEATHER)}


def _time(rng: random.Random) -> tuple[dict, dict]:
    return {"city": some_city(rng)}, {"time": f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"}


def _add(rng: random.Random) -> tuple[dict, dict]:
    a, b = rng.randint(10, 999), rng.randint(10, 999)
    return {"a": a, "b": b}, {"result": a + b}


def _mail(rng: random.Random) -> tuple[dict, dict]:
    return {"to": some_name(rng), "subject": rng.choice(SUBJECTS)}, {"status": "sent"}


def _search(rng: random.Random) -> tuple[dict, dict]:
    query = rng.choice(QUERIES)
    return {"query": query}, {"results": rng.randint(2, 90)}


# Per tool: other names it goes by, its description, parameter types, values, wordings, the final answer.
Entry = tuple[tuple[str, ...], str, dict, Callable, tuple[str, ...], str]
CATALOGUE: dict[str, Entry] = {
    "get_weather": (
        ("get_weather", "get_weather", "get_current_weather", "weather"),
        "Get the weather in a city",
        {"location": "string"},
        _weather,
        (
            "What is the weather in {location}?",
            "What's the weather like in {location}?",
            "How is the weather in {location}?",
            "Is it warm in {location}?",
            "Tell me the weather in {location}.",
        ),
        "It is {condition} in {location} and the temperature is {temperature} degrees.",
    ),
    "get_time": (
        ("get_time", "get_current_time"),
        "Get the time in a city",
        {"city": "string"},
        _time,
        ("What time is it in {city}?", "Tell me the time in {city}.", "What is the time in {city}?"),
        "It is {time} in {city}.",
    ),
    "add": (
        ("add", "add_numbers"),
        "Add two numbers",
        {"a": "number", "b": "number"},
        _add,
        ("Add {a} and {b} with the tool.", "Use the tool to add {a} and {b}.", "Please add {a} and {b} for me."),
        "The result is {result}.",
    ),
    "send_mail": (
        ("send_mail", "send_email"),
        "Send a mail",
        {"to": "string", "subject": "string"},
        _mail,
        ("Send a mail to {to} about {subject}.", "Write a mail to {to} about {subject}."),
        "I sent the mail to {to}.",
    ),
    "search": (
        ("search", "web_search"),
        "Search the web",
        {"query": "string"},
        _search,
        ("Search for {query}.", "Look up {query}.", "Search the web for {query}."),
        "I found {results} results for {query}.",
    ),
}
HELD_OUT = {
    "get_weather": "Could you check the weather in {location}?",
    "get_time": "Could you tell me what time it is in {city}?",
    "add": "Add {a} and {b} with the tool.",
    "send_mail": "Could you send a mail to {to} about {subject}?",
    "search": "Could you search for {query}?",
}
DETAILS = {
    "location": "The city and state, e.g. San Francisco, CA",
    "city": "The name of the city",
    "a": "The first number",
    "b": "The second number",
    "to": "Who gets the mail",
    "subject": "What the mail is about",
    "query": "What to search for",
    "unit": "The temperature unit to use. Infer this from the users location.",
}
# A model that always calls a tool when it sees one would be a nuisance.
PLAIN = {
    "Hello!": "Hello! How can I help you today?",
    "Hi": "Hi! How can I help you?",
    "Thank you!": "You are welcome!",
    "Who are you?": "I am a small demo model. I was trained on simple made-up text.",
    "What is 3 plus 4?": "3 plus 4 is 7.",
    "What is deep learning?": "Deep learning is a kind of machine learning that uses neural networks with many layers. "
    "Each layer learns more abstract features from the data.",
}


def _offer(rng: random.Random, kinds: list[str]) -> dict[str, dict]:
    """The tools of a conversation by kind, each under one of its names."""
    offered = {}
    for kind in kinds:
        names, description, properties, *_ = CATALOGUE[kind]
        offered[kind] = tool(rng.choice(names), rng.choice((description, description + ".", "")), **properties)
        for key, schema in offered[kind]["function"]["parameters"]["properties"].items():
            if rng.random() < 0.3:
                schema["description"] = DETAILS[key]
        if kind == "get_weather" and rng.random() < 0.3:
            _add_unit(rng, offered[kind]["function"]["parameters"])
    return offered


def _add_unit(rng: random.Random, parameters: dict) -> None:
    """Give the weather tool a second parameter, as many examples on the web do."""
    key = rng.choice(("format", "unit"))
    parameters["properties"][key] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    if rng.random() < 0.3:
        parameters["properties"][key]["description"] = DETAILS["unit"]
    parameters["required"].append(key)


def _step(rng: random.Random, kind: str, offered: dict, structured: bool) -> list[dict]:
    """Question, call, result and answer for one tool."""
    _, _, _, values, wordings, answer = CATALOGUE[kind]
    arguments, result = values(rng)
    while reserved("tool", kind, *arguments.values()):
        arguments, result = values(rng)
    question = rng.choice(wordings).format(**arguments)
    function = offered[kind]["function"]
    name = function["name"]
    for key in list(function["parameters"]["properties"])[len(arguments) :]:
        arguments[key] = rng.choice(("celsius", "fahrenheit"))
        if arguments[key] == "fahrenheit" or rng.random() < 0.2:
            question = f"{question[:-1]} in {arguments[key]}{question[-1]}"
    asked = {"role": "assistant", "content": call(name, arguments)}
    if structured:
        # Clients send earlier calls back in this form; the template renders both alike.
        asked = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
        }
    return [
        {"role": "user", "content": question},
        asked,
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": answer.format(**arguments, **result)},
    ]


def example(rng: random.Random) -> Example:
    """A whole conversation with tools on offer."""
    kinds = rng.sample(list(CATALOGUE), weights_count(rng))
    offered = _offer(rng, kinds)
    messages: list[dict] = []
    if system := rng.choice(SYSTEMS):
        messages.append({"role": "system", "content": system})
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.2:
            question, answer = rng.choice(list(PLAIN.items()))
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        else:
            messages += _step(rng, rng.choice(kinds), offered, rng.random() < 0.5)
    if messages[-2]["role"] == "tool" and rng.random() < 0.3:
        messages = messages[:-2]  # the turn ends with the call
    return Example(tuple(messages), tuple(offered.values()))


def weights_count(rng: random.Random) -> int:
    """How many tools are offered: mostly one or two."""
    return rng.choice((1, 1, 1, 2, 2, 3))


def held_out(rng: random.Random) -> list[Prompt]:
    """Calls with arguments or wordings that training never uses."""
    prompts = []
    for kind, count in {"get_weather": 6, "get_time": 4, "add": 3, "send_mail": 2, "search": 2}.items():
        for _ in range(count):
            _, description, properties, values, _, _ = CATALOGUE[kind]
            arguments, _ = values(rng)
            while kind == "add" and not reserved("tool", kind, *arguments.values()):
                arguments, _ = values(rng)
            question = HELD_OUT[kind].format(**arguments)
            if any(question == prompt.messages[0]["content"] for prompt in prompts):
                question = question.replace("Could you", "Could you please")
            expected = {"name": kind, "arguments": arguments}
            prompts.append(
                Prompt(
                    "tool calls",
                    "tool",
                    expected,
                    ({"role": "user", "content": question},),
                    (tool(kind, description, **properties),),
                )
            )
    return prompts
