"""Write the pages of docs/ that come from tables in the code, and the dashboard of deploy/.

`python tools/generate_docs.py` writes them; `--check` only says which are out of date (exit status 1).
A test runs the check.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dashboard import dashboard
from moving_pages import moving_pages

from tgi.commands.cli import FRIENDLY
from tgi.models.families.registry import FAMILIES
from tgi.models.text_part import WITH_OTHER_PARTS
from tgi.settings.config import INEFFECTIVE_VARIABLES
from tgi.settings.flags import WITHOUT_EFFECT
from tgi.settings.help import markdown

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

FLAGS = f"""\
# Flags

<!-- Written by `make docs` from src/tgi/settings/flags.py; do not edit. -->

Flags of `text-generation-launcher` and `tgi serve`. Each can also be given as an environment variable, and in a file
that `--config` names: the command line wins over the environment, and that over the file. An empty variable counts as
not set. Switches take `true` and `false`, `1` and `0`, `yes` and `no`, `on` and `off`, in any case. Where `tgi serve`
has another default, the table says so.

Names, meaning and defaults are TGI's; variables that begin with `TGI_` belong to flags of our own. What is under
"{WITHOUT_EFFECT}" changes nothing: giving it is answered with a line in the log, and `/info` lists it.

{{table}}
## Variables without a flag

| environment | meaning |
| --- | --- |
| `HF_TOKEN` | token for the hub; else `HF_API_TOKEN`, else `HUGGING_FACE_HUB_TOKEN` |
| `HF_HOME`, `HF_HUB_CACHE` | where downloads are kept, unless `--huggingface-hub-cache` is given |
| `HF_HUB_OFFLINE` | a switch, on: use the cache only |
| `HF_ENDPOINT` | another hub |
| `HF_HUB_ENABLE_HF_TRANSFER`, `HF_HUB_USER_AGENT_ORIGIN` | as the library huggingface_hub has it, which fetches |
| `LOG_LEVEL` | `error`, `warn`, `info` (default), `debug`, or a filter such as `warn,text_generation_router=debug`; \
at `debug` the router shows the beginnings of prompts (`Input:`) and texts (`Output:`) |
| `LOG_COLORIZE` | a switch, on (TGI: `1`): turns colours off, as in TGI; they are only used on a terminal anyway |
| `PREFIX_CACHING` | a switch, off: do not share computed prefixes between requests |
| `COMPUTE_TYPE` | value of the response header `x-compute-type` |
| `HF_MODEL_ID`, `HF_MODEL_REVISION`, `HF_MODEL_QUANTIZE`, `HF_MODEL_TRUST_REMOTE_CODE`, `SM_NUM_GPUS` | \
SageMaker's names for model, revision, quantization, trust and shards; with `HF_MODEL_ID` the default port is 8080 |
| `AIP_HTTP_PORT` | Vertex AI's port; wins over every other one |
| `AIP_PREDICT_ROUTE`, `AIP_HEALTH_ROUTE` | Vertex AI's paths for `/vertex` and `/health`, beside these |
{{ineffective}}
"""


MODELS = """\
# Models

<!-- Written by `make docs` from src/tgi/models/families/ and tests/models/; do not edit. -->

Families that are computed natively, as one program on the reference and on the native CPU backend, in float32, bfloat16
and float16, with `--quantize` and with every other feature of the server. Each is compared with transformers on tiny
random checkpoints: logits to 1e-4 and greedy tokens, with whole prompts, in chunks, in mixed batches, after prefix hits
and after preemption. Those with an encoder are compared with what transformers generates while requests join, leave and
are preempted. The last column names the checkpoints, for `pytest -k` of the tests below. How to add a family:
[adding a model](adding-a-model.md). What a checkpoint of yours is: `tgi inspect`.

| `model_type` | models | apart from Llama | tested as |
| --- | --- | --- | --- |
{rows}

Of a checkpoint that also has parts for images or sound the language model is served, as if it were alone, where
`model_type` is {with_other_parts}; the log and `tgi inspect` say which parts are not.

What proves it:

| feature | tests |
| --- | --- |
{proofs}

## Others, by transformers

