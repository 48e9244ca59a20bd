"""Brings a model from the hub to this disk.

Owns talking to the hub through `huggingface_hub` (cache, token, offline mode, progress, tries) and
turning its errors into sentences that say what to do. Which files are needed is decided by `files`,
conversion by `prepare`; what an earlier run left unfinished is `unfinished`'s. Imports no torch.
"""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from tgi.errors import DownloadError, StartupError
from tgi.hub import files, gguf, near
from tgi.hub.unfinished import fetch_blob
from tgi.models.weight_files import WeightFiles
from tgi.settings.resolve import ModelFiles
from tgi.untrusted import printable

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

TRIES = 5
PAUSE_S = 5.0
_NETWORK_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


@dataclass(frozen=True)
class Hub:
    """How to reach the hub."""

    token: str | None = field(default=None, repr=False)
    cache_dir: str | None = None
    """None: huggingface_hub's own rules (HF_HUB_CACHE, HF_HOME, the home directory)."""
    offline: bool = False
    endpoint: str | None = None
    progress: bool = True
    """Show bars, where standard error is a terminal."""
    pause_s: float = PAUSE_S
    """Between two tries."""
    only: bool = False
    """The command does nothing but download: whoever runs it is not told to download."""


class Judge(Protocol):
    """Whoever may refuse a model before its weights are fetched: `suitability.Suitability`. Raises `StartupError`."""

    def check_config(self, directory: Path, names: Collection[str]) -> None:
        """config.json is in the directory, and the repository has files of these names."""
        ...

    def check_index(self, directory: Path, index: str) -> None:
        """So is the index of shards."""
        ...


def download(
    model_id: str,
    revision: str | None,
    hub: Hub,
    *,
    code: bool = False,
    gguf_file: str | None = None,
    caches: Sequence[Path] = (),
    judge: Judge | None = None,
) -> ModelFiles:
    """Make sure that all files of a model are in the cache; give their directory.

    Files that are there are not asked for again; with the hub out of reach a complete cached model is
    used as it is. `code`: fetch Python files too. A repository of GGUF files alone, or `org/name:Q4_K_M`, or gguf_file:
    one model in GGUF, made in the first of `caches` that can be written to. Raises `DownloadError`, and what `judge`
    raises before weights are fetched.
    """
    import huggingface_hub
    from huggingface_hub import utils
    from huggingface_hub.utils import logging as library  # adds a handler, with which warnings would appear twice

    library.get_logger("huggingface_hub").handlers.clear()
    bars = hub.progress and sys.stderr.isatty()
    (utils.enable_progress_bars if bars else utils.disable_progress_bars)()
    model_id, tag = gguf.split_tag(model_id)
    wanted = gguf_file or tag
    if hub.offline:
        if wanted is not None:
            raise DownloadError(f"HF_HUB_OFFLINE is set: give {wanted} of {model_id} as a local file")
        return _cached(model_id, revision, hub, "HF_HUB_OFFLINE is set")
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=hub.token, library_name="text-generation-inference")
    try:
        info = with_tries(lambda: api.model_info(model_id, revision=revision, files_metadata=True), hub)
    except Exception as error:
        if not is_network(error):
            explain(error, model_id, revision, hub)
        found = _cached(model_id, revision, hub, f"the hub cannot be reached ({_first_line(error)})")
        logger.warning("The hub cannot be reached, using the cached files of %s", model_id)
        return found
    names = [sibling.rfilename for sibling in info.siblings or []]
    repository = _Repository(model_id, revision, info.sha, hub)
    others = any(name.endswith((".safetensors", ".bin", ".pt")) for name in names)
    in_gguf = wanted is not None or (not others and any(name.endswith(gguf.SUFFIX) for name in names))
    try:
        if in_gguf:
            sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
            paths = repository.fetch_gguf(gguf.choose(sizes, wanted, model_id), revision)
            return gguf.make_model(paths, model_id, list(caches), info.sha)
        directory = repository.fetch(names, code=code, judge=judge)
    except StartupError:
        raise
    except Exception as error:
        explain(error, model_id, revision, hub)
    return ModelFiles(str(directory), model_id, info.sha, info.pipeline_tag)


