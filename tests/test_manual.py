"""Manual pages and shell completion: made from the commands, whole, and right for their readers."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pushd import cli
from pushd.config import SETTINGS
from pushd.settings import toml

ROOT = Path(__file__).parent.parent
PAGES = ("pushd.8", "pushctl.1", "pushd.toml.5")
SHELLS = ("bash", "zsh", "fish")
# So long may a shell take to answer, in seconds.
PATIENCE = 20.0


def generate(script: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, str(ROOT / "packaging" / script), str(folder)],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages."""
    return generate("manpages.py", tmp_path_factory.mktemp("man"))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the completion scripts."""
    return generate("completions.py", tmp_path_factory.mktemp("completions"))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `pushd` and `pushctl` are commands."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (("pushd", "pushd"), ("pushctl", "pushd.ctl")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        path.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "TERM": "dumb",
    }


def plain(page: Path) -> str:
    """The words of a page without what roff makes of them."""
    words = re.sub(r"\\f[BIR]", "", page.read_text("utf-8"))
    for coded, char in (("\\-", "-"), ("\\(aq", "'"), ("\\&", ""), ("\\e", "\\")):
        words = words.replace(coded, char)
    return words


def options_of(command: click.Command) -> Iterator[str]:
    for one in command.params:
        yield from (name for name in one.opts if name.startswith("-"))


# Pages


@pytest.mark.slow
def test_flags_of_pushd(pages: Path) -> None:
    """pushd(8) has each flag, signal, file and exit code."""
    words = plain(pages / "pushd.8")
    for name in (*options_of(cli.pushd), "--help"):
        assert re.search(rf"(^|, ){name}\b", words, re.M), name
    for name in ("TERM", "HUP", "USR1", "USR2", "control.sock", "PUSHD_SECTION_SETTING", "\n78\n"):
        assert name in words, name


@pytest.mark.slow
def test_verbs_of_pushctl(pages: Path) -> None:
    """pushctl(1) has a section for each verb, with all its flags, arguments and ranges."""
    words = plain(pages / "pushctl.1")
    sections = dict(re.findall(r"^\.SS (\S+)\n(.*?)(?=^\.S[SH])", words, re.M | re.S))
    assert set(sections) == set(cli.pushctl.commands)
    for name, command in cli.pushctl.commands.items():
        for flag in options_of(command):
            assert re.search(rf"(^|[ ,]){flag}\b", sections[name], re.M), (name, flag)
        assert command.help
        assert command.help.split()[0] in sections[name]
    assert "From 0.1 to 3600." in " ".join(sections["top"].split())
    for name in ("--timeout", "--json", "--version"):
        assert re.search(rf"^.*{name}", words.partition(".SH COMMON OPTIONS")[2], re.M), name


@pytest.mark.slow
def test_settings(pages: Path) -> None:
    """pushd.toml(5) has each setting once, with its default, range and unit."""
    words = plain(pages / "pushd.toml.5")
    parts = dict(re.findall(r"^\.SS \[(\w+)\]\n(.*?)(?=^\.S[SH])", words, re.M | re.S))
    for key, setting in SETTINGS.items():
        section, _, name = key.partition(".")
        title = f".TP\n{name} = {toml(setting.default)}\n"
        assert parts[section].count(title) == 1, key
        body = " ".join(parts[section].partition(title)[2].partition(".TP")[0].split())
        assert body == setting.describe()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_clean(pages: Path, name: str) -> None:
    """No tool that shows pages finds anything to complain about."""
    checks = {
        "mandoc": ["mandoc", "-T", "lint", str(pages / name)],
        "man": ["man", "--warnings", "-l", str(pages / name)],
    }
    ran = 0
    for tool, command in checks.items():
        if shutil.which(tool) is None:
            continue
        environ = {**os.environ, "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANROFFOPT": ""}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        told = done.stdout if tool == "mandoc" else done.stderr
        if tool == "man" and "groff" in told and "not found" in told:
            continue
        assert (done.returncode, told) == (0, ""), tool
        ran += 1
    if not ran:
        pytest.skip("neither mandoc nor man is installed")


@pytest.mark.slow
def test_pages_are_the_same_again(pages: Path, tmp_path: Path) -> None:
    """A build can be repeated, byte by byte."""
    again = generate("manpages.py", tmp_path)
    for name in PAGES:
        assert (again / name).read_bytes() == (pages / name).read_bytes()


# Completion

CASES = [
    ("pushctl re", ["register", "reload", "report", "reports", "reset_password", "restore"]),
    ("pushctl status --js", ["--json"]),
    ("pushctl loglevel w", ["warning"]),
    ("pushd --log-level d", ["debug"]),
    ("pushctl backup pu", ["pushd.toml"]),
    ("pushctl restore --data fo", ["folder"]),
]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a file and a folder in it."""
    (tmp_path / "pushd.toml").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def ask_bash(line: str, scripts: Path, commands: dict[str, str], desk: Path) -> list[str]:
    """What bash would offer for a line that ends where the cursor is."""
    words = line.split(" ")
    program = f"""
        source {scripts}/bash/{words[0]}
        COMP_WORDS=({" ".join(words[:-1])} "{words[-1]}")
        COMP_CWORD={len(words) - 1}
        compopt() {{ wants=$2; }}
        _{words[0]}_completion {words[0]}
        if [ "$wants" = dirnames ]; then compgen -d -- "{words[-1]}"
        elif [ "$wants" = default ]; then compgen -f -- "{words[-1]}"
        else printf '%s\\n' "${{COMPREPLY[@]}}"; fi
    """
    return shell(["bash", "--norc", "-c", program], commands, desk)


