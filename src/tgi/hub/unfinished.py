"""Goes on with a download that an earlier run did not finish.

`huggingface_hub` resumes a broken transfer while it runs, but newer versions begin a file anew in the
next run, which for a shard of gigabytes is an hour. Here a file served by plain HTTP is written beside
its place in the library's cache under a name that the next run finds; once complete it is a blob that
the library takes as its own. What Xet storage serves is left to the library.
"""

from __future__ import annotations

import hashlib
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9A-Za-z_-]+")
"""An etag becomes the name of a file: none that leaves the directory."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch_blob(
    model_id: str, name: str, revision: str | None, *, cache_dir: str | None, token: str | None, endpoint: str | None
) -> None:
    """Bring the file into the cache of `huggingface_hub`, or do nothing where that is the library's work.

    Raises what the library raises; what has come stays for the next call.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(model_id, name, revision=revision, endpoint=endpoint)
    facts = get_hf_file_metadata(url, token=token, endpoint=endpoint)
    by_xet = facts.xet_file_data is not None and not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None
    etag = facts.etag or ""
    if by_xet or not facts.size or not _NAME.fullmatch(etag):
        return
    cache, folder = Path(cache_dir or constants.HF_HUB_CACHE), repo_folder_name(repo_id=model_id, repo_type="model")
    blob, lock = cache / folder / "blobs" / etag, cache / ".locks" / folder / f"{etag}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers(token=token, library_name="text-generation-inference")
    if urlsplit(facts.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # another host has no business with the token
    with WeakFileLock(lock):
        if blob.exists():
            return
        partial = blob.with_name(f"{etag}.unfinished")
        known = _usable(partial, facts.size)
        if known:
            logger.info("Going on with %s after %d of %d bytes", name, known, facts.size)
        with partial.open("ab") as file:
            http_get(
                facts.location,
                file,
                resume_size=known,
                headers=headers,
                expected_size=facts.size,
                displayed_filename=name,
            )
        if known and not _is_whole(partial, etag):
            partial.unlink()
            raise ConnectionError(f"{name} came with other content than its checksum says")
        partial.replace(blob)


def _usable(partial: Path, size: int) -> int:
    """How much of an unfinished file can be built on; one that is too long is none of this file's."""
    known = partial.stat().st_size if partial.exists() else 0
    if known > size:
        partial.unlink()
        return 0
    return known


def _is_whole(path: Path, etag: str) -> bool:
    """Large files are named by their SHA-256. Others cannot be checked."""
    if not _SHA256.fullmatch(etag):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == etag
