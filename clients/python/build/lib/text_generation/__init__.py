"""Client of text-generation-inference servers.

`Client` and `AsyncClient` talk to a server; `types` has requests and answers, `errors` what can go
wrong.
"""

from text_generation.async_client import AsyncClient
from text_generation.client import Client
from text_generation.inference_api import InferenceAPIAsyncClient, InferenceAPIClient
from text_generation.version import __version__

# Version 0.7.0 announced its own end with this text; kept so that an import of it does not fail.
DEPRECATION_WARNING = ""

__all__ = [
    "DEPRECATION_WARNING",
    "AsyncClient",
    "Client",
    "InferenceAPIAsyncClient",
    "InferenceAPIClient",
    "__version__",
]
