"""The negative controls: bugs put into a copy of the server, and which tool finds each of them.

`python -m tests.fuzz.bugs` copies the package, changes one place, runs the tool that should
notice against the copy, and tells how long that took. A bug that is not found within a minute of
a processor is a hole in the net, and the exit code is 1. With `--clean` each tool also runs against
a copy without a bug, for one that always complains finds everything.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.model.record import ROOT, record

# Seconds of a processor in which a bug is to be found.
MINUTE = 60.0

PYTEST = ("-m", "pytest", "-q", "-x", "--timeout=0", "-p", "no:cacheprovider")
SEEDS = (*PYTEST, "tests/fuzz/test_targets.py", "-k", "seeds")
SPLITS = (*PYTEST, "tests/fuzz/test_splits.py")
REQUESTS = (*PYTEST, "tests/fuzz/test_requests.py")
TEXTS = (*PYTEST, "tests/fuzz/test_texts.py")
CLIENT = (*PYTEST, "tests/fuzz/test_client_bytes.py")
CONTROL = (*PYTEST, "tests/fuzz/test_ctl_bytes.py")
SETTINGS = (*PYTEST, "tests/fuzz/test_settings_bytes.py")
LINES = ("-m", "tests.fuzz.run", "--target", "lines", "--seconds", "40", "--fresh")
CORE = ("-m", "tests.fuzz.run", "--target", "core", "--seconds", "40", "--fresh")
MACHINES = ("-m", "tests.fuzz.wide", "--machines", "200", "--steps", "50", "--first")


class Bug(NamedTuple):
    """One place of the package, what stands there, what is put there, and who should notice."""

    name: str
    file: str
    right: str
    wrong: str
    tool: tuple[str, ...]


BUGS = (
    Bug(
        "a piece of one byte is lost",
        "protocol.py",
        "        if self._partial:\n            whole =",
        "        if len(self._partial) > 1:\n            whole =",
        SPLITS,
    ),
    Bug(
        "the first pieces of a line are lost",
        "protocol.py",
        "            self._partial += data\n",
        "            self._partial = bytearray(data)\n",
        SPLITS,
    ),
    Bug(
        "lines behind a start are run before it has ended",
        "connection.py",
        "        while not (self._busy or self._ending or self._paused_at or self._full):",
        "        while not (self._ending or self._paused_at or self._full):",
        SPLITS,
    ),
    Bug(
        "deep nesting is not caught",
        "protocol.py",
        "    except RecursionError:\n        raise Malformed(",
        "    except BufferError:\n        raise Malformed(",
        LINES,
    ),
    Bug(
        "a message without a text ends in a TypeError",
        "draft.py",
        '        text = infos.content or ""\n',
        "        text = infos.content\n",
        LINES,
    ),
    Bug(
        "a digit that is no ASCII is taken for an id",
        "draft.py",
        "text and text.isascii() and text.isdigit()",
        "text and text.isdigit()",
        LINES,
    ),
    Bug(
        "a key of a page is larger than the store's integers",
        "commands.py",
        "    return text.isascii() and text.isdigit() and len(text) < 19\n",
        "    return text.isascii() and text.isdigit()\n",
        REQUESTS,
    ),
    Bug(
        "texts are taken for numbers in commands",
        "protocol.py",
        "        value = msgspec.json.decode(line, type=request)\n",
        "        value = msgspec.json.decode(line, type=request, strict=False)\n",
        REQUESTS,
    ),
    Bug(
        "texts are taken for numbers in frames",
        "protocol.py",
        "_decode_frame = msgspec.json.Decoder(Frame).decode",
        "_decode_frame = msgspec.json.Decoder(Frame, strict=False).decode",
        REQUESTS,
    ),
    Bug(
        "U+0000 is stored",
        "protocol.py",
        '        if "\\0" in value:',
        '        if "\\0" == value:',
        TEXTS,
    ),
    Bug(
        "descriptions lose the blanks around them",
        "handlers/account.py",
        'profile["desc"] = request.desc\n',
        'profile["desc"] = request.desc.strip()\n',
        TEXTS,
    ),
    Bug(
        "anybody reads any file",
        "store/references.py",
        '    f" t.id) WHERE t.path = :path AND ({IS_OWNED} OR {IS_AVATAR} OR {IS_SENT_TO})"',
        '    f" t.id) WHERE t.path = :path AND (:account > 0 OR {IS_AVATAR} OR :now < 0)"',
        REQUESTS,
    ),
    Bug(
        "a block does not hold",
        "store/journal.py",
        "and not blocked and sender != to",
        "and sender != to",
        MACHINES,
    ),
    Bug(
        "a friendship ends on one side only",
        "store/friends.py",
        '((actor.account, friend), (friend, actor.account)):\n            remove = "DELETE FROM fr',
        '((actor.account, friend),):\n            remove = "DELETE FROM fr',
        MACHINES,
    ),
    Bug(
        "what is nested too deeply breaks the client",
        "link.py",
        "except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):",
        "except (msgspec.DecodeError, UnicodeDecodeError):",
        CLIENT,
    ),
    Bug(
        "an answer of another shape breaks pushctl",
        "ctl/verb.py",
        "Control(path, timeout) as control, reading(path):",
        "Control(path, timeout) as control:",
        CONTROL,
    ),
)


def planted(bug: Bug | None, folder: Path) -> None:
    """Make a copy of the package with a bug, and the tests beside it."""
    shutil.copytree(ROOT / "pushd", folder / "pushd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if bug is None:
        return
    (folder / "pushd" / bug.file).write_text(broken(bug))


def broken(bug: Bug) -> str:
    """Give the text of a bug's module with the bug in it; the right text must stand there once."""
    text = (ROOT / "pushd" / bug.file).read_text()
    if text.count(bug.right) != 1:
        raise ValueError(f"{bug.name}: {bug.file} has changed")
    return text.replace(bug.right, bug.wrong)


