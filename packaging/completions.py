"""Write what shells need to complete the words of pushd and pushctl: click's own scripts.

    python packaging/completions.py build/completions      bash/pushctl, zsh/_pushctl, …

A script asks the command itself at each TAB, so it knows all verbs and options of that version.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from click.shell_completion import (  # noqa: E402 # the sources beside this file
    BashComplete,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

from pushd import cli  # noqa: E402

# Each shell with how it calls the script of a command.
SHELLS: dict[str, tuple[type[ShellComplete], str]] = {
    "bash": (BashComplete, "{}"),
    "zsh": (ZshComplete, "_{}"),
    "fish": (FishComplete, "{}.fish"),
}
COMMANDS = {"pushd": cli.pushd, "pushctl": cli.pushctl}


def script(shell: str, name: str) -> str:
    """Give the script of a command for a shell."""
    kind, _ = SHELLS[shell]
    made = kind(COMMANDS[name], {}, name, f"_{name.upper()}_COMPLETE")
    # Not made.source(): that of bash asks which bash there is, and is of no use to a build.
    text = made.source_template % made.source_vars()
    if shell == "zsh":
        text = _registered(text, made.func_name, name)
    return text


def _registered(text: str, function: str, name: str) -> str:
    """Have zsh call the function itself from its second TAB on.

    As click writes it, the second TAB of a shell only registers the function and offers nothing.
    """
    call = f'    {function} "$@"\n'
    assert text.count(call) == 1, "click writes another script now: look whether it is right"
    return text.replace(call, f"    compdef {function} {name}\n{call}")


def write(folder: Path) -> list[Path]:
    """Write all scripts into a folder, a folder for each shell; gives their paths."""
    paths = []
    for shell, (_, file) in SHELLS.items():
        (folder / shell).mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            path = folder / shell / file.format(name)
            path.write_text(script(shell, name), "utf-8")
            paths.append(path)
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "build/completions")):
        print(path)
