"""Flags and variables of other servers, each with the sentence that says what ours is.

Owns the table alone. A test holds every flag of ours that a sentence names against the launcher's.
"""

from __future__ import annotations

from collections.abc import Mapping

LLAMA, VLLM, OLLAMA = "llama.cpp", "vLLM", "Ollama"

_MODEL = "give the model by position, `tgi serve MODEL`, or with --model-id"
_SAMPLING = "send it with each request; --generation-defaults says what holds for those that do not"
_NEEDLESS_CACHE = "use --kv-cache-memory, or --memory for all that may be taken; both are computed if left out"

FLAGS: dict[str, tuple[str, str]] = {
    "--ctx-size": (LLAMA, "use --max-total-tokens, the longest prompt and answer of one request together"),
    "-c": (LLAMA, "use --max-total-tokens, the longest prompt and answer of one request together"),
    "--model": ("llama.cpp and vLLM", _MODEL),
    "-m": (LLAMA, _MODEL),
    "-hf": (LLAMA, _MODEL),
    "-hfr": (LLAMA, _MODEL),
    "--hf-repo": (LLAMA, _MODEL),
    "-hff": (LLAMA, "use --gguf-file, or give the model as org/name:Q4_K_M"),
    "--hf-file": (LLAMA, "use --gguf-file, or give the model as org/name:Q4_K_M"),
    "--hf-token": ("llama.cpp and vLLM", "set the variable HF_TOKEN"),
    "--host": ("llama.cpp and vLLM", "use --hostname"),
    "-np": (LLAMA, "use --max-batch-size, the most sequences in one step, or leave it out: it is computed"),
    "--parallel": (LLAMA, "use --max-batch-size, the most sequences in one step, or leave it out: it is computed"),
    "-t": (LLAMA, "use --threads"),
    "-tb": (LLAMA, "use --threads, which prompts and answers share"),
    "--threads-batch": (LLAMA, "use --threads, which prompts and answers share"),
    "-ngl": (LLAMA, "use --device, cpu or cuda: all layers of a model are in one place"),
    "--gpu-layers": (LLAMA, "use --device, cpu or cuda: all layers of a model are in one place"),
    "--n-gpu-layers": (LLAMA, "use --device, cpu or cuda: all layers of a model are in one place"),
    "-n": (LLAMA, "use --default-max-new-tokens, for requests that do not say how many tokens they want"),
    "--predict": (LLAMA, "use --default-max-new-tokens, for requests that do not say how many tokens they want"),
    "--n-predict": (LLAMA, "use --default-max-new-tokens, for requests that do not say how many tokens they want"),
    "-b": (LLAMA, "use --max-batch-prefill-tokens, the tokens of one step, or leave it out: it is computed"),
    "--batch-size": (LLAMA, "use --max-batch-prefill-tokens, the tokens of one step, or leave it out: it is computed"),
    "-ub": (LLAMA, "use --max-batch-prefill-tokens, the tokens of one step, or leave it out: it is computed"),
    "--ubatch-size": (LLAMA, "use --max-batch-prefill-tokens, the tokens of one step, or leave it out: it is computed"),
    "-a": (LLAMA, "use --served-model-name"),
    "--alias": (LLAMA, "use --served-model-name"),
    "-ctk": (LLAMA, "use --kv-cache-dtype, which keys and values share"),
    "--cache-type-k": (LLAMA, "use --kv-cache-dtype, which keys and values share"),
    "-ctv": (LLAMA, "use --kv-cache-dtype, which keys and values share"),
    "--cache-type-v": (LLAMA, "use --kv-cache-dtype, which keys and values share"),
    "-fa": (LLAMA, "leave it out: attention never keeps a matrix of all pairs"),
    "--flash-attn": (LLAMA, "leave it out: attention never keeps a matrix of all pairs"),
    "-cb": (LLAMA, "leave it out: batching is always continuous"),
    "--cont-batching": (LLAMA, "leave it out: batching is always continuous"),
    "--jinja": (LLAMA, "leave it out: the model's own chat template is always used; --chat-template names another"),
    "--chat-template-file": (LLAMA, "use --chat-template, which takes a file or a built-in template's name"),
    "--embedding": (LLAMA, "leave it out: /v1/embeddings is always there"),
    "--embeddings": (LLAMA, "leave it out: /v1/embeddings is always there"),
    "--mlock": (LLAMA, "leave it out: weights are read into memory of the process"),
    "--no-mmap": (LLAMA, "leave it out: weights are read into memory of the process"),
    "-lm": (LLAMA, "leave it out: weights are read into memory of the process"),
    "--load-mode": (LLAMA, "leave it out: weights are read into memory of the process"),
    "--lora": (LLAMA, "use --lora-adapters, which is not supported yet"),
    "--metrics": (LLAMA, "leave it out: /metrics is always there"),
    "--reasoning-format": (LLAMA, "leave it out: reasoning is found from the checkpoint"),
    "--no-webui": (LLAMA, "use --disable-playground"),
    "--no-ui": (LLAMA, "use --disable-playground"),
    "--cors-origins": (LLAMA, "use --cors-allow-origin, once for each origin"),
    "--api-prefix": (LLAMA, "leave it out: put a proxy in front that takes the prefix off"),
    "--temp": (LLAMA, _SAMPLING),
    "--temperature": (LLAMA, _SAMPLING),
    "--top-k": (LLAMA, _SAMPLING),
    "--top-p": (LLAMA, _SAMPLING),
    "--min-p": (LLAMA, _SAMPLING),
    "--repeat-penalty": (LLAMA, _SAMPLING),
    "--quantization": (VLLM, "use --quantize; checkpoints that are quantised already need no flag"),
    "--max-num-seqs": (VLLM, "use --max-batch-size, the most sequences in one step, or leave it out: it is computed"),
    "--max-model-len": (VLLM, "use --max-total-tokens, the longest prompt and answer of one request together"),
    "--max-num-batched-tokens": (VLLM, "use --max-batch-prefill-tokens, the tokens of one step"),
    "--gpu-memory-utilization": (VLLM, "use --cuda-memory-fraction, or --memory for an amount such as 24GiB"),
    "--cpu-offload-gb": (VLLM, "use --device cpu: all layers of a model are in one place"),
    "--kv-cache-memory-bytes": (VLLM, "use --kv-cache-memory"),
    "--swap-space": (VLLM, _NEEDLESS_CACHE),
    "--num-gpu-blocks-override": (VLLM, _NEEDLESS_CACHE),
    "--block-size": (VLLM, "leave it out: the size of a block of the KV cache is chosen for the device"),
    "--tensor-parallel-size": (VLLM, "use --num-shard, of which only 1 is supported yet"),
    "-tp": (VLLM, "use --num-shard, of which only 1 is supported yet"),
    "--pipeline-parallel-size": (VLLM, "leave it out: the model runs on one device"),
    "-pp": (VLLM, "leave it out: the model runs on one device"),
    "--enable-prefix-caching": (VLLM, "leave it out: prefixes are shared unless the variable PREFIX_CACHING is false"),
    "--enable-chunked-prefill": (VLLM, "leave it out: prompts are always computed in pieces"),
    "--enforce-eager": (VLLM, "leave it out: CUDA graphs are not used yet"),
    "--tokenizer": (VLLM, "put the tokenizer's files beside the model's; --tokenizer-config-path replaces one of them"),
    "--download-dir": (VLLM, "use --huggingface-hub-cache"),
    "--enable-auto-tool-choice": (VLLM, "leave it out: tools are always understood; see --tool-call-parser"),
    "--reasoning-parser": (VLLM, "leave it out: reasoning is found from the checkpoint"),
    "--generation-config": (VLLM, "use --generation-defaults model, or tgi"),
    "--allowed-origins": (VLLM, "use --cors-allow-origin, once for each origin"),
    "--disable-log-requests": (VLLM, "set the variable LOG_LEVEL to warn"),
    "--uvicorn-log-level": (VLLM, "set the variable LOG_LEVEL to error, warn, info or debug"),
    "--guided-decoding-backend": (VLLM, "leave it out: there is one, for every kind of grammar"),
    "--enable-lora": (VLLM, "use --lora-adapters, which is not supported yet"),
    "--root-path": (VLLM, "leave it out: put a proxy in front that takes the prefix off"),
}
"""A flag as it is typed -> whose it is, and what to do here."""