def found(bug: Bug | None, tool: tuple[str, ...]) -> tuple[float, str]:
    """Run a tool against a copy; give the processor's seconds until it complained or 0, and why."""
    with tempfile.TemporaryDirectory() as name:
        planted(bug, Path(name))
        environment = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONHOME", None)
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, *tool],
            cwd=name,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            said, _ = process.communicate(timeout=10 * MINUTE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return 0.0, "it did not end"
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
        if process.returncode != 1 or spent > MINUTE:
            return 0.0, said[-300:] if process.returncode else ""
        why = [line for line in said.splitlines() if line.startswith(("E  ", "VIOLATION"))]
        return spent, why[0][:160] if why else said.splitlines()[-1][:160]


def main() -> int:
    """Try all bugs, or those whose names hold a text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="bugs whose name holds this text")
    parser.add_argument("--clean", action="store_true", help="also run the tools without a bug")
    options = parser.parse_args()
    chosen = [bug for bug in BUGS if options.only in bug.name]
    controls: dict[str, str] = {}
    missed: list[str] = []
    for bug in chosen:
        seconds, why = found(bug, bug.tool)
        controls[bug.name] = f"caught after {seconds:.0f} s: {why}" if seconds else f"MISSED {why}"
        if not seconds:
            missed.append(bug.name)
        print(f"{bug.name}: {controls[bug.name]}", flush=True)
    for tool in dict.fromkeys(bug.tool for bug in chosen) if options.clean else ():
        seconds, why = found(None, tool if tool != MACHINES else (*tool[:3], "3"))
        name = f"no bug: {' '.join(tool[1:4])}"
        controls[name] = f"COMPLAINED: {why}" if seconds else "silent"
        missed += [name] if seconds else []
        print(f"{name}: {controls[name]}", flush=True)
    figures = {"bugs": len(chosen), "caught": len(chosen) - len(missed), "load": os.getloadavg()[0]}
    record("bugs", figures, [f"not found: {name}" for name in missed], controls)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
