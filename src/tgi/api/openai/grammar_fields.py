"""The fields of OpenAI's routes that ask for a form of the answer: `response_format`, and those of vLLM's users."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tgi.api.wire.fields import RequestModel
from tgi.errors import ValidationError
from tgi.messages import Grammar
from tgi.serving.grammars.build import response_grammar, vllm_grammar

VLLM = "of vLLM; `response_format` is OpenAI's way."


class ResponseFormat(RequestModel):
    """The form of the answer: text, json_object, json_schema, json or regex."""

    type: str = Field(examples=["json_schema"])
    json_schema: Any = Field(None, description="Of type json_schema: an object with `name`, `schema` and `strict`.")
    value: Any = Field(None, description="As in TGI: a JSON schema, or the pattern of type regex.")


class GrammarFields(RequestModel):
    """Fields that chat and completions have in common; one of them at most."""

    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = Field(
        None, description=f"json, regex, choice, grammar or json_object; {VLLM}"
    )
    guided_json: Any = Field(None, description=f"A JSON schema; {VLLM}")
    guided_regex: Any = Field(None, description=f"A regular expression; {VLLM}")
    guided_choice: Any = Field(None, description=f"A list of texts; {VLLM}")
    guided_grammar: Any = Field(None, description=f"A grammar in Lark; {VLLM}")
    guided_whitespace_pattern: Any = Field(None, description=f"Space within JSON; {VLLM}")
    guided_decoding_backend: Any = Field(None, description=f"Without effect; {VLLM}")

    @property
    def grammar_field(self) -> str:
        """The field that says what the answer must look like, if one does."""
        given = (name for name in GrammarFields.model_fields if name in self.model_fields_set)
        if self.response_format is not None and self.response_format.type == "text":
            given = (name for name in given if name != "response_format")
        return next(given, "response_format")

    def wanted_grammar(self, ignored: list[str]) -> tuple[Grammar, str] | None:
        """What the answer must look like, and the field that says so; None: anything. Raises ValidationError."""
        form, grammar = self.response_format, None
        if form is not None:
            grammar = response_grammar({name: getattr(form, name) for name in form.model_fields_set}, ignored=ignored)
        other = vllm_grammar({name: getattr(self, name) for name in self.model_fields_set}, ignored)
        if grammar is None:
            return other
        if other is not None:
            raise ValidationError(f"`response_format` and `{other[1]}` exclude each other", param=other[1])
        return grammar, "response_format"
