"""The modules that are compiled on demand, and how: mypyc makes C of them, a C compiler the rest.

A message spends most of its CPU in these: they cut lines, check drafts, keep windows and indexes,
and apply batches. They are typed all through, so that mypyc finds what a name is; a module that
mostly waits, or calls other people's C anyway, gains nothing and is left alone. All of them become
one library, in which they call each other without going through Python. A class that is compiled
has compiled children only: hence `control` and `listeners`, whose connections are special ones.

It runs as a process of its own, since setuptools and mypyc want its folder and its arguments:

    python packaging/compiling.py ROOT FOLDER

compiles a copy in FOLDER. Beside the sources nothing is ever written: what was compiled once would
win over the source that was edited since.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# What to compile, below `pushd`.
MODULES = (
    "connection",
    "control",
    "draft",
    "hub",
    "listeners",
    "outbox",
    "protocol",
    "session",
    "store/indexes",
    "store/journal",
    "store/lines",
    "store/marks",
    "store/posting",
    "store/records",
    "store/rows",
    "store/writer",
)


def compile_into(root: Path, folder: Path) -> dict[Path, str]:
    """Compile the sources of `root` in a fresh copy; give the libraries, each with its place.

    Raises: subprocess.CalledProcessError when a type is wrong or the compiler fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ours = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(root / "pushd", folder / "pushd", ignore=ours)
    subprocess.run([sys.executable, __file__, str(root), str(folder)], check=True)  # noqa: S603 # ours
    made = folder / "made"
    return {path: str(path.relative_to(made)) for path in sorted(made.rglob("*.so"))}


def main(root: Path, folder: Path) -> None:
    """Run the compilers in the copy."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(folder)
    # Errors elsewhere are for `make types`; a build need not have what other modules import.
    options = ["--config-file", str(root / "pyproject.toml"), "--follow-imports", "silent"]
    sources = [f"pushd/{name}.py" for name in MODULES]
    libraries = mypycify([*options, *sources], group_name="pushd")
    words = ["--quiet", "build_ext", "--build-lib", "made"]
    setup(name="pushd", packages=[], ext_modules=libraries, script_args=words)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