def judge_remote(model_id: str, revision: str | None, hub: Hub, judge: Judge) -> Path:
    """Have a model judged by config.json, the names of its files and its index, and fetch no other; give its directory.

    With the hub out of reach the cached config.json is all that is looked at. Raises `StartupError`.
    """
    import huggingface_hub

    directory = download_config(model_id, revision, hub)
    if hub.offline:
        return directory
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=hub.token, library_name="text-generation-inference")
    try:
        info = api.model_info(model_id, revision=revision)
    except Exception as error:
        if not is_network(error):
            explain(error, model_id, revision, hub)
        return directory
    names = [sibling.rfilename for sibling in info.siblings or []]
    try:
        _Repository(model_id, revision, info.sha, hub).choose(directory, names, judge)
    except StartupError:
        raise
    except Exception as error:
        explain(error, model_id, revision, hub)
    return directory


def download_config(model_id: str, revision: str | None, hub: Hub) -> Path:
    """Fetch config.json alone; give its directory. Raises `DownloadError`."""
    try:
        function = partial(_hub_file, model_id, "config.json", revision, hub, local=hub.offline)
        return Path(with_tries(function, hub)).parent
    except Exception as error:
        explain(error, model_id, revision, hub)


class _Repository:
    """The files of one commit."""

    def __init__(self, model_id: str, revision: str | None, sha: str | None, hub: Hub) -> None:
        self._id, self._revision, self._sha, self._hub = model_id, revision, sha, hub

    def fetch(self, names: list[str], *, code: bool, judge: Judge | None) -> Path:
        """Get what is needed of `names`; small files first, so that what is wrong shows early."""
        if "config.json" not in names:
            raise DownloadError(f"{self._id} has no config.json: it is not a model in transformers format")
        # By its name the revision is noted in the cache, which is how it is found without the network.
        directory = self._get("config.json", self._revision).parent
        for name in files.code_files(names) if code else ():
            self._get(name, self._sha)  # the config may be of a class of the checkpoint's own
        weights = self.choose(directory, names, judge)
        for name in files.small_files(names):
            self._get(name, self._sha)
        self._fetch_weights(list(weights.names))
        return directory

    def choose(self, directory: Path, names: list[str], judge: Judge | None) -> WeightFiles:
        """The weight files of a model that `judge` lets pass; an index of them is fetched."""
        if judge is not None:
            judge.check_config(directory, names)
        weights = files.choose(names, lambda index: self._get(index, self._sha))
        if not weights.names:
            raise files.no_weights(self._id, names)
        if judge is not None and weights.index is not None:
            judge.check_index(directory, weights.index)
        return weights

    def fetch_gguf(self, names: list[str], revision: str | None) -> list[Path]:
        """The parts of a model, and their paths in the cache."""
        self._fetch_weights(names)
        return [self._get(name, revision) for name in names]

    def _fetch_weights(self, weights: list[str]) -> None:
        missing = [name for name in weights if not self._is_cached(name)]
        if not missing:
            logger.info("Files are already present on the host. Skipping download.")
            return
        began = time.monotonic()
        for number, name in enumerate(missing, 1):
            logger.info("Download file: %s", name)
            file_began = time.monotonic()
            with_tries(partial(self._fetch_blob, name), self._hub)
            path = self._get(name, self._sha)
            logger.info("Downloaded %s in %s.", path, _duration(time.monotonic() - file_began))
            left = (time.monotonic() - began) / number * (len(missing) - number)
            logger.info("Download: [%d/%d] -- ETA: %s", number, len(missing), _duration(left))

    def _fetch_blob(self, name: str) -> None:
        hub = self._hub
        fetch_blob(self._id, name, self._sha, cache_dir=hub.cache_dir, token=hub.token, endpoint=hub.endpoint)

    def _is_cached(self, name: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(self._id, name, self._hub.cache_dir, self._sha), str)

    def _get(self, name: str, revision: str | None) -> Path:
        return Path(with_tries(lambda: _hub_file(self._id, name, revision, self._hub), self._hub))


