"""What GPTQ and AWQ checkpoints say of themselves, as transformers, GPTQModel and AutoAWQ read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tgi import __version__
from tgi.models.making.job import Job


def gptq_settings(job: Job, left: Sequence[str]) -> dict[str, Any]:
    """left: modules of the layers that are floats still."""
    settings: dict[str, Any] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": job.bits,
        "group_size": job.group,
        "desc_act": job.act_order,
        "sym": job.symmetric,
        "lm_head": False,
        "true_sequential": True,
        "static_groups": False,
        "damp_percent": job.percdamp,
        "meta": {"quantizer": [f"text-generation-inference:{__version__}"]},
    }
    if left:
        settings["dynamic"] = {f"-:^{re.escape(module)}$": {} for module in left}
    return settings


def awq_settings(job: Job, left: Sequence[str]) -> dict[str, Any]:
    """The same for AWQ."""
    return {
        "quant_method": "awq",
        "version": "gemm",
        "bits": job.bits,
        "group_size": job.group,
        "zero_point": True,
        "modules_to_not_convert": list(left) or None,
    }
