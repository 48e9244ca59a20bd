"""Granite 3: a list of objects after `<|tool_call|>`."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.objects import Objects

GRANITE = Format("granite", Objects(begin=("<|tool_call|>",), listed=True), mentions("<|tool_call|>"))
