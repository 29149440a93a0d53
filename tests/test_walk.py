"""What the operator's document has root type on a Debian machine: sound, and of this version.

The whole of it needs a machine with systemd: `tests/walk.py` makes a script of it for one.
"""

import re
import shlex
import subprocess
from pathlib import Path

import click

from pushd import cli
from tests import walk

COMMANDS: dict[str, click.Command] = {"pushd": cli.pushd, "pushctl": cli.pushctl}
SHIPPED = Path(__file__).parent.parent / "packaging"


def lines() -> list[str]:
    """Each command of the blocks, without what stands between << and its end."""
    found = []
    for _, text in walk.blocks():
        text = re.sub(r"<< '(\w+)'\n.*?^\1$", "", text, flags=re.S | re.M)
        found += text.replace("\\\n", " ").splitlines()
    return [line for line in found if line.strip()]


def test_the_script_is_one() -> None:
    """A shell can read it, and it is not empty."""
    text = walk.script()
    assert text.count("===") > 8
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_exist() -> None:
    """Each verb and each option of ours that root types is one that there is."""
    seen = 0
    for line in lines():
        words = shlex.split(re.split(r"\s\|\|\s|\s>\s", line)[0].rpartition("| ")[2])
        command = COMMANDS.get(Path(words[0]).name)
        if command is None:
            continue
        seen += 1
        if isinstance(command, click.Group):
            command = command.commands[words[1]]
        known = {name for option in command.params for name in option.opts} | {"--help"}
        for word in words:
            assert not word.startswith("-") or word in known, line
    assert seen > 10


def test_units_exist() -> None:
    """Each unit that is started or enabled is one that is shipped."""
    for line in lines():
        if line.startswith("systemctl"):
            for name in re.findall(r"\bpushd[\w.-]*", line):
                unit = name if "." in name else f"{name}.service"
                assert (SHIPPED / unit).exists(), line
