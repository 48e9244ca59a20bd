"""Tools in the body of a chat request, and the choice among them.

Owns their forms, OpenAI's and TGI's, and the bounds that are checked before anything is made of them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from tgi.api.wire.fields import Items, RequestModel, json_kind
from tgi.errors import ToolError
from tgi.serving.chat.conversation import Choice, NamedTool, Tool
from tgi.serving.tools.schema_check import Nodes, problem

MOST_TOOLS = 512
LONGEST_DESCRIPTION = 100_000
"""Characters."""
_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)


class ToolFunction(RequestModel):
    """A function that may be called."""

    name: str = Field(examples=["get_weather"])
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the arguments; left out: there are none."
    )
    arguments: Any = Field(None, description="TGI's name of `parameters`.")
    strict: bool | None = Field(None, description="Arguments fit the schema also where calling is up to the model.")


class ToolDefinition(RequestModel):
    """A tool; functions are the only ones."""

    type: str = "function"
    function: ToolFunction | None = None

    def meant(self, place: int, nodes: Nodes) -> Tool:
        """Raises ToolError."""
        field, function = f"tools.{place}", self.function
        if self.type != "function":
            raise ToolError(f'`{field}.type` must be "function", it is {self.type[:32]!r}', param=f"{field}.type")
        if function is None:
            raise ToolError(f"`{field}.function` is missing", param=f"{field}.function")
        if not _NAME.fullmatch(function.name):
            given = function.name[:64]
            raise ToolError(
                f"`{field}.function.name` must be 1 to 128 letters, digits or any of _.:/-, it is {given!r}",
                param=f"{field}.function.name",
            )
        if len(function.description or "") > LONGEST_DESCRIPTION:
            limit = f"`{field}.function.description` may have up to {LONGEST_DESCRIPTION} characters"
            raise ToolError(limit, param=f"{field}.function.description")
        schema = function.parameters
        if schema is None and function.arguments is not None:
            schema = function.arguments
        if schema is not None and (wrong := problem(schema, nodes)) is not None:
            raise ToolError(f"`{field}.function.parameters`: {wrong}", param=f"{field}.function.parameters")
        if schema and schema.get("type", "object") != "object":
            wrong = '`type` must be "object", since arguments are one'
            raise ToolError(f"`{field}.function.parameters`: {wrong}", param=f"{field}.function.parameters")
        return Tool(function.name, function.description, schema or None, bool(function.strict))


ToolChoice = Annotated[
    Annotated[str, Tag("string")] | Annotated[dict[str, Any], Tag("object")],
    Discriminator(json_kind, custom_error_type="choice", custom_error_message="expected a string or an object"),
]


def check_tool_count(given: int) -> None:
    """Raises ToolError before anybody looks at them."""
    if given > MOST_TOOLS:
        raise ToolError(f"`tools` may have up to {MOST_TOOLS} tools. Given: {given}", param="tools")


def tools_of(definitions: list[ToolDefinition] | None) -> list[Tool]:
    """Raises ToolError, also for two tools of one name."""
    nodes, tools, names = Nodes(), [], set()
    for place, definition in enumerate(definitions or []):
        tool = definition.meant(place, nodes)
        if tool.name in names:
            raise ToolError(f"`tools.{place}.function.name` {tool.name!r} is there twice", param="tools")
        names.add(tool.name)
        tools.append(tool)
    return tools


def choice_of(choice: str | dict[str, Any] | None) -> Choice:
    """OpenAI's words and objects, TGI's `{"function": {"name": ...}}` and bare name. Raises ToolError."""
    if choice is None or choice == "auto":
        return "auto"
    if choice == "none":
        return "none"
    if choice == "required":
        return "required"
    if isinstance(choice, str):
        return NamedTool(choice)
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else choice.get("name")
    if not isinstance(name, str) or choice.get("type", "function") != "function":
        raise ToolError(
            '`tool_choice` must be "auto", "none", "required", or {"type": "function", "function": {"name": ...}}',
            param="tool_choice",
        )
    return NamedTool(name)


ToolDefinitions = Items[ToolDefinition]
