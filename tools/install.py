"""Create the virtual environment and install the project into it, with the right build of torch.

Called by the Makefile; runs with any Python 3 and the standard library alone, so that it can say in
a sentence what is missing. On Linux without an NVIDIA GPU torch's CPU build is chosen: the default
wheel there brings gigabytes of CUDA libraries. One pip command installs everything, so that pip
sees all requirements at once. A stamp file remembers that nothing is left to do.

What it will take is said first: time, disk, and what there is of that. Without a terminal, where pip would be
silent for minutes, a line now and then says how far it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TORCH_VERSION = "2.13.0"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"
MINIMUM = (3, 11)
SIZES_MB = {"cpu": 1300, "cuda": 7500, "dev": 700}
"""Disk of a new environment with each build of torch, and what tests and checks add."""
MINUTES = {"cpu": 4, "cuda": 10, "dev": 2}
"""On two cores and a line of 100 Mbit/s, the native kernels included."""
PROGRESS_S = 10
"""Between two lines about progress, without a terminal."""


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
    said = outlook(arguments.venv, arguments.torch, arguments.dev)
    if said:
        print(said, flush=True)
    if not python(arguments.venv).exists():
        print(f"Creating {arguments.venv} ...", flush=True)
        if subprocess.call([interpreter, "-m", "venv", str(arguments.venv)]) != 0:
            return fail("Python's venv module does not work here (Debian, Ubuntu: apt install python3-venv)")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # bars for people, a line now and then for logs
    command = [*pip(arguments.venv), "install", *quiet, *requirements(arguments.torch, arguments.dev)]
    if "--find-links" in command and finds_torch(arguments.venv):
        command = command[: command.index("--find-links")]
    if kernels_are_built(arguments.venv):
        os.environ["TGI_NO_NATIVE"] = "1"  # `make test` after `make serve` need not compile them again
    print("Installing ...", flush=True)
    began = time.monotonic()
    if call(command, arguments.venv, show=bool(quiet)) != 0:
        return fail("pip could not install the project; its message is above")
    print(f"Installed in {time.monotonic() - began:.0f} s.", flush=True)
    (arguments.venv / ".installed").touch()
    if arguments.dev:
        (arguments.venv / ".installed-dev").touch()
    return 0


def outlook(venv, torch, dev):
    """What the first installation will take, in a sentence; nothing to say of a later one."""
    if any(venv.glob("lib/python*/site-packages/torch")):
        return ""
    build = "cpu" if wants_cpu(torch) else "cuda"
    parts = [build, "dev"] if dev else [build]
    size, minutes = (sum(table[part] for part in parts) for table in (SIZES_MB, MINUTES))
    free = shutil.disk_usage(venv.resolve().parent).free / 1e6
    sentence = (
        f"The first time this takes about {minutes} minutes and {size / 1000:.1f} GB in {venv} "
        f"({free / 1000:.1f} GB are free)."
    )
    if not shutil.which("c++") and not shutil.which("g++") and not shutil.which("clang++"):
        sentence += " Without a C++ compiler models run on PyTorch alone, which is slower (apt install g++)."
    if free < size:
        sentence += "\nwarning: that is probably not enough: make room, or choose another place with VENV=..."
    return sentence


def call(command, venv, show):
    """Run pip; show: say every few seconds what it does. Returns its exit status."""
    if not show:
        return subprocess.call(command)
    done = threading.Event()
    watcher = threading.Thread(target=report, args=(venv, done), daemon=True)
    watcher.start()
    try:
        return subprocess.call(command)
    finally:
        done.set()
        watcher.join()


def report(venv, done):
    """Say how far pip is, by what it leaves on the disk, until `done`."""
    began, since = time.monotonic(), time.time()
    while not done.wait(PROGRESS_S):
        installed, fetched = disk_mb(venv), disk_mb(*Path(tempfile.gettempdir()).glob("pip-*"))
        doing = "building and fetching" if installed < 50 else "installing"
        if compiled := count_compiled(since):
            doing = f"compiling the native kernels, files done: {compiled}"
        print(
            f"  {time.monotonic() - began:.0f} s: {doing}, {fetched:.0f} MB under way, {installed:.0f} MB in {venv}",
            flush=True,
        )


def kernels_are_built(venv):
    """Whether the native kernels in the tree are those that an earlier installation made of the same sources."""
    stamp = venv / ".installed"
    if not stamp.exists() or not any(Path("src/tgi/kernels/native").glob("*.so")):
        return False
    sources = [Path("setup.py"), *Path("csrc").rglob("*")]
    return all(source.stat().st_mtime <= stamp.stat().st_mtime for source in sources)


def count_compiled(since):
    """Files that setuptools has compiled in this time; its place for them is there only as long as it compiles."""
    places = Path(tempfile.gettempdir()).glob("*.build-temp")
    try:
        return sum(1 for place in places for file in place.rglob("*.o") if file.stat().st_mtime >= since - 1)
    except OSError:  # it has just gone
        return 0


def disk_mb(*directories):
    """Megabytes of files below; what goes away meanwhile does not count."""
    total = 0
    for directory in directories:
        for base, _, names in os.walk(directory):
            for name in names:
                try:
                    total += Path(base, name).lstat().st_size
                except OSError:
                    continue
    return total / 1e6


def find_interpreter():
    """This Python if it is new enough, else a newer one by its usual name."""
    if sys.version_info >= MINIMUM:
        return sys.executable
    names = (f"python3.{minor}" for minor in range(14, 10, -1))
    return next(filter(None, map(shutil.which, names)), None)


def requirements(torch, dev):
    """Arguments of `pip install`: the project and the build of torch for this machine."""
    # Every flag works, --otlp-endpoint too, and so do the examples, which use the client package.
    project = [f"--editable=.[{'dev,otlp' if dev else 'otlp'}]", "--editable=clients/python"]
    if wants_cpu(torch):
        return [*project, f"torch=={TORCH_VERSION}+cpu", "--find-links", CPU_WHEELS]
    return [*project, f"torch=={TORCH_VERSION}"]


def wants_cpu(torch):
    """Whether the CPU build of torch is to be installed."""
    return torch == "cpu" or (torch == "auto" and sys.platform == "linux" and not has_nvidia_gpu())


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