VARIABLES: dict[str, str] = {
    "OLLAMA_HOST": "use --hostname and --port",
    "OLLAMA_MODELS": "use --huggingface-hub-cache, and models of the hub",
    "OLLAMA_CONTEXT_LENGTH": "use --max-total-tokens",
    "OLLAMA_NUM_PARALLEL": "use --max-batch-size",
    "OLLAMA_MAX_QUEUE": "use --max-queue",
    "OLLAMA_KV_CACHE_TYPE": "use --kv-cache-dtype",
    "OLLAMA_ORIGINS": "use --cors-allow-origin",
    "OLLAMA_DEBUG": "use the variable LOG_LEVEL",
    "OLLAMA_KEEP_ALIVE": "the model stays loaded until the server ends",
    "OLLAMA_FLASH_ATTENTION": "attention never keeps a matrix of all pairs",
    "OLLAMA_MAX_LOADED_MODELS": "a server has one model",
    "OLLAMA_LOAD_TIMEOUT": "loading may take as long as it takes",
    "OLLAMA_GPU_OVERHEAD": "use --memory",
}
"""Ollama's variables -> what to do here."""

LLAMA_PREFIX = "LLAMA_ARG_"
"""llama.cpp's variables have this before a flag's name."""
COMMANDS: dict[str, str] = {
    "run": "chat",
    "ls": "list",
    "remove": "rm",
    "delete": "rm",
    "download": "pull",
    "complete": "chat",
    "server": "serve",
    "start": "serve",
}
"""Commands of other programs -> ours."""


def sentence(word: str) -> str | None:
    """What a flag of another server is here; None for a word that is no such flag."""
    name = word.partition("=")[0]
    if name not in FLAGS:
        return None
    whose, advice = FLAGS[name]
    return f"{name} is a flag of {whose}: {advice}"


def notices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each variable of Ollama's or llama.cpp's that is set, since it says nothing here."""
    found = [
        f"The variable {name} is Ollama's and has no effect: {advice}"
        for name, advice in VARIABLES.items()
        if environment.get(name)
    ]
    for name in sorted(environment):
        flag = "--" + name.removeprefix(LLAMA_PREFIX).lower().replace("_", "-")
        if name.startswith(LLAMA_PREFIX) and flag in FLAGS:
            found.append(f"The variable {name} is llama.cpp's and has no effect: {FLAGS[flag][1]}")
    return tuple(found)