def _hub_file(model_id: str, name: str, revision: str | None, hub: Hub, *, local: bool = False) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(
        model_id,
        name,
        revision=revision,
        cache_dir=hub.cache_dir,
        token=hub.token,
        endpoint=hub.endpoint,
        local_files_only=local,
        library_name="text-generation-inference",
    )


def _cached(model_id: str, revision: str | None, hub: Hub, why: str) -> ModelFiles:
    """The model from the cache alone. Raises `DownloadError` with `why` when it is not (all) there."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = model_id + (f" at revision {revision}" if revision else "")
    try:
        directory = Path(_hub_file(model_id, "config.json", revision, hub, local=True)).parent
    except HFValidationError as error:
        explain(error, model_id, revision, hub)
    except LocalEntryNotFoundError:
        remedy = _remedy(hub, f"download it first with `text-generation-server download-weights {model_id}`")
        raise DownloadError(f"{why} and {wanted} is not in the cache: {remedy}, or give a local directory") from None
    if not files.in_directory(directory).names:
        remedy = _remedy(hub, "download it again")
        raise DownloadError(f"{why} and the cache holds no weights of {wanted}: {remedy}")
    logger.info("Files are already present on the host. Skipping download.")
    return ModelFiles(str(directory), model_id, directory.name)


def _remedy(hub: Hub, download: str) -> str:
    """What gets a model that is not there: `download`, or what keeps the command from it that does so."""
    if not hub.only:
        return download
    return "unset it" if hub.offline else "try again when it can be"


def with_tries(function: Callable[[], Result], hub: Hub) -> Result:
    """Call again after faults that pass: a lost connection, a busy or failing server."""
    for attempt in range(1, TRIES + 1):
        try:
            return function()
        except Exception as error:
            if attempt == TRIES or not (is_network(error) or _status(error) in (429, 500, 502, 503, 504)):
                raise
            logger.warning("Retrying %d/%d: %s", attempt, TRIES - 1, _first_line(error))
            time.sleep(hub.pause_s)
    raise AssertionError("unreachable")


def explain(error: Exception, model_id: str, revision: str | None, hub: Hub) -> NoReturn:
    """Raise the sentence for an error of the hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        sentence = (
            f"access to {model_id} is restricted: ask for access on its page on the hub, "
            "then set HF_TOKEN to a token of that account"
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        sentence = (
            f"{model_id} is neither a local directory nor a model on the hub. "
            f"Check the spelling; if it is private, set HF_TOKEN{_near(model_id, hub)}"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        sentence = f"{model_id} has no revision {revision}: check --revision"
    elif isinstance(error, errors.HFValidationError):
        shown = printable(repr(model_id))
        sentence = f"{shown} is neither a local directory nor a valid hub id (`name` or `organisation/name`)"
    elif _status(error) in (401, 403):
        sentence = f"the hub refuses access to {model_id}: check that HF_TOKEN is valid and may read it"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = f"no space left for {model_id}: free some, or choose another place with --huggingface-hub-cache"
    elif isinstance(error, PermissionError):
        sentence = f"the cache cannot be written ({error}): choose another place with --huggingface-hub-cache"
    else:
        sentence = f"downloading {model_id} failed after {TRIES} tries: {_first_line(error)}"
    raise DownloadError(sentence) from error


def _near(model_id: str, hub: Hub) -> str:
    """Models of nearly that name, for a sentence; nothing where the hub's search knows none, or does not answer."""
    found = near.models(model_id, endpoint=hub.endpoint, token=hub.token)
    return f". Models of similar names: {', '.join(map(printable, found))}" if found else ""


def is_network(error: BaseException) -> bool:
    """Whether the server was not reached, or lost on the way (and did not answer with an error)."""
    if _status(error) is not None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return False
    return type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES or isinstance(error, ConnectionError)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
