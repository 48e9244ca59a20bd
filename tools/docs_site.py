"""A hook of mkdocs: pages of the site are where they are in the repository.

The Markdown files of the root, docs/, benchmarks/ and the client package become pages, and every file that one of
them links to comes along, so that a link that works in the repository works on the site; mkdocs checks each, with
its anchor. Files outside of docs/ are why mkdocs' own way of finding them does not do.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/*.md", "benchmarks/*.md", "clients/python/*.md")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the place of what mkdocs has found below docs/; files of the theme and of plugins stay."""
    kept = [file for file in files if Path(config.docs_dir).resolve() not in Path(file.abs_src_path or "/").parents]
    paths = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    linked = {target for path in paths for target in targets(path)} - set(paths)
    named = [str(path.relative_to(ROOT)) for path in [*paths, *sorted(linked)]]
    ours = [File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in named]
    return Files([*kept, *ours])


def targets(page: Path) -> list[Path]:
    """The files of the repository that a page links to."""
    found = (page.parent / target for target in LINK.findall(page.read_text()) if "://" not in target)
    return [path.resolve() for path in found if path.is_file()]
