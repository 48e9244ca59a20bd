"""Run the tests of the native kernels under the address and undefined-behaviour sanitizers.

Works on a copy of the package in a temporary directory, so that the installed libraries stay as they are.
Builds the levels that run here.
Called by `make sanitize`; needs GCC with libasan. Arguments go to pytest.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tgi.hardware import cpu_count
from tgi.kernels.native.library import runnable

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["linear", "apart", "eight", "attention", "loading", "program", "select", "vocabulary"]


def main() -> int:
    """Return pytest's exit status."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "src" / "tgi", work / "src" / "tgi", ignore=ignored)
        levels = runnable()
        if not levels:
            sys.exit("Nothing to test: the native kernels are not installed. `make install` builds them")
        print(f"Building {', '.join(levels)} with sanitizers, minutes for each ...", flush=True)
        build = [sys.executable, "setup.py", "-q", "build_ext", f"-j{cpu_count()}"]
        build += ["--build-temp", str(work / "temp"), "--build-lib", str(work / "src")]
        chosen = {"TGI_SANITIZE": "1", "TGI_LEVELS": ",".join(levels)}
        subprocess.run(build, cwd=ROOT, env=os.environ | chosen, check=True)
        environment = {
            **os.environ,
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
            "UBSAN_OPTIONS": "halt_on_error=1",
            "PYTHONPATH": str(work / "src"),
        }
        tests = [f"tests/kernels/test_native_{name}.py" for name in TESTS]
        tests.append("tests/models/test_native_invariance.py")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600", *tests, *sys.argv[1:]]
        return subprocess.call(command, cwd=ROOT, env=environment)


def library(name: str) -> str:
    """Where the compiler has a library of its own."""
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
