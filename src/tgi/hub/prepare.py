"""From flags to a model on this disk and the two configurations: all that happens before a process starts.

Owns the order: checks, model files (bundled, local, hub; converted if need be), `resolve`. Called by
`cli` and by `tgi.offline`.
"""

from __future__ import annotations

import atexit
import importlib.resources
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tgi import children, hardware
from tgi.errors import ArgumentError, DownloadError
from tgi.hub import convert as conversion
from tgi.hub import converted, files, gguf
from tgi.hub.convert_tokenizer import ensure_fast_tokenizer
from tgi.hub.download import Hub, download, judge_remote
from tgi.hub.known import with_full_name
from tgi.hub.suitability import Suitability
from tgi.models.config_reader import read_config
from tgi.models.stored import stored_of
from tgi.quant.checkpoint import rounding
from tgi.serving.template_sources import read_chosen
from tgi.settings.config import ApiConfig, EngineConfig, Environment, environment_settings, read_environment
from tgi.settings.flags import LauncherConfig
from tgi.settings.parse import Bytes, Parsed, UsageError, options, parse_bytes, unknown
from tgi.settings.resolve import ModelFiles, check, check_machine, resolve
from tgi.untrusted import printable

logger = logging.getLogger(__name__)

DEMO_ID = "tgi-demo"


def prepare(model_id: str | None = None, **flags: Any) -> tuple[ApiConfig, EngineConfig]:
    """The configurations for a model; keyword arguments are the launcher's flags with underscores.

    The environment gives no flags here, only what has none (HF_TOKEN, HF_HUB_OFFLINE, ...).
    Raises `StartupError`.
    """
    known = {option.name: option for option in options()}
    given = {"model_id": model_id, **flags}
    for name, value in given.items():
        if name not in known:
            error = unknown(name, list(known))
            raise ArgumentError(f"{error}" + (f"; {error.tip}" if error.tip else ""))
        if name == "config" and value is not None:
            raise ArgumentError("`config` is a flag of commands: give what the file says as keyword arguments")
        if known[name].type is Bytes and isinstance(value, str):
            try:
                given[name] = parse_bytes(value, name)
            except UsageError as error:
                raise ArgumentError(str(error)) from None
    sources = {name: name for name, value in given.items() if value is not None}
    parsed = Parsed(LauncherConfig(**given), sources)
    return prepare_parsed(parsed, read_environment(), hardware.detect())


def prepare_parsed(
    parsed: Parsed, variables: Mapping[str, str], facts: hardware.Hardware
) -> tuple[ApiConfig, EngineConfig]:
    """Check, fetch, convert, resolve. Raises `StartupError`."""
    parsed = with_full_name(parsed)
    check(parsed.config, facts, variables)
    check_machine(parsed.config, facts)
    given = parsed.config.tokenizer_config_path
    if given and not Path(given).is_file():  # now, and not after a download
        raise ArgumentError(f"--tokenizer-config-path: there is no file {given}")
    if parsed.config.chat_template is not None:
        read_chosen(parsed.config.chat_template)  # what is wrong with it shows before a download
    settings = environment_settings(variables)
    hub = hub_of(settings, parsed.config.huggingface_hub_cache, progress=not parsed.config.json_output)
    logger.info("Using attention paged - Prefix caching %s", str(settings.prefix_caching is not False).lower())
    model = model_files(parsed.config, hub, suitability(parsed, settings, facts))
    api, engine = resolve(parsed, settings, facts, model)
    return api, with_rounding(engine, Path(model.path))


