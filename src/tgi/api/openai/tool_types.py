"""Tools in the body of a chat request, and the form of the choice among them.

Owns their forms, OpenAI's and TGI's. What they must be is checked in `serving.tools.checks`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from tgi.api.wire.fields import Items, RequestModel, json_kind
from tgi.errors import ToolError
from tgi.serving.chat.conversation import Tool


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

    def meant(self, place: int) -> Tool:
        """Raises ToolError."""
        field, function = f"tools.{place}", self.function
        if self.type != "function":
            raise ToolError(f'`{field}.type` must be "function", it is {self.type[:32]!r}', param=f"{field}.type")
        if function is None:
            raise ToolError(f"`{field}.function` is missing", param=f"{field}.function")
        schema = function.parameters if function.parameters is not None else function.arguments
        return Tool(function.name, function.description, schema, bool(function.strict), field, ".function.parameters")


ToolChoice = Annotated[
    Annotated[str, Tag("string")] | Annotated[dict[str, Any], Tag("object")],
    Discriminator(json_kind, custom_error_type="choice", custom_error_message="expected a string or an object"),
]


def tools_of(definitions: list[ToolDefinition] | None) -> list[Tool]:
    """Raises ToolError for one that is no function."""
    return [definition.meant(place) for place, definition in enumerate(definitions or [])]


ToolDefinitions = Items[ToolDefinition]
