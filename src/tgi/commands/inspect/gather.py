"""Finds out about a checkpoint, in the order in which loading would, and goes on where loading would stop.

What is wrong becomes a sentence among the problems, so that whoever brought the model sees everything together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tgi.commands.inspect.findings import Cache, Files, Inspection, Tensors
from tgi.commands.inspect.program import kinds, parts
from tgi.commands.inspect.subject import Held, Subject, by_model_names, held, locate
from tgi.commands.inspect.titles import TITLES
from tgi.errors import StartupError
from tgi.hardware import Hardware
from tgi.hub.prepare import check_directory, hub_of, rounding_of, suitability
from tgi.hub.suitability import TOKENIZER_FILES, Suitability
from tgi.kernels.outline import Outline
from tgi.memory.cost import ModelCost
from tgi.memory.estimate import cost_of, describe, survey
from tgi.models import inventory
from tgi.models.build.decoder import build
from tgi.models.config_reader import RopeOverride, read_config
from tgi.models.dtypes import serving_dtype
from tgi.models.families.registry import UnknownFamilyError, spec_from_config
from tgi.models.spec import ModelSpec
from tgi.models.stored import stored_of
from tgi.models.text_part import of_other_parts, other_parts, text_part
from tgi.quant.checkpoint import Stored, check_method
from tgi.serving.template_sources import find
from tgi.settings.config import EngineConfig, environment_settings
from tgi.settings.parse import Parsed
from tgi.settings.resolve import ModelFiles, check, resolve

MOST_NAMES = 50
"""Tensors of a kind that are named."""


class Problems:
    """Sentences, each once."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """What is raised within the block is one of them."""
        try:
            yield
        except StartupError as error:
            if str(error) not in self.sentences:
                self.sentences.append(str(error))


def inspect(parsed: Parsed, variables: Mapping[str, str], facts: Hardware) -> Inspection:
    """All that can be told of the model that the flags name. Raises `StartupError` where there is none."""
    check(parsed.config, facts, variables)
    settings = environment_settings(variables)
    subject = locate(parsed.config, hub_of(settings, parsed.config.huggingface_hub_cache, progress=False))
    problems = Problems()
    config = read_config(subject.directory)
    engine = resolve(parsed, settings, facts, ModelFiles(str(subject.directory), subject.model_id))[1]
    with problems.noted():
        engine = replace(engine, quantize=rounding_of(engine.quantize, subject.directory))
    found = _outside(subject, config)
    found.problems = problems.sentences
    stored = None
    with problems.noted():
        stored = stored_of(subject.directory, config)
        check_method(stored)
    tensors: dict[str, Held] | None = None
    with problems.noted():
        tensors = held(subject)
    found.quantisation, found.files = _called(stored, tensors), _files(subject, tensors)
    cost: ModelCost | None = None
    with problems.noted():
        outline = _add_route(found, subject, config, engine, stored, tensors)
        cost = survey(engine, facts) if outline is None else cost_of(outline, engine, facts)
        _add_cache(found, engine, cost)
    if tensors is not None and found.parameters:
        beside = text_part(config) is not None
        taken = sum(one.bytes for name, one in tensors.items() if not (beside and of_other_parts(name)))
        found.bits_per_weight = round(8 * taken / found.parameters, 2)
    _judge(subject, suitability(parsed, settings, facts), cost, problems)
    if problems.sentences and found.route == "refused":
        found.why = problems.sentences[0]
    return found


def _outside(subject: Subject, config: Mapping[str, Any]) -> Inspection:
    """What needs no understanding of the model."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    known = model_type if isinstance(model_type, str) else None
    return Inspection(
        model_id=subject.model_id,
        path=subject.model_id if subject.passing else str(subject.directory),
        model_type=known,
        title=TITLES.get(known) if known else None,
        architectures=[str(name) for name in architectures] if isinstance(architectures, list) else [],
        tokenizer=next((name for name in TOKENIZER_FILES if name in subject.names), None),
        chat_template=_has_template(subject),
    )


def _has_template(subject: Subject) -> bool | None:
    if subject.remote:  # tokenizer_config.json, which may have one, is not fetched
        return True if any(name.startswith("chat_template.") for name in subject.names) else None
    with contextlib.suppress(StartupError):
        return bool(find(subject.directory))
    return False


def _files(subject: Subject, tensors: Mapping[str, Held] | None) -> Files | None:
    if not subject.weights:
        return None
    types: dict[str, int] = {}
    for one in (tensors or {}).values():
        types[one.type] = types.get(one.type, 0) + 1
    taken = None if tensors is None else sum(one.bytes for one in tensors.values())
    return Files(list(subject.weights), subject.format, taken, types)


