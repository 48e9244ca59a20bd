"""The base of all request models and the number types of their fields.

Owns three rules that hold on every route: null is the same as absent, unknown fields are ignored
and noted by name, and types are as strict as in TGI (serde): no string for a number, no `true` for
1, no 1.0 for an integer, no number beyond its width. Does not own limits of meaning (those are
`serving.validation`'s). Used by the `*_types` modules.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, model_validator

U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
I32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]
"""A list that is given up at its first wrong item: no one reads a hundred thousand complaints."""
F32 = Annotated[float, Field(ge=-3.4028234663852886e38, le=3.4028234663852886e38)]


class RequestModel(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    place: ClassVar[str] = ""
    """Where the object sits in the body, for the names in `x-tgi-ignored`: `parameters.`"""
    known: ClassVar[frozenset[str]] = frozenset()
    """Names a JSON object of this model may use."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.known = frozenset(field.alias or name for name, field in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any, info: ValidationInfo) -> Any:
        """Drop nulls; note unknown names in the list `ignored` of the validation context."""
        if not isinstance(data, dict):
            return data
        kept = {name: value for name, value in data.items() if value is not None and name in cls.known}
        if len(kept) != len(data) and info.context is not None:
            names = (name for name, value in data.items() if value is not None and name not in cls.known)
            info.context["ignored"].extend(f"{cls.place}{name}" for name in names)
        return kept


def json_kind(value: Any) -> str | None:
    """The tag of a value in a union of JSON types."""
    return {str: "string", list: "array", dict: "object"}.get(type(value))


StringOrList = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[str], Tag("array")],
    Discriminator(
        json_kind,
        custom_error_type="string_or_array",
        custom_error_message="expected a string or an array of strings",
    ),
]


def as_list(value: str | list[str] | None) -> list[str]:
    """A StringOrList as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value
