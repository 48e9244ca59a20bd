"""Create the virtual environment and install the project into it, with the right build of torch.

Called by the Makefile; runs with any Python 3 and the standard library alone, so that it can say in
a sentence what is missing. On Linux without an NVIDIA GPU torch's CPU build is chosen: the default
wheel there brings gigabytes of CUDA libraries. One pip command installs everything, so that pip
sees all requirements at once. A stamp file remembers that nothing is left to do.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

TORCH_VERSION = "2.13.0"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"
MINIMUM = (3, 11)


def main():
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--torch", choices=["auto", "cpu", "default"], default="auto")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--dry-run", action="store_true", help="print the pip command and stop")
    arguments = parser.parse_args()
    interpreter = find_interpreter()
    if interpreter is None:
        found = ".".join(map(str, sys.version_info[:3]))
        return fail(f"Python 3.11 or newer is needed, this is {found}: try `make PYTHON=/path/to/python3.12 ...`")
    if arguments.dry_run:
        print(" ".join([*pip(arguments.venv), "install", *requirements(arguments.torch, arguments.dev)]))
        return 0
    if not python(arguments.venv).exists():
        print(f"Creating {arguments.venv} ...", flush=True)
        if subprocess.call([interpreter, "-m", "venv", str(arguments.venv)]) != 0:
            return fail("Python's venv module does not work here (Debian, Ubuntu: apt install python3-venv)")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # bars for people, silence for logs
    command = [*pip(arguments.venv), "install", *quiet, *requirements(arguments.torch, arguments.dev)]
    if "--find-links" in command and finds_torch(arguments.venv):
        command = command[: command.index("--find-links")]
    print("Installing; the first time this takes some minutes ...", flush=True)
    if subprocess.call(command) != 0:
        return fail("pip could not install the project; its message is above")
    (arguments.venv / ".installed").touch()
    if arguments.dev:
        (arguments.venv / ".installed-dev").touch()
    return 0


def find_interpreter():
    """This Python if it is new enough, else a newer one by its usual name."""
    if sys.version_info >= MINIMUM:
        return sys.executable
    names = (f"python3.{minor}" for minor in range(14, 10, -1))
    return next(filter(None, map(shutil.which, names)), None)


def requirements(torch, dev):
    """Arguments of `pip install`: the project and the build of torch for this machine."""
    project = [f"--editable=.[{'dev,otlp' if dev else 'otlp'}]"]  # every flag works, --otlp-endpoint too
    cpu = torch == "cpu" or (torch == "auto" and sys.platform == "linux" and not has_nvidia_gpu())
    if cpu:
        return [*project, f"torch=={TORCH_VERSION}+cpu", "--find-links", CPU_WHEELS]
    return [*project, f"torch=={TORCH_VERSION}"]


def finds_torch(venv):
    """Whether pip finds the CPU build in the places it is configured for.

    Then PyTorch's page of wheels is left out: pip asks it for every single package, and where it cannot be
    reached each of those takes seconds.
    """
    probe = ["install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", f"torch=={TORCH_VERSION}+cpu"]
    return subprocess.run([*pip(venv), *probe], capture_output=True).returncode == 0


def has_nvidia_gpu():
    """Whether the NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def python(venv):
    return venv / "bin" / "python"


def pip(venv):
    return [str(python(venv)), "-m", "pip"]


def fail(sentence):
    print(f"error: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