def _called(stored: Stored | None, tensors: Mapping[str, Held] | None) -> str | None:
    """The quantisation with its bits, where the settings name them; of GGUF files the type that most bytes have."""
    if stored is None or stored.settings.get("quantised") is False:
        return None
    if stored.method == "gguf" and tensors:
        taken: dict[str, int] = {}
        for one in tensors.values():
            taken[one.type] = taken.get(one.type, 0) + one.bytes
        return max(taken, key=lambda name: taken[name])
    bits = stored.settings.get("bits", stored.settings.get("w_bit"))
    name = next(iter(stored.flags), stored.method)
    return f"{name}, {bits} bits" if isinstance(bits, int) else name


def _add_route(
    found: Inspection,
    subject: Subject,
    config: dict[str, Any],
    engine: EngineConfig,
    stored: Stored | None,
    tensors: Mapping[str, Held] | None,
) -> Outline | None:
    """By whom the model is computed, and what there is to say of it. Raises ModelError if it is by nobody.

    Gives the outline of a model that transformers computes.
    """
    try:
        spec = spec_from_config(config, RopeOverride(engine.rope_scaling, engine.rope_factor), warn=False)
    except UnknownFamilyError:
        outline = describe(subject.directory, engine, stored)
        found.route = "transformers"
        found.why = (
            f"no native family has the model type {found.model_type}; transformers' {outline.class_name} computes it, "
            "and proves itself when it is loaded"
        )
        found.vocabulary, found.parameters = outline.vocab_size, outline.parameters
        found.context, found.stored_dtype = outline.max_positions, outline.dtype
        return outline
    program = build(spec)
    found.route, found.why = "native", f"{found.title or found.model_type} is one of the native families"
    if spec.model_type != found.model_type:
        found.title = TITLES.get(spec.model_type, spec.model_type)
        others = ", ".join(other_parts(config))
        found.why = f"its language model, {found.title}, is one of the native families; not served: {others}"
    found.vocabulary, found.parameters = program.vocab_size, program.parameters
    found.context, found.stored_dtype = spec.max_positions, spec.dtype
    found.parts, found.program = parts(spec, program), kinds(spec, program)
    found.encoder = kinds(spec, program, encoder=True) if spec.encoder else []
    if tensors is not None:
        quantised = stored is not None and subject.format != "gguf"
        compared = _compare(subject, spec, tensors, quantised=quantised)
        found.tensors = _tensors(compared, len(tensors))
        if stored is not None:  # `suitability` leaves these to the load
            replace(compared, unused=() if quantised else compared.unused).check()
    return None


def _compare(subject: Subject, spec: ModelSpec, tensors: Mapping[str, Held], *, quantised: bool) -> inventory.Inventory:
    compare = inventory.compare_modules if quantised else inventory.compare
    return compare(by_model_names(tensors, subject, spec), spec, build(spec))


def _tensors(found: inventory.Inventory, stored: int) -> Tensors:
    return Tensors(
        stored=stored,
        needed=len(found.found) + len(found.missing),
        found=len(found.found),
        missing=_some(found.missing),
        missing_count=len(found.missing),
        unused=_some(found.unused),
        unused_count=len(found.unused),
        ignored_count=len(found.ignored),
        misshapen=_some(found.misshapen),
    )


def _some(names: Sequence[str]) -> list[str]:
    return list(names[:MOST_NAMES])


def _add_cache(found: Inspection, engine: EngineConfig, cost: ModelCost) -> None:
    device = engine.device or "cpu"
    found.serving_dtype = serving_dtype(engine.dtype, found.stored_dtype, device.split(":")[0]) or "float32"
    found.weight_bytes = cost.weight_bytes
    found.context = cost.context
    found.cache = Cache(engine.kv_cache_dtype or found.serving_dtype, cost.kv_bytes_per_token, cost.state_bytes)


def _judge(subject: Subject, judge: Suitability, cost: ModelCost | None, problems: Problems) -> None:
    """The check that `tgi serve` makes. cost: None where it has been said that the config cannot be served."""
    if cost is not None:
        with problems.noted():
            judge.check_config(subject.directory, subject.names, cost)
    with problems.noted():
        if subject.format == "gguf":
            return
        if not subject.remote:
            check_directory(subject.model_id, subject.directory)
            judge.check_files(subject.directory)
        elif subject.index is not None:
            judge.check_index(subject.directory, subject.index)
