"""Llama: since 3.1 a JSON object, with 4 a list of Python calls, and functions in tags where a prompt asks for them."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.named import Named
from tgi.serving.tools.shapes.objects import Objects
from tgi.serving.tools.shapes.pythonic import Pythonic

LLAMA3_JSON = Format(
    "llama3_json",
    Objects(arguments="parameters", between="; ", ignored=("<|python_tag|>",)),
    mentions("<|start_header_id|>", '"parameters": '),
)
LLAMA_PYTHONIC = Format(
    "pythonic",
    Pythonic(ignored=("<|python_start|>", "<|python_end|>")),
    lambda source: "<|python_start|>" in source or "func_name1(" in source,
)
LLAMA_TAGS = Format("llama_tags", Named(begin="<function=", between=(">",), end="</function>"), mentions("<function="))