def ask_fish(line: str, scripts: Path, commands: dict[str, str], desk: Path) -> list[str]:
    name = line.partition(" ")[0]
    program = f"source {scripts}/fish/{name}.fish; complete -C '{line}'"
    found = shell(["fish", "--no-config", "-c", program], commands, desk)
    return [one.partition("\t")[0].rstrip("/") for one in found]


def shell(command: list[str], environ: dict[str, str], folder: Path) -> list[str]:
    done = subprocess.run(
        command, env=environ, cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stderr == ""
    return sorted(line for line in done.stdout.splitlines() if line)


ASK = {"bash": ask_bash, "fish": ask_fish}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bash", "fish"])
def test_completion(kind: str, scripts: Path, commands: dict[str, str], desk: Path) -> None:
    """The shell offers verbs, options, choices, files and folders, and nothing else."""
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind}")
    for line, expected in CASES if kind == "bash" else CASES[::2]:
        assert ASK[kind](line, scripts, commands, desk) == expected, line


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bash", "zsh"])
def test_completion_on_a_terminal(
    kind: str, scripts: Path, commands: dict[str, str], desk: Path
) -> None:
    """Somebody types a part of a verb and of an option, presses TAB, and has both."""
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind}")
    if kind == "bash":
        command = ["bash", "--norc", "-i"]
        first = f"source {scripts}/bash/pushctl"
    else:
        command = ["zsh", "-f", "-i"]
        first = f"fpath=({scripts}/zsh $fpath); autoload -Uz compinit; compinit -u -D"
    typed = [(first, ""), ("\n", ""), ("pushctl relo\t", "reload"), ("--js\t", "--json")]
    on_terminal(command, commands, desk, typed)


def on_terminal(
    command: list[str], environ: dict[str, str], folder: Path, typed: list[tuple[str, str]]
) -> None:
    """Type in a shell, and wait after each part for what its terminal has to show then."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, {**environ, "PS1": "> ", "TERM": "xterm"})
    try:
        for keys, awaited in typed:
            os.write(terminal, keys.encode())
            shown, deadline = b"", time.monotonic() + PATIENCE
            while awaited.encode() not in shown:
                assert time.monotonic() < deadline, f"{keys!r}: {shown!r}"
                if select.select([terminal], [], [], 0.1)[0]:
                    shown += os.read(terminal, 65536)
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHELLS)
def test_scripts_are_good(kind: str, scripts: Path) -> None:
    """Each shell reads its scripts without a complaint; a build writes one for each command."""
    names = sorted(path.name for path in (scripts / kind).iterdir())
    assert len(names) == 2
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind}")
    for name in names:
        done = subprocess.run(
            [kind, "-n", str(scripts / kind / name)], capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, "")
