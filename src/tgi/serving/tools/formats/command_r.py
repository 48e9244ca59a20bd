"""Command-R: a list of actions, since 7B and Command-A between tokens, before that in a code block."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.objects import Objects

COMMAND_R7B = Format(
    "command_r7b",
    Objects(
        begin=("<|START_ACTION|>",),
        end="<|END_ACTION|>",
        listed=True,
        before='"tool_call_id": "0", ',
        ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        name="tool_name",
        arguments="parameters",
    ),
    mentions("<|START_ACTION|>"),
)
COMMAND_R = Format(
    "command_r",
    Objects(
        begin=("Action: ```json", "Action:```json"),
        end="```",
        listed=True,
        around=("\n", "\n"),
        name="tool_name",
        arguments="parameters",
    ),
    mentions("Action:", "tool_name"),
)
