"""Pages for those who come from vLLM, Ollama and llama.cpp; their flags are of the table that our errors come from."""

# ruff: noqa: E501 - rows of tables

from __future__ import annotations

from collections.abc import Iterable

from tgi.settings.foreign import FLAGS, LLAMA, VARIABLES, VLLM

NOTE = "<!-- Written by `make docs` from tools/moving_pages.py and src/tgi/settings/foreign.py; do not edit. -->"

FROM_VLLM = """\
# Coming from vLLM

{note}

| vLLM | here |
| --- | --- |
| `vllm serve org/name --port 8000` | `tgi serve org/name --port 8000` |
| `LLM(model).generate(prompts, SamplingParams(...))` | `tgi.LLM(model).generate(prompts, tgi.SamplingParams(...))`, see [in Python](offline.md) |
| `AsyncLLMEngine` | `tgi.AsyncLLM` |
| `vllm bench serve` | `tgi bench`, see [benchmarks](benchmark.md) |

```shell
tgi serve HuggingFaceTB/SmolLM2-135M-Instruct --port 8000 --max-total-tokens 4096 --api-key secret
```

The address is 127.0.0.1 unless `--hostname 0.0.0.0` is given. A flag of vLLM's is answered with a sentence that names
ours, and these are all of them that it knows:

## Flags

| vLLM | here |
| --- | --- |
{flags}

## Routes

| vLLM | here |
| --- | --- |
| `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/responses`, `/v1/messages`, `/v1/models` | the same |
| `/tokenize`, `/detokenize`, `/tokenizer_info` | the same bodies and answers |
| `/health`, `/ping`, `/metrics` | the same paths; [metrics](metrics.md) have TGI's names |
| `/invocations` | the same |
| `/pooling`, `/score`, `/rerank`, `/v1/audio/...` | none |

## Fields

`structured_outputs` and `guided_*`, `top_k`, `repetition_penalty`, `min_tokens`, `stop_token_ids`, `ignore_eos`,
`chat_template_kwargs` and `echo` mean what they mean there. `chat_template` in a request is refused: start with
`--chat-template`. What has no effect is named in the header `x-tgi-ignored`.
Tools and reasoning need no flags, see [tools](tools.md).
"""

FROM_LLAMA_CPP = """\
# Coming from llama.cpp

{note}

| llama.cpp | here |
| --- | --- |
| `llama-server -m model.gguf --port 8080` | `tgi serve model.gguf` |
| `llama-server -hf org/name:Q4_K_M` | `tgi serve org/name:Q4_K_M` |
| `llama-bench`, `llama-batched-bench` | `tgi bench` against a server, see [benchmarks](benchmark.md) |
| `llama-quantize` | `tgi quantize --gguf Q8_0 ...`, see [quantisation](quantisation.md) |
| `llama-perplexity` | `tgi quantize-report` |

GGUF files are served as they are, their tokenizer and chat template too; checkpoints of transformers as well. Requests are
batched without slots: `--max-batch-size` need not be given, and the context is not divided among them.

```shell
tgi serve model.gguf --max-total-tokens 4096 --threads 4
```

A flag of llama.cpp's is answered with a sentence that names ours; these it knows:

## Flags

| llama.cpp | here |
| --- | --- |
{flags}

## Routes

| llama.cpp | here |
| --- | --- |
| `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models`, `/v1/responses`, `/v1/messages` | the same |
| `/completion`, `/completions` with `n_predict` | `/generate` with `max_new_tokens`, or `/v1/completions` |
| `/tokenize` with `content` | `/tokenize` with `inputs`, `prompt` or `messages` |
| `/detokenize` | the same |
| `/apply-template` | `/chat_tokenize` |
| `/health`, `/metrics` | the same; metrics are always on |
| `/props`, `/slots` | `/info`, `/metrics` |
| `/infill`, `/rerank`, `/lora-adapters` | none |
| `grammar` (GBNF), `json_schema` | `response_format` and `grammar`, see [structured output](structured-output.md) |
"""

FROM_OLLAMA = """\
# Coming from Ollama

{note}

| Ollama | here |
| --- | --- |
| `ollama serve`, `ollama run org/name` | `tgi serve org/name`: one model, loaded at the start, for all who ask |
| `ollama run NAME` and chat | `tgi chat NAME`, also against a running server |
| `ollama pull`, `ollama list`, `ollama show`, `ollama rm`, `ollama ps` | `tgi pull`, `tgi list`, `tgi show`, `tgi rm`, `tgi ps`; `tgi inspect` says more |
| names of its library (`llama3.2:1b`) | short names (`tgi list --known`), and every id of the hub |
| a Modelfile's `PARAMETER` | fields of requests; `--generation-defaults model` takes those of the checkpoint |
| a Modelfile's `TEMPLATE` | `--chat-template FILE` (Jinja) |
| a Modelfile's `SYSTEM` | a message with role `system` |

```shell
tgi serve HuggingFaceTB/SmolLM2-135M-Instruct --port 11434 --hostname 127.0.0.1
```

Models are those of the Hugging Face hub, as GGUF files or checkpoints. Programs that know Ollama's own routes need their
setting for an OpenAI server: nearly all have one.

## Variables

Where one of these is set, the log says so:

| Ollama | here |
| --- | --- |
{variables}

## Routes

| Ollama | here |
| --- | --- |
| `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models` | the same |
| `/api/chat`, `/api/generate` | `/v1/chat/completions`, `/v1/completions` or `/generate` |
| `/api/embed` | `/v1/embeddings` |
| `/api/tags`, `/api/show` | `/v1/models`, `/info` |
| `/api/pull`, `/api/delete`, `/api/ps` | none: a server has one model; `tgi pull`, `tgi rm`, `tgi ps` |
| `options.num_predict`, `options.num_ctx` | `max_tokens`, `--max-total-tokens` |
| `format` | `response_format`, see [structured output](structured-output.md) |
"""


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of two columns; the sentences begin with small letters in the code."""
    return "\n".join(f"| `{name}` | {advice} |" for name, advice in rows)


def flags_of(name: str) -> str:
    """A row for each flag of a server."""
    return table((flag, advice) for flag, (whose, advice) in FLAGS.items() if name in whose)


def moving_pages() -> dict[str, str]:
    """Name of a page -> its text."""
    return {
        "from-vllm.md": FROM_VLLM.format(note=NOTE, flags=flags_of(VLLM)),
        "from-llama-cpp.md": FROM_LLAMA_CPP.format(note=NOTE, flags=flags_of(LLAMA)),
        "from-ollama.md": FROM_OLLAMA.format(note=NOTE, variables=table(VARIABLES.items())),
    }