Every other language model (`AutoModelForCausalLM`, `AutoModelForSeq2SeqLM`) that the installed transformers can build
runs through its code, in plain torch, with continuous batching and streaming; the checkpoint's own code only with
`--trust-remote-code`. At load the model proves itself: three sequences, together and in pieces, against each alone.
Where its class lets attention be plugged in and gives the same logits so, it uses our paged cache, with prefix sharing;
else its own, in a padded batch where that works, in batches of sequences of one length where it does not; the log says
which and why. A model that gives other logits in each of these ways is refused. There are no `--quantize`, quantised
checkpoints and `--kv-cache-dtype` for them.

Tested with our cache: {paged}.

Tested with their own: {own}.

Tested with an encoder: {encoders}.
"""


PROOFS = {
    "logits and greedy tokens as transformers has them; parameters as it counts them; `--quantize int8`":
        "models/test_family_parity.py",
    "with an encoder: tokens as transformers generates them, while requests join, leave and are preempted":
        "engine/test_seq2seq.py",
    "states beside the KV cache: same bits in chunks, with prefix hits and after preemption": "engine/test_states.py",
    "same bits in any batch on the native backend": "models/test_native_invariance.py",
    "language models beside parts for images or sound": "models/test_text_part.py",
    "stored quantisation formats": "quant/test_formats.py",
    "GGUF files": "models/test_gguf.py",
    "values of a config that are refused by name": "models/test_families.py",
    "ids of texts as transformers makes them, for the tokenizer class of every family":
        "serving/test_tokenizer_variants.py",
    "tokenizers without a tokenizer.json": "hub/test_convert_tokenizer.py",
    "others, by transformers": "models/test_fallback.py",
}  # fmt: skip
"""What is claimed of models -> the file that shows it, below tests/."""


def proofs() -> str:
    """A row for each claim."""
    return "\n".join(f"| {claim} | [{file}](../tests/{file}) |" for claim, file in PROOFS.items())


def others() -> dict[str, str]:
    """The architectures that are tested by transformers' code, and those of which a part is served."""
    sys.path.insert(0, str(ROOT))
    from tests.models.fallback_cases import OWN_CACHE, PAGED, WITH_ENCODER  # without torch

    lists = {"paged": PAGED, "own": OWN_CACHE, "encoders": WITH_ENCODER}
    said = {name: ", ".join(f"`{one}`" for one in sorted(of)) for name, of in lists.items()}
    *first, last = (f"`{name}`" for name in sorted(WITH_OTHER_PARTS))
    return {**said, "with_other_parts": f"{', '.join(first)} or {last}"}


def models() -> str:
    """A row for each family: what its function says of it, and the checkpoints it is tested with."""
    sys.path.insert(0, str(ROOT))
    from tests.models import seq2seq, tiny  # their tables alone, without torch

    from tgi.commands.inspect.titles import TITLES

    tests = {"llama", "mistral", "qwen2", "gpt2", "gpt_neox", "bloom", "gemma2"}  # of tests/models/checkpoints.py
    tables = tiny.CASES | seq2seq.CASES
    rows = []
    for name, family in sorted(FAMILIES.items()):
        said = (family.__doc__ or "").strip().split("\n")[0]
        cases = [case for case, (model_type, _) in tables.items() if model_type == name] + [name] * (name in tests)
        rows.append(f"| `{name}` | {TITLES[name]} | {said} | {', '.join(cases)} |")
    return "\n".join(rows)


def ineffective() -> str:
    """Rows for variables of TGI's that are accepted and named in the log."""
    return "\n".join(f"| `{name}` | no effect: {why} |" for name, why in INEFFECTIVE_VARIABLES.items())


def pages() -> dict[Path, str]:
    """Each generated page with its text."""
    moving = {DOCS / name: text for name, text in moving_pages().items()}
    return moving | {
        ROOT / "deploy/grafana/tgi.json": dashboard(),
        DOCS / "flags.md": FLAGS.format(table=markdown(FRIENDLY), ineffective=ineffective()),
        DOCS / "models.md": MODELS.format(rows=models(), proofs=proofs(), **others()),
    }


def main() -> int:
    """Exit status 0, or 1 when `--check` finds a page out of date."""
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(pages()[path])
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
