"""GGUF files on the hub, told from their beginnings: header, metadata and tokenizer, without a weight.

A file of the same size stands in for each, with the beginning of the other and a hole behind it: whoever reads headers
finds what the file itself would show. Imports no torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from tgi.errors import DownloadError, ModelError, StartupError
from tgi.hub import gguf
from tgi.hub.download import Hub, explain, with_tries
from tgi.models.gguf.file import GgufFile
from tgi.untrusted import printable

FIRST_BYTES = 8 << 20
"""Tokenizers of 128,000 tokens and their merges fit."""
MOST_BYTES = 128 << 20
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")


def stand_ins(name: str, revision: str | None, wanted: str | None, hub: Hub, folder: Path) -> list[Path]:
    """Stand-ins in `folder` for the parts of the model; none where the repository has weights in another format.

    name: of a repository, perhaps with a type (`org/name:Q4_K_M`). wanted: as --gguf-file. Raises `StartupError`.
    """
    import huggingface_hub

    model_id, tag = gguf.split_tag(name)
    wanted = wanted or tag
    if hub.offline:
        return []
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=hub.token, library_name="text-generation-inference")
    try:
        info = api.model_info(model_id, revision=revision, files_metadata=True)
    except Exception:
        return []  # `remote.look` tries again, and says why there is nothing, or what there is in the cache
    try:
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        others = any(file.endswith((".safetensors", ".bin", ".pt")) for file in sizes)
        if wanted is None and (others or not any(file.endswith(gguf.SUFFIX) for file in sizes)):
            return []
        parts = gguf.choose(sizes, wanted, model_id)
        return [_stand_in(model_id, file, info.sha, hub, folder) for file in parts]
    except StartupError:
        raise
    except Exception as error:
        explain(error, model_id, revision, hub)


def _stand_in(model_id: str, file: str, sha: str | None, hub: Hub, folder: Path) -> Path:
    target, count = folder / Path(file).name, FIRST_BYTES
    while True:
        data, total = with_tries(lambda count=count: _beginning(model_id, file, sha, hub, count), hub)
        with target.open("wb") as out:
            out.write(data)
            out.truncate(total)
        try:
            GgufFile(target).map.close()
            return target
        except ModelError:
            if len(data) >= total or count >= MOST_BYTES:
                raise
        count *= 4


def _beginning(model_id: str, file: str, sha: str | None, hub: Hub, count: int) -> tuple[bytes, int]:
    """The first bytes of a file, and how many it has."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(model_id, file, revision=sha, endpoint=hub.endpoint)
    headers = {**build_hf_headers(token=hub.token), "range": f"bytes=0-{count - 1}"}
    response = get_session().get(url, headers=headers)
    hf_raise_for_status(response)
    total = _TOTAL.fullmatch(response.headers.get("content-range", ""))
    if total is None:
        raise DownloadError(f"the hub does not give the beginning of {printable(file)} alone: download the model")
    return response.content[:count], int(total[1])
