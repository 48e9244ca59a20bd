"""Bodies that `/docs` offers for "Try it out": each is valid as it is, and its answer short.

Owns them by operation. Shown by `openapi`; a test sends every one.
"""

from __future__ import annotations

from typing import Any

PROMPT = "My name is Olivier and I"
MESSAGES = [{"role": "user", "content": "What is Deep Learning?"}]
LENGTH = 20
"""Tokens of an answer."""

_GENERATE = {
    "Greedy": {"inputs": PROMPT, "parameters": {"max_new_tokens": LENGTH}},
    "Sampled, with details": {
        "inputs": PROMPT,
        "parameters": {
            "max_new_tokens": LENGTH,
            "do_sample": True,
            "temperature": 0.5,
            "top_p": 0.95,
            "seed": 42,
            "stop": ["photographer"],
            "details": True,
        },
    },
}
_CHAT = {
    "Whole": {"messages": MESSAGES, "max_tokens": LENGTH},
    "Stream": {"messages": MESSAGES, "max_tokens": LENGTH, "stream": True},
    "Log-probabilities": {"messages": MESSAGES, "max_tokens": LENGTH, "logprobs": True, "top_logprobs": 2},
}
_COMPLETIONS = {
    "Whole": {"prompt": PROMPT, "max_tokens": LENGTH},
    "Several prompts": {"prompt": [PROMPT, "Once upon a time"], "max_tokens": LENGTH},
    "Stream": {"prompt": PROMPT, "max_tokens": LENGTH, "stream": True},
}
_RESPONSES = {
    "Whole": {"input": "What is Deep Learning?", "max_output_tokens": LENGTH},
    "Stream": {"input": "What is Deep Learning?", "max_output_tokens": LENGTH, "stream": True},
    "Items": {"instructions": "Answer briefly.", "input": MESSAGES, "max_output_tokens": LENGTH},
}
_ANTHROPIC = {
    "Whole": {"messages": MESSAGES, "max_tokens": LENGTH},
    "Stream": {"messages": MESSAGES, "max_tokens": LENGTH, "stream": True},
    "System text": {"system": "Answer briefly.", "messages": MESSAGES, "max_tokens": LENGTH},
}
_WHOLE_AND_STREAM = {"Whole": _GENERATE["Greedy"], "Stream": {**_GENERATE["Greedy"], "stream": True}}

EXAMPLES: dict[str, dict[str, Any]] = {
    "compat_generate": _WHOLE_AND_STREAM,
    "generate": _GENERATE,
    "generate_stream": {"Greedy": _GENERATE["Greedy"]},
    "tokenize": {
        "Text": {"inputs": PROMPT},
        "As vLLM": {"prompt": PROMPT, "return_token_strs": True},
        "Conversation, as vLLM": {"messages": MESSAGES},
    },
    "detokenize": {"Token ids": {"tokens": [1, 2, 3]}},
    "chat_completions": _CHAT,
    "get_chat_tokenize": {"Conversation": {"messages": MESSAGES}},
    "completions": _COMPLETIONS,
    "responses": _RESPONSES,
    "messages": _ANTHROPIC,
    "count_message_tokens": {"Conversation": {"messages": MESSAGES}},
    "embeddings": {
        "One text": {"input": "What is Deep Learning?"},
        "Two texts, shortened": {"input": ["A text", "Another one"], "dimensions": 8, "encoding_format": "base64"},
    },
    "sagemaker_compatibility": {
        "As for `/`": _GENERATE["Greedy"],
        "As for chat": _CHAT["Whole"],
        "As for completions": _COMPLETIONS["Whole"],
    },
    "vertex_compatibility": {
        "Prompt and conversation": {
            "instances": [_GENERATE["Greedy"], {"messages": MESSAGES, "max_tokens": LENGTH}],
        }
    },
    "kserve_infer": {
        "One prompt": {
            "id": "1",
            "inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": list(PROMPT.encode())}],
            "outputs": [{"name": "text"}],
            "parameters": {"max_new_tokens": LENGTH},
        }
    },
}
"""Operation -> name of an example -> body; the first is what a browser sends unchanged."""

PATH_EXAMPLES = {"model": "tgi", "version": "1", "response_id": "resp_0"}
"""Values of the names in a path."""