def prepare_plan(parsed: Parsed, variables: Mapping[str, str], facts: hardware.Hardware) -> EngineConfig:
    """The engine's configuration for a plan of a model that can be served.

    Of a model on the hub only config.json and an index of shards are fetched. Raises `StartupError`.
    """
    parsed = with_full_name(parsed)
    check(parsed.config, facts, variables)
    settings = environment_settings(variables)
    name = parsed.config.model_id or DEMO_ID
    judge = suitability(parsed, settings, facts)
    directory = files.directory(name) or (demo_directory() if name == DEMO_ID else None)
    if local := local_gguf(name, parsed.config.gguf_file):
        caches = converted.caches_of(read_environment(), parsed.config.huggingface_hub_cache)
        directory = Path(gguf.make_model(local, name, caches).path)
        judge.check_config(directory, files.names(directory))
    elif directory is None:
        refuse_path(name)
        hub = hub_of(settings, parsed.config.huggingface_hub_cache, progress=False)
        directory = judge_remote(name, parsed.config.revision, hub, judge)
    else:
        check_directory(name, directory)
        judge.check_config(directory, [entry.name for entry in directory.iterdir()])
        judge.check_files(directory)
    engine = resolve(parsed, settings, facts, ModelFiles(str(directory), name))[1]
    return with_rounding(engine, directory)


def with_rounding(engine: EngineConfig, directory: Path) -> EngineConfig:
    """The same with `quantize` as `rounding_of` says.

    Raises `ModelError` for a flag that contradicts the checkpoint, `ArgumentError` for one that changes nothing.
    """
    stored = stored_of(directory, read_config(directory))
    quantize = rounding(engine.quantize, stored)
    plain = stored is None or stored.settings.get("quantised") is False
    if engine.activation_dtype is not None and quantize is None and plain:
        raise ArgumentError(
            f"`activation_dtype` {engine.activation_dtype} needs `quantize` or a quantised checkpoint: layers of other "
            "weights never round activations"
        )
    return replace(engine, quantize=quantize)


def rounding_of(quantize: str | None, directory: Path) -> str | None:
    """The rounding that matrices are in, on the fly or stored so; None where the flag only names what they are.

    Raises `ModelError` where the flag and the checkpoint contradict each other.
    """
    return rounding(quantize, stored_of(directory, read_config(directory)))


def suitability(parsed: Parsed, settings: Environment, facts: hardware.Hardware, *, memory: bool = True) -> Suitability:
    """The check of the model that the flags name. memory: whether it must fit into this machine's."""
    name = parsed.config.model_id or DEMO_ID
    return Suitability(name, resolve(parsed, settings, facts, ModelFiles("", name))[1], facts, memory=memory)


def hub_of(settings: Environment, cache_dir: str | None, *, progress: bool) -> Hub:
    """How the environment says to reach the hub."""
    return Hub(settings.hf_token, cache_dir, settings.hub_offline, settings.hub_endpoint, progress)


def model_files(config: LauncherConfig, hub: Hub, judge: Suitability | None = None) -> ModelFiles:
    """The model on this disk, ready to load: downloaded and converted if need be.

    Raises `DownloadError`, and what `judge` raises; without it any model is fetched.
    """
    name = config.model_id or DEMO_ID
    logger.info("Starting check and download process for %s", name)
    model = locate(name, config.revision, hub, code=config.trust_remote_code, judge=judge, gguf_file=config.gguf_file)
    if judge is not None:
        judge.check_config(Path(model.path), [entry.name for entry in Path(model.path).iterdir()])
    if is_gguf(model):
        if config.weights_cache_override:
            raise DownloadError("--weights-cache-override does not go with a GGUF file, which holds all of a model")
        logger.info("Successfully downloaded weights for %s", name)
        return model
    if config.weights_cache_override:
        model = override_weights(model, Path(config.weights_cache_override))
    files.check(Path(model.path))
    model = converted.place(model, converted.caches_of(read_environment(), hub.cache_dir))
    convert(model)
    ensure_fast_tokenizer(Path(model.path))
    if judge is not None:
        judge.check_files(Path(model.path))
    logger.info("Successfully downloaded weights for %s", name)
    return model


def is_gguf(model: ModelFiles) -> bool:
    """Whether the model is one that `hub.gguf` made."""
    return Path(model.path).parent.name == gguf.FOLDER


