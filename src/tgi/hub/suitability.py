"""Whether this server can serve a model on this machine: the one check of `tgi plan` and of serving.

Made in the order in which files come: config.json and the names of the others before anything large is fetched, the
index of shards before they are, headers once all is there. Imports no torch; what only weights show is the loader's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tgi.errors import DownloadError
from tgi.hardware import Hardware
from tgi.hub import files
from tgi.memory.cost import ModelCost
from tgi.memory.estimate import estimate, survey
from tgi.models import inventory
from tgi.models.build.decoder import build
from tgi.models.config_reader import read_config
from tgi.models.families.registry import UnknownFamilyError, spec_from_config
from tgi.models.stored import stored_of
from tgi.serving.tokenizer import SLOW_FILES
from tgi.settings.config import EngineConfig
from tgi.untrusted import printable

TOKENIZER_FILES = ("tokenizer.json", *SLOW_FILES)


class Suitability:
    """The check of one model, to be served with the given settings. Every method raises `StartupError`."""

    def __init__(self, model_id: str, engine: EngineConfig, hardware: Hardware, *, memory: bool = True) -> None:
        """engine: its `model_path` does not count. memory: whether the model must fit into this machine's."""
        self.model_id, self._engine, self._hardware, self._memory = model_id, engine, hardware, memory
        self._passed: bytes | None = None

    def check_config(self, directory: Path, names: Collection[str], cost: ModelCost | None = None) -> None:
        """Family, quantisation, dtype and size by config.json; a tokenizer by the names of the files there are.

        cost: what `survey` gave for the settings, where it is known.
        """
        engine = replace(self._engine, model_path=str(directory))
        content = (directory / "config.json").read_bytes()
        if content == self._passed:
            return
        cost = cost or survey(engine, self._hardware)
        if not set(TOKENIZER_FILES) & set(names):
            raise DownloadError(
                f"{printable(self.model_id)} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}. Put the tokenizer "
                "of the model it was made from beside its weights"
            )
        device = engine.device or ("cuda" if self._hardware.gpus else "cpu")
        known = device == "cpu" or engine.memory_bytes  # how much of a GPU is free only the engine can see
        if self._memory and known:
            estimate(engine, self._hardware, cost)
        self._passed = content

    def check_index(self, directory: Path, index: str) -> None:
        """The tensors that the index of shards names are those of the model."""
        if index.startswith("model.safetensors"):
            self._compare(directory, index)

    def check_files(self, directory: Path) -> None:
        """No file is a stand-in for one or cut short, and the headers hold the tensors of the model."""
        files.check(directory)
        chosen = files.in_directory(directory)
        if all(name.endswith(".safetensors") for name in chosen.names):
            self._compare(directory, None)

    def _compare(self, directory: Path, index: str | None) -> None:
        config = read_config(directory)
        if stored_of(directory, config) is not None:
            return  # the format knows which tensors a matrix is kept in
        try:
            spec = spec_from_config(config, warn=False)
        except UnknownFamilyError:
            return  # transformers knows its tensors
        if index is None:
            stored = inventory.read_stored(directory, spec.names)
        else:
            stored = inventory.read_names(directory / index, spec.names)
        inventory.compare(stored, spec, build(spec)).check()
