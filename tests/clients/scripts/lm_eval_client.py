"""lm-eval's local-completions model. Arguments: URL, checkpoint, JSON of [context, continuation] pairs."""

import json
import os
import sys
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI


def requests(kind: str, arguments: list[Any]) -> list[Instance]:
    return [Instance(kind, {}, tuple(one), index) for index, one in enumerate(arguments)]


def main(url: str, checkpoint: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for name, more in {
        "one_by_one": {},
        "batches": {"batch_size": 3, "num_concurrent": 4},
    }.items():
        model = LocalCompletionsAPI(
            base_url=f"{url}/v1/completions", model=checkpoint, tokenizer_backend="huggingface", max_length=512, **more
        )
        answer[name] = model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    texts = [(context + continuation,) for context, continuation in pairs]
    answer["rolling"] = model.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    until = [(context, {"until": ["a"], "max_gen_toks": 12}) for context, _ in pairs if context]
    answer["generated"] = model.generate_until(requests("generate_until", until), disable_tqdm=True)
    return answer


print(json.dumps(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
