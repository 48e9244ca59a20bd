"""What a model on the hub is, told from its config, the names of its files and the headers of its weights.

Nothing large is fetched. Imports no torch.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tgi.errors import DownloadError, ModelError, StartupError
from tgi.hub import files
from tgi.hub.download import Hub, download_config, explain, is_network, with_tries
from tgi.models.safetensors_header import ITEM_BYTES, StoredTensor
from tgi.models.weight_files import WeightFiles
from tgi.untrusted import printable

SETTINGS = ("quantize_config.json", "quant_config.json")
"""Files beside config.json that say how weights are quantised."""
AT_ONCE = 8
"""Headers that are asked for at the same time."""


@dataclass(frozen=True)
class RemoteModel:
    """A repository, looked at."""

    directory: Path
    """In the cache, with config.json."""
    names: tuple[str, ...]
    weights: WeightFiles
    tensors: dict[str, StoredTensor] | None
    """Of the headers; None for files in another format, and where the hub cannot be reached."""


def look(model_id: str, revision: str | None, hub: Hub) -> RemoteModel:
    """Fetch config.json, the index of shards and the headers of safetensors files. Raises `StartupError`."""
    import huggingface_hub

    directory = download_config(model_id, revision, hub)
    if hub.offline:
        return _cached(directory)
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=hub.token, library_name="text-generation-inference")
    try:
        info = with_tries(lambda: api.model_info(model_id, revision=revision), hub)
        names = tuple(sibling.rfilename for sibling in info.siblings or [])
        fetch = partial(
            huggingface_hub.hf_hub_download, model_id, revision=info.sha, cache_dir=hub.cache_dir, token=hub.token,
            endpoint=hub.endpoint,
        )  # fmt: skip
        for name in set(SETTINGS) & set(names):
            fetch(name)
        weights = files.choose(names, lambda index: Path(fetch(index)))
        if not weights.names:
            raise files.no_weights(model_id, names)
        read = partial(api.parse_safetensors_file_metadata, model_id, revision=info.sha)
        return RemoteModel(directory, names, weights, _headers(weights, read, hub))
    except StartupError:
        raise
    except Exception as error:
        if is_network(error):
            return _cached(directory)
        explain(error, model_id, revision, hub)


def _cached(directory: Path) -> RemoteModel:
    """What the cache has of it."""
    try:
        weights = files.in_directory(directory)
    except DownloadError:
        weights = WeightFiles()
    return RemoteModel(directory, tuple(path.name for path in directory.iterdir()), weights, None)


def _headers(weights: WeightFiles, read: Any, hub: Hub) -> dict[str, StoredTensor] | None:
    if not all(name.endswith(".safetensors") for name in weights.names):
        return None
    found: dict[str, StoredTensor] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for file in pool.map(lambda name: with_tries(lambda: read(name), hub), weights.names):
            for name, about in file.tensors.items():
                if about.dtype not in ITEM_BYTES:
                    raise ModelError(f"tensor {printable(name)} has dtype {printable(about.dtype, 80)}, not supported")
                found[name] = StoredTensor(about.dtype, tuple(about.shape), 0)
    return found
