"""What this pushd was made as: its hot modules compiled, or all of it plain Python."""

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec


def compiled() -> bool:
    """Tell whether the hot modules are compiled ones; none is loaded for that."""
    spec = find_spec("pushd.outbox")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
