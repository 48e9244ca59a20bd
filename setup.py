"""Builds the optional native CPU kernels of csrc/; everything else about the package is in pyproject.toml.

The same sources are compiled once for each instruction-set level into a library of its own, and the best one
is chosen when the package is loaded. What cannot be compiled is left out with a line that says so: without
any library the torch reference kernels serve. For wheels that others install, TGI_ALL_LEVELS=1 makes that an error.
"""

import copy
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

AVX512 = "-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mprefer-vector-width=512"
X86_LEVELS = {
    "avx2": "-mavx2 -mfma -mf16c -mbmi2",
    "avx2_vnni": "-mavx2 -mfma -mf16c -mbmi2 -mavxvnni",
    "avx512": AVX512,
    "avx512_bf16": f"{AVX512} -mavx512bf16",
    "avx512_amx": f"{AVX512} -mamx-tile -mamx-int8 -mamx-bf16",
}
ARM_LEVELS = {
    "neon": "",
    "neon_dotprod": "-march=armv8.2-a+dotprod",
    "neon_i8mm": "-march=armv8.2-a+dotprod+i8mm",
}


ZIG_ARM_LEVELS = {
    "neon": "-mcpu=generic",
    "neon_dotprod": "-mcpu=generic+v8_2a+dotprod",
    "neon_i8mm": "-mcpu=generic+v8_2a+dotprod+i8mm",
}


def take_zig() -> bool:
    """Where there is no C++ compiler but the wheel `ziglang`, make that the compiler; whether it was done."""
    found = os.environ.get("CXX") or any(map(shutil.which, ("c++", "g++", "clang++")))
    if found or importlib.util.find_spec("ziglang") is None:
        return False
    os.environ["CC"], os.environ["CXX"] = (f"{sys.executable} -m ziglang {name}" for name in ("cc", "c++"))
    return True


def levels(zig: bool) -> dict[str, str]:
    """Names of the levels of this processor -> flags of the compiler; zig: it names processors in its own way."""
    machine = os.environ.get("TGI_MACHINE", platform.machine()).lower()  # another one for a cross-compiler in CXX
    arm = machine in ("aarch64", "arm64")
    # In a quarter of the time of -O3, which unrolls what is many instructions a vector here: nobody picks it for speed.
    chosen = {"portable": f"-O2 {'-DTGI_PORTABLE' if arm else ''}"}
    if arm:
        chosen |= ZIG_ARM_LEVELS if zig else ARM_LEVELS
    elif machine in ("x86_64", "amd64"):
        chosen |= X86_LEVELS
    if wanted := os.environ.get("TGI_LEVELS"):  # these, and the portable one, which tells what runs here
        names = {"portable", *wanted.split(",")}
        if unknown := names - set(chosen):
            raise SystemExit(f"TGI_LEVELS: {', '.join(sorted(unknown))} is none of {', '.join(chosen)}")
        chosen = {level: flags for level, flags in chosen.items() if level in names}
    # Zig builds for this very processor unless told otherwise, and with symbols unless stripped.
    return {level: f"{'-mcpu=baseline' if zig else ''} {flags}" for level, flags in chosen.items()}


SOURCES = [str(path) for path in sorted(Path("csrc").rglob("*.cpp"))]
HEADERS = [str(path) for path in sorted(Path("csrc").rglob("*.h"))]
# Without contraction by the compiler a sum has the bits that its source says, in every tile size.
FLAGS = (
    "-std=c++17 -O3 -fPIC -pthread -fvisibility=hidden -ffp-contract=off "
    "-Wall -Wextra -Wno-maybe-uninitialized -Wno-uninitialized -Wno-psabi"
)
# For tools/sanitize_kernels.py. Loads of any alignment are meant.
SANITIZE = "-O1 -g -fsanitize=address,undefined -fno-sanitize=alignment"


class BuildLevels(build_ext):
    """Each extension is a plain shared library, not a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # noqa: PTH118

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # no PyInit function

    def build_extension(self, ext: Extension) -> None:
        level = copy.copy(self)  # with -j several are built at once
        level.build_temp = os.path.join(self.build_temp, ext.name.rsplit(".", 1)[-1])  # noqa: PTH118
        try:
            build_ext.build_extension(level, ext)
        except Exception as error:
            if os.environ.get("TGI_ALL_LEVELS"):
                raise SystemExit(f"{ext.name} could not be built: {error}") from error
            print(f"{ext.name} could not be built ({error}): the kernels of this level will not be available")


class AnyPython(bdist_wheel):
    """One wheel for every Python 3 of a platform: the libraries are loaded through ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform_tag = super().get_tag()
        return ("py3", "none", platform_tag) if self.distribution.ext_modules else (python, abi, platform_tag)


def extensions() -> list[Extension]:
    if os.environ.get("TGI_NO_NATIVE") or os.name != "posix":
        return []
    zig = take_zig()
    sanitize = SANITIZE.split() if os.environ.get("TGI_SANITIZE") else []
    # Python's own flags may ask for another optimisation level or for symbols that double the size.
    for name in ("CFLAGS", "OPT"):
        sysconfig.get_config_vars()[name] = "-DNDEBUG"
    return [
        Extension(
            f"tgi.kernels.native.libtgi_{level}",
            SOURCES,
            depends=HEADERS,
            include_dirs=["csrc"],
            language="c++",
            extra_compile_args=[*FLAGS.split(), *flags.split(), *sanitize],
            extra_link_args=["-pthread", *(["-s"] if zig else []), *sanitize],
            optional=True,
        )
        for level, flags in levels(zig).items()
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildLevels, "bdist_wheel": AnyPython})
