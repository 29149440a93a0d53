"""The hook of the build: manual pages and completion scripts go into the wheel where they belong.

They are made from the sources that are built, so that they never are of another version.

With PUSHD_COMPILE=1 in the environment the hot modules are compiled (`compiling.py` says which) and
their libraries stand in the wheel beside their sources, which tracebacks quote. Such a wheel is
tagged for its Python and its machine.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Where each shell looks, below the prefix that pushd is installed to.
COMPLETIONS = {
    "bash": "share/bash-completion/completions",
    "zsh": "share/zsh/site-functions",
    "fish": "share/fish/vendor_completions.d",
}


class Hook(BuildHookInterface):  # type: ignore[type-arg] # its parameter is of no use here
    """Adds what is generated."""

    def dependencies(self) -> list[str]:
        """Name what compiling needs: the mypy that checks the types, and what the types are of."""
        if not _compiled():
            return []
        metadata = self.metadata.core
        mypy = [each for each in metadata.optional_dependencies["dev"] if each.startswith("mypy")]
        return mypy + metadata.dependencies

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate all of it; an editable install is for developers and needs none."""
        if version == "editable":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root))
        build = root / "build"
        places = build_data["shared_data"]
        for page in _module(root, "manpages").write(build / "man"):
            places[str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"
        for script in _module(root, "completions").write(build / "completions"):
            places[str(script)] = f"{COMPLETIONS[script.parent.name]}/{script.name}"
        if _compiled():
            libraries = _module(root, "compiling").compile_into(root, build / "compiling")
            build_data["force_include"] |= {str(path): place for path, place in libraries.items()}
            build_data.update(pure_python=False, infer_tag=True)


def _compiled() -> bool:
    return os.environ.get("PUSHD_COMPILE", "") not in ("", "0")


def _module(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / "packaging" / f"{name}.py")
    assert spec is not None and spec.loader is not None, "the file stands beside this one"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
