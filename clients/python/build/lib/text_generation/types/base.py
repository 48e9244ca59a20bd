"""What all types share: tolerance of what servers add or leave null, and the way to a request body.

Owns no field. Used by the other modules of this package and by the clients.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, model_validator


class Wire(BaseModel):
    """Base of all types: unknown keys are kept, as newer servers add some."""

    # `model_id` is a field of an answer; pydantic before 2.10 warns about the prefix.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", protected_namespaces=())


class Answer(Wire):
    """Base of what servers send: null in a field with a default means absent.

    Servers differ in which optional keys they leave out and which they send as null.
    """

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        data = cast("dict[str, Any]", value)
        if None not in data.values():
            return data
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {key: item for key, item in data.items() if item is not None or key not in optional}


def to_body(value: Any) -> Any:
    """`value` as plain JSON data, without the unset (None) fields of models.

    None inside a plain dict stays: in a JSON schema it means something (`"const": null`).
    """
    if isinstance(value, BaseModel):
        return {key: to_body(item) for key, item in value if item is not None}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_body(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_body(item) for item in cast("list[Any]", value)]
    return value
