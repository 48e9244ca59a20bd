"""Build the pages anew and compare them with those that are committed: `make web` must change nothing.

Needs Node and the packages that `web/package-lock.json` names (`cd web && npm ci`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "src" / "tgi" / "api" / "playground" / "static"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def differences(web: Path = ROOT / "web") -> list[str]:
    """Names of files that differ, or that only one of them has. Raises CalledProcessError when the build fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npx", "--no-install", "vite", "build", "--logLevel", "error", "--outDir", folder, "--emptyOutDir"]
        subprocess.run(command, cwd=web, check=True)
        fresh, known = files(Path(folder)), files(BUILT)
    return [name for name in sorted(fresh.keys() | known.keys()) if fresh.get(name) != known.get(name)]


def main() -> int:
    if shutil.which("npx") is None or not (ROOT / "web" / "node_modules").is_dir():
        print("The pages cannot be built here: install Node 20, then `cd web && npm ci`", file=sys.stderr)
        return 1
    if found := differences():
        print("These are not what web/ gives: run `make web` and commit\n  " + "\n  ".join(found), file=sys.stderr)
        return 1
    print("The committed pages are what web/ gives")
    return 0


if __name__ == "__main__":
    sys.exit(main())
