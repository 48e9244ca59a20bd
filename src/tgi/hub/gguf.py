"""Models in GGUF files: which file is meant, and the directory that makes a model of it.

Owns the choice among the files of a directory or a repository, and a directory in a cache with links to them, beside
which config.json, tokenizer.json and tokenizer_config.json are made from the metadata. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tgi.errors import DownloadError
from tgi.hub.converted import writable
from tgi.models.gguf.config import make_config
from tgi.models.gguf.file import GgufFile
from tgi.models.gguf.tokenizer import make_tokenizer
from tgi.settings.resolve import ModelFiles
from tgi.shorten import size
from tgi.untrusted import printable

logger = logging.getLogger(__name__)

SUFFIX = ".gguf"
FOLDER = "tgi-gguf"
MADE_BY = 3
"""Raise it when what is made of a file changes: what earlier versions made is left alone."""
PREFERRED = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q4_1", "Q8_0", "Q6_K", "Q5_K_S", "IQ4_NL", "IQ4_XS", "BF16", "F16")
"""Which one is taken where nobody says, as with llama.cpp: the best-known of those that are small and good."""
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_TYPE = re.compile(r"(UD-)?(I?Q\d|TQ\d|B?F16|F32|MXFP4)\w*", re.IGNORECASE)
_OWN_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
"""Files beside a GGUF file that take the place of what its metadata say."""


def split_tag(name: str) -> tuple[str, str | None]:
    """`org/name:Q4_K_M` -> (`org/name`, `Q4_K_M`); None without an end that looks like a type."""
    stem, colon, tag = name.rpartition(":")
    return (stem, tag) if colon and stem and _TYPE.fullmatch(tag) else (name, None)


def choose(sizes: Mapping[str, int | None], wanted: str | None, where: str) -> list[str]:
    """The parts of one model among GGUF files, in order. sizes: name -> bytes; wanted: a file's name, or a type.

    Raises `DownloadError` where that is none of them, or parts are missing.
    """
    models: dict[str, list[str]] = {}
    for name in sorted(sizes):
        base = name.rsplit("/", 1)[-1]
        if name.endswith(SUFFIX) and not base.startswith(("mmproj", "imatrix")):
            part = _PART.fullmatch(name)
            models.setdefault(part[1] + SUFFIX if part else name, []).append(name)
    if not models:
        raise DownloadError(f"{printable(where)} holds no GGUF file of a model")
    shown = "; ".join(f"{printable(name)} ({_size(parts, sizes)})" for name, parts in models.items())
    found = _matching(models, wanted)
    if not found:
        raise DownloadError(f"{printable(where)} has no GGUF file {printable(wanted)}; it has: {shown}")
    name = found[0]
    parts = models[name]
    if (first := _PART.fullmatch(parts[0])) and len(parts) != int(first[3]):
        raise DownloadError(
            f"{printable(name)} has {first[3]} parts, of which {len(parts)} are there: fetch the others"
        )
    logger.info("GGUF file: %s (%s)", printable(name), _size(parts, sizes))
    if len(models) > 1:
        logger.info("Files to choose from with --gguf-file: %s", shown)
    return parts


def _matching(models: Mapping[str, Any], wanted: str | None) -> list[str]:
    if wanted is None:
        for kind in PREFERRED:
            if found := _matching(models, kind):
                return found
        return list(models)
    named = [name for name in models if wanted in (name, name.rsplit("/", 1)[-1])]
    parts = [name for name in models if (part := _PART.fullmatch(wanted)) and name == part[1] + SUFFIX]
    kind = re.compile(rf"(.*[-._/])?{re.escape(wanted)}([-._].*)?\.gguf", re.IGNORECASE)
    return named or parts or sorted((name for name in models if kind.fullmatch(name)), key=len)


def _size(parts: Collection[str], sizes: Mapping[str, int | None]) -> str:
    known = [sizes[part] or 0 for part in parts]
    return size(sum(known)) if all(known) else "size unknown"


def in_directory(directory: Path, wanted: str | None) -> list[Path]:
    """The files of a model in a directory. Raises `DownloadError`."""
    sizes = {path.name: path.stat().st_size for path in directory.iterdir() if path.name.endswith(SUFFIX)}
    return [directory / name for name in choose(sizes, wanted, str(directory))]


def parts_of(file: Path) -> list[Path]:
    """A file with the other parts of its model. Raises `DownloadError`."""
    return in_directory(file.parent, file.name)


def make_model(files: list[Path], model_id: str, caches: list[Path], sha: str | None = None) -> ModelFiles:
    """A directory with the model in GGUF files, and all that is made of their metadata. Raises `StartupError`."""
    opened = [GgufFile(path) for path in files]
    try:
        texts = {"config.json": make_config(opened)}
        own = [name for name in _OWN_FILES if (files[0].parent / name).is_file()]
        if "tokenizer.json" not in own:
            where = printable(files[0].name)
            texts["tokenizer.json"], texts["tokenizer_config.json"] = make_tokenizer(opened[0].metadata, where)
        else:
            logger.info("The tokenizer is that of tokenizer.json beside %s", printable(files[0].name))
    finally:
        for file in opened:
            file.map.close()
    directory = _directory(files, caches)
    for name in own:
        _link(directory / name, files[0].parent / name)
    for path in files:
        _link(directory / path.name, path)
    for name, content in texts.items():
        unfinished = directory / f".{name}.part"
        unfinished.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        unfinished.replace(directory / name)
    return ModelFiles(str(directory), model_id, sha)


def _directory(files: list[Path], caches: list[Path]) -> Path:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.sha256(repr((MADE_BY, facts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    for cache in caches:
        target = cache / FOLDER / digest
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if writable(target):
            _forget_stale(target.parent, target)
            return target
    raise DownloadError(
        "what is made of a GGUF file needs a directory that can be written to: give one with --huggingface-hub-cache"
    )


def _forget_stale(folder: Path, keep: Path) -> None:
    """Remove what was made of files that are no longer there."""
    for other in folder.iterdir():
        links = [path for path in other.iterdir() if path.name.endswith(SUFFIX)] if other.is_dir() else []
        if other != keep and links and not any(path.exists() for path in links):
            shutil.rmtree(other, ignore_errors=True)


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink() or link.resolve() != target.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(target.resolve())
