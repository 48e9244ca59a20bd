"""gpt-oss: harmony's channels."""

from tgi.serving.tools.format import Format, mentions
from tgi.serving.tools.shapes.channels import Channels

HARMONY = Format("harmony", Channels(), mentions("<|channel|>", "<|message|>", "<|start|>"))
