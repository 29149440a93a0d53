"""The commands of docs/operations.md for a Debian machine with systemd, as one script.

    python -m tests.walk > walk.sh      then, as root on a machine that may be broken: sh walk.sh

Every block marked `sh` is taken in the order of the document, word by word; the script stops at the
first command that fails. Blocks marked `session` are replayed by `tests.tour` on any machine.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs" / "operations.md"

_BLOCK = re.compile(r"^(#+ [^\n]+)$|^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str]]:
    """Give each block with the heading that it stands under."""
    heading = ""
    for found in _BLOCK.finditer(MANUAL.read_text("utf-8")):
        if found[1]:
            heading = found[1].lstrip("# ")
        else:
            yield heading, found[2]


def script() -> str:
    """Give all of them."""
    parts = ["set -e"]
    for heading, text in blocks():
        parts += [f"echo '=== {heading}'", "set -x", text.rstrip(), "{ set +x; } 2> /dev/null"]
    return "\n".join([*parts, "echo '=== done'", ""])


def main() -> None:
    """Print the script."""
    print(script(), end="")


if __name__ == "__main__":
    main()
