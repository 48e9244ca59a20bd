"""Bodies of `/tokenize`, `/detokenize` and `/tokenizer_info` as vLLM has them; TGI's are in `tgi.api.tgi.types`."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import Field

from tgi.api.openai.chat_types import ChatRequest
from tgi.api.openai.types import NAMELESS_MODELS
from tgi.api.wire.fields import U32, Items, RequestModel


class NamedModelRequest(RequestModel):
    """A body that may name the model."""

    model: str | None = Field(None, description="Name of the model; any name is served by the one model there is.")

    def check_model(self, served: tuple[str, ...], ignored: list[str]) -> None:
        """A name that means another model is noted."""
        if self.model is not None and self.model not in (*served, *NAMELESS_MODELS):
            ignored.append("model")


class TokenizePromptRequest(NamedModelRequest):
    """A text whose tokens are wanted."""

    prompt: str = Field(examples=["My name is Olivier and I"])
    add_special_tokens: bool = True
    return_token_strs: bool = Field(False, description="Give the tokens as the vocabulary writes them, too.")


class TokenizeChatRequest(ChatRequest):
    """A conversation, of which the tokens of its prompt are wanted."""

    add_special_tokens: bool = Field(False, description="Beside those that the chat template writes.")
    return_token_strs: bool = Field(False, description="Give the tokens as the vocabulary writes them, too.")

    def without_prompt(self) -> set[str]:
        return super().without_prompt() - {"add_special_tokens", "return_token_strs"}


class TokenizeResponse(msgspec.Struct):
    """Token ids, and how many a prompt and its answer may have together."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(NamedModelRequest):
    """Token ids whose text is wanted."""

    tokens: Items[U32] = Field(description="Token ids, special ones too.", examples=[[1, 2, 3]])


class DetokenizeResponse(msgspec.Struct):
    """The text of token ids."""

    prompt: str


TokenizerInfo = dict[str, Any]
"""The keys of tokenizer_config.json."""