def locate(
    name: str,
    revision: str | None,
    hub: Hub,
    *,
    code: bool = False,
    judge: Suitability | None = None,
    gguf_file: str | None = None,
) -> ModelFiles:
    """The bundled model, a local directory or GGUF file, or one from the hub."""
    caches = converted.caches_of(read_environment(), hub.cache_dir)
    if local := local_gguf(name, gguf_file):
        if revision:
            logger.warning("--revision has no effect on the local file %s", local[0])
        return gguf.make_model(local, name, caches)
    if path := files.directory(name):
        if revision:
            logger.warning("--revision has no effect on the local directory %s", name)
        check_directory(name, path)
        logger.info("Files are already present on the host. Skipping download.")
        return ModelFiles(str(path.absolute()), name)
    if name == DEMO_ID:
        demo = demo_directory()
        check_directory(name, demo)
        return ModelFiles(str(demo), name, pipeline_tag="text-generation")
    refuse_path(name)
    return download(name, revision, hub, code=code, judge=judge, gguf_file=gguf_file, caches=caches)


def local_gguf(name: str, gguf_file: str | None) -> list[Path]:
    """The GGUF files that a name means: one, or those of a directory without other weights; none for other names.

    `DIRECTORY:Q4_K_M` and --gguf-file choose among several. Raises `DownloadError`.
    """
    if name.endswith(gguf.SUFFIX) and files.is_file(name):
        return gguf.parts_of(Path(name).expanduser().absolute())
    stem, tag = (name, None) if files.directory(name) else gguf.split_tag(name)
    path = files.directory(stem)
    if path is None:
        return []
    wanted = gguf_file or tag
    found = any(name.endswith(gguf.SUFFIX) for name in files.names(path))
    if wanted is None and (not found or (files.is_file(path / "config.json") and weights_of(path))):
        return []
    return gguf.in_directory(path.absolute(), wanted)


def refuse_path(name: str) -> None:
    """Refuse what looks like a path but is no directory, before the hub is asked. Raises `DownloadError`."""
    if files.is_file(name):
        raise DownloadError(f"{name} is a file: give the directory of a model, or its id on the hub")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise DownloadError(f"there is no directory {printable(name)}")


def check_directory(name: str, path: Path) -> None:
    """A model needs a configuration and weights. Raises `DownloadError`."""
    if not files.is_file(path / "config.json"):
        raise DownloadError(f"{name} has no config.json: it is not a model in transformers format")
    if not weights_of(path):
        raise files.no_weights(name, [entry.name for entry in path.iterdir()])


def weights_of(directory: Path) -> list[str]:
    """Weight files of a directory; empty when there are none. Raises `DownloadError` if some are missing."""
    return list(files.in_directory(directory).names)


def convert(model: ModelFiles) -> None:
    """Run the conversion where there is no safetensors file; see `tgi.hub.convert`."""
    directory = Path(model.path)
    if all(name.endswith(".safetensors") for name in weights_of(directory)):
        return
    logger.warning("%s has no safetensors weights: converting them, once", model.model_id)
    if warning := files.in_directory(directory).warning(directory):
        logger.warning(warning)
    command = children.python(conversion.__name__, str(directory))
    with (
        tempfile.TemporaryFile("w+") as errors,
        children.started(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            logger.info("%s", line.rstrip())
        if child.wait() != 0:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or [f"exit status {child.returncode}"]
            raise DownloadError(f"the weights of {model.model_id} cannot be converted: {lines[-1]}")


def override_weights(model: ModelFiles, directory: Path) -> ModelFiles:
    """The model's own configuration and tokenizer with the weights of another directory (TGI's test hook).

    Gives a temporary directory of links, removed when this process ends.
    """
    if not directory.is_dir():
        raise DownloadError(f"--weights-cache-override: there is no directory {directory}")
    weights = files.in_directory(directory)
    if not weights.names:
        raise files.no_weights(str(directory), [path.name for path in directory.iterdir() if path.is_file()])
    joined = Path(tempfile.mkdtemp(prefix="tgi-model-"))
    atexit.register(shutil.rmtree, joined, ignore_errors=True)
    sources = [Path(model.path) / name for name in files.small_files([p.name for p in Path(model.path).iterdir()])]
    sources += [directory / name for name in [*weights.names, *([weights.index] if weights.index else [])]]
    for source in sources:
        (joined / source.name).symlink_to(source.resolve())
    return ModelFiles(str(joined), model.model_id, model.sha, model.pipeline_tag)


def demo_directory() -> Path:
    """Where the bundled demo model is."""
    return Path(str(importlib.resources.files("tgi") / "demo"))
