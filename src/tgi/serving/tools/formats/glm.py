"""GLM: since 4.5 keys and values in tags, before a name and on the next line an object."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.named import Named
from tgi.serving.tools.shapes.tagged import Tagged

GLM45 = Format(
    "glm45",
    Tagged(
        begin="<tool_call>",
        name_end="",
        key="<arg_key>",
        key_end="</arg_key>",
        value="<arg_value>",
        value_end="</arg_value>",
        end="</tool_call>",
    ),
    mentions("<arg_key>", "<arg_value>"),
)
GLM4 = Format("glm4", Named(between=("\n",), separator="\n"), mentions("<|observation|>"))
