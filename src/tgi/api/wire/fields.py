"""The base of all request models and the number types of their fields.

Owns three rules that hold on every route: null is the same as absent, unknown fields are ignored
and noted by name, and types are as strict as in TGI (serde): no string for a number, no `true` for
1, no 1.0 for an integer, no number beyond its width. Does not own limits of meaning (those are
`serving.validation`'s).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from tgi.api.wire.near_fields import hint

if TYPE_CHECKING:
    from tgi.api.state import Api

U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
I32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
ITEMS_AT_ONCE = 1_000
"""Of a list in one call of the validator, which holds the interpreter meanwhile, also in a thread."""


def _some_at_a_time(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, list) or len(value) <= ITEMS_AT_ONCE:
        return handler(value)
    checked: list[Any] = []
    for begin in range(0, len(value), ITEMS_AT_ONCE):
        try:
            checked += handler(value[begin : begin + ITEMS_AT_ONCE])
        except ValidationError as error:
            raise _moved(error, begin) from None
    return checked


def _names_some_at_a_time(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict) or len(value) <= ITEMS_AT_ONCE:
        return handler(value)
    items = iter(value.items())
    checked: dict[str, Any] = {}
    while some := dict(islice(items, ITEMS_AT_ONCE)):
        checked |= handler(some)
    return checked


def _moved(error: ValidationError, begin: int) -> ValidationError:
    """The first complaint about an item, whose number is counted from `begin`."""
    first = error.errors(include_url=False)[0]
    item, *place = first["loc"]
    details = InitErrorDetails(
        type=PydanticCustomError(first["type"], first["msg"]),  # type: ignore[arg-type]
        loc=(begin + item if isinstance(item, int) else item, *place),
        input=first["input"],
    )
    return ValidationError.from_exception_data(error.title, [details])


Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True), WrapValidator(_some_at_a_time)]
"""A list that is given up at its first wrong item: no one reads a hundred thousand complaints."""
F32 = Annotated[float, Field(ge=-3.4028234663852886e38, le=3.4028234663852886e38)]


class RequestModel(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    known: ClassVar[frozenset[str]] = frozenset()
    """Names a JSON object of this model may use."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        assert not any(field.alias for field in cls.model_fields.values()), "`unknown_fields` looks names up"
        cls.known = frozenset(cls.model_fields)

    @classmethod
    def nameable(cls) -> frozenset[str]:
        """`known`, and what an object `parameters` may have, `parameters.top_k`, which is often put beside it."""
        annotation = cls.model_fields["parameters"].annotation if "parameters" in cls.known else None
        inner = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        names = {f"parameters.{name}" for one in inner if issubclass(one, RequestModel) for name in one.known}
        return cls.known | names

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        """Refuse the lists of a body that are longer than a limit allows, before anybody looks at their items.

        Raises TgiError; what is not of the type that it should be is left to the fields.
        """

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any, info: ValidationInfo) -> Any:
        """Drop nulls and unknown names; of the latter note in the validation context that there are some."""
        if not isinstance(data, dict):
            return data
        kept = {name: value for name, value in data.items() if value is not None and name in cls.known}
        if len(kept) != len(data) and info.context is not None:
            info.context["unknown"] |= any(value is not None and name not in cls.known for name, value in data.items())
        return kept


def unknown_fields(parsed: Any, data: Any, path: str = "") -> Iterator[str]:
    """Paths of the fields that no model knows, `messages.0.cache_control`; an object's own before those below it.

    Behind one that was likely meant to be another is that: `max_token (did you mean max_tokens?)`.
    `parsed` is what was made of `data`; `path` is where both are, with a dot at its end unless they are the body.
    """
    if isinstance(parsed, RequestModel) and isinstance(data, dict):
        unknown = (name for name, value in data.items() if value is not None and name not in parsed.known)
        yield from (f"{path}{name}{hint(name, parsed.nameable(), data)}" for name in unknown)
        for name, value in data.items():
            if isinstance(value, (dict, list)) and name in parsed.known:
                yield from unknown_fields(getattr(parsed, name), value, f"{path}{name}.")
    elif isinstance(parsed, list) and isinstance(data, list):
        for index, (one, value) in enumerate(zip(parsed, data, strict=False)):
            if isinstance(one, RequestModel):
                yield from unknown_fields(one, value, f"{path}{index}.")


def count(data: Any, name: str) -> int:
    """Items of the list that an object has under a name; 0 where there is none."""
    items = data.get(name) if isinstance(data, dict) else None
    return len(items) if isinstance(items, list) else 0


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


Numbers = Annotated[dict[str, F32], WrapValidator(_names_some_at_a_time)]
"""An object of numbers."""


def as_list(value: str | list[str] | None) -> list[str]:
    """A StringOrList as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value
