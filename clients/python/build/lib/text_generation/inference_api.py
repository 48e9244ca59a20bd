"""Clients of the Hugging Face Inference API, for models that it serves with text-generation-inference.

The address is the environment variable HF_INFERENCE_ENDPOINT, read at each call; the token is the
argument, HF_TOKEN, or the one that `hf auth login` stored.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import httpx

from text_generation.async_client import AsyncClient
from text_generation.client import Client
from text_generation.connection import read_json
from text_generation.errors import NotSupportedError, UnknownError
from text_generation.streaming import parse_answer
from text_generation.types import DeployedModel
from text_generation.version import __version__

_FRAMEWORK = "text-generation-inference"
_STATUS_TIMEOUT = 5  # seconds


def inference_endpoint() -> str:
    """Address of the Inference API."""
    return os.environ.get("HF_INFERENCE_ENDPOINT", "https://api-inference.huggingface.co").rstrip("/")


def deployed_models(headers: dict[str, str] | None = None) -> list[DeployedModel]:
    """All models that the Inference API serves with text-generation-inference."""
    payload = _get(f"/framework/{_FRAMEWORK}", headers)
    if not isinstance(payload, list):
        raise UnknownError("The list of deployed models is not a list", status_code=200)
    return [parse_answer(DeployedModel, model) for model in cast("list[Any]", payload)]


def check_model_support(repo_id: str, headers: dict[str, str] | None = None) -> bool:
    """Whether the Inference API serves `repo_id` with text-generation-inference."""
    payload = _get(f"/status/{repo_id}", headers)
    if not isinstance(payload, dict):
        raise UnknownError(f"The status of {repo_id} is not an object", status_code=200)
    return cast("dict[str, Any]", payload).get("framework") == _FRAMEWORK


def _get(path: str, headers: dict[str, str] | None) -> Any:
    url = inference_endpoint() + path
    return read_json(httpx.get(url, headers=headers, timeout=_STATUS_TIMEOUT, follow_redirects=True))


def _api_headers(token: str | None) -> dict[str, str]:
    headers = {"user-agent": f"text-generation/{__version__}"}
    token = token or _stored_token()
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def _stored_token() -> str | None:
    """The token as huggingface_hub finds it: environment first, then its file."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = os.environ.get(name, "").strip()
        if token:
            return token
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", f"{cache}/huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH", f"{home}/token")).expanduser()
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


class InferenceAPIClient(Client):
    """`Client` of a model on the Inference API. Asks first whether the model is served there."""

    def __init__(self, repo_id: str, token: str | None = None, timeout: float | httpx.Timeout | None = 10) -> None:
        """
        Args:
            repo_id: Id of the model, such as `bigscience/bloom`.
            token: Access token.
            timeout: As for `Client`.

        Raises:
            NotSupportedError: The model is not served with text-generation-inference.
        """
        headers = _api_headers(token)
        if not check_model_support(repo_id, headers):
            raise NotSupportedError(repo_id)
        super().__init__(f"{inference_endpoint()}/models/{repo_id}", headers=headers, timeout=timeout)


class InferenceAPIAsyncClient(AsyncClient):
    """`AsyncClient` of a model on the Inference API. Asks first, synchronously, whether it is served there."""

    def __init__(self, repo_id: str, token: str | None = None, timeout: float | httpx.Timeout | None = 10) -> None:
        headers = _api_headers(token)
        if not check_model_support(repo_id, headers):
            raise NotSupportedError(repo_id)
        super().__init__(f"{inference_endpoint()}/models/{repo_id}", headers=headers, timeout=timeout)

    __init__.__doc__ = InferenceAPIClient.__init__.__doc__
