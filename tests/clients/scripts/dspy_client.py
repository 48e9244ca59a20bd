"""dspy with its two adapters. Argument: URL."""

import json
import os
import sys
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network
import dspy

MODEL = "openai/gpt-4o-mini"
"""What models can do it knows by their names."""


class Feeling(dspy.Signature):
    """Classify the feeling of a sentence."""

    sentence: str = dspy.InputField()
    feeling: Literal["good", "bad"] = dspy.OutputField()


def main(url: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name, adapter in (("chat", dspy.ChatAdapter()), ("json", dspy.JSONAdapter())):
        given: dict[str, Any] = {
            "api_base": f"{url}/v1",
            "api_key": "-",
            "temperature": 0,
            "max_tokens": 200,
            "cache": False,
        }
        model = dspy.LM(MODEL, **given)
        try:
            with dspy.context(lm=model, adapter=adapter):
                answers[name] = dspy.Predict(Feeling)(sentence="I am happy today.").feeling
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {str(error)[:2000]}"
    return answers


print(json.dumps(main(sys.argv[1])))
