"""Write the manual pages of pushd from its commands, its settings and tables of the documents.

    python packaging/manpages.py build/man      pushd.8, pushctl.1 and pushd.toml.5

Nothing is said here that stands elsewhere already: verbs and options come from the commands,
settings from their types, signals, files and exit codes from docs/operations.md.
"""

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from pushd import __version__, cli, config, settings  # noqa: E402 # the sources beside this file

MANUAL = ROOT / "docs" / "operations.md"

# The options that many verbs share are described once.
SHARED = ("--socket", "--data", "--config", "--timeout", "--json")
EXAMPLES = (
    ("See how the server on this machine does:", "pushctl status"),
    ("Make an account; the password is asked for:", "pushctl register 13800138000 Ana"),
    ("Send a message to somebody, and see where it is:", 'pushctl push "Hello" --to Ana'),
    ("List who is logged in, for a program:", "pushctl online --json"),
    ("Back the running server up:", "pushctl backup /backup/pushd.tar.gz"),
    ("Ask a server elsewhere whether it is there:", "pushctl ping -s tls://chat.example:9528"),
)


# Roff


def text(words: str) -> str:
    """Escape a text, and turn its `code` into bold and its [links](…) into their words."""
    words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", words)
    parts = re.split(r"`([^`]+)`", words)
    return "".join(bold(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def escape(words: str) -> str:
    """Have roff print exactly this."""
    return words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def bold(words: str) -> str:
    """Write what is typed as it stands."""
    return f"\\fB{escape(words)}\\fR"


def italic(words: str) -> str:
    """Write what stands for something else."""
    return f"\\fI{escape(words)}\\fR"


def filled(words: str) -> Iterator[str]:
    """Break a text that is escaped already into lines that people can read in the source."""
    for line in textwrap.wrap(words, 78, break_long_words=False, break_on_hyphens=False):
        yield f"\\&{line}" if line[0] in ".'" else line


def paragraphs(words: str) -> Iterator[str]:
    """Give the paragraphs of a docstring."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", words.replace("\b", ""))):
        if number:
            yield ".PP"
        yield from filled(text(" ".join(paragraph.split())))


def head(name: str, section: int, title: str) -> Iterator[str]:
    """Begin a page; SOURCE_DATE_EPOCH sets the date, so that a build can be repeated."""
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(stamp))
    yield f'.TH {name.upper()} {section} "{date}" "pushd {__version__}" "pushd manual"'
    yield ".SH NAME"
    yield f"{escape(name)} \\- {escape(title)}"


def table(*titles: str) -> list[list[str]]:
    """Take the rows of a table of the document, by its titles."""
    found: list[list[str]] = []
    inside = False
    for line in MANUAL.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and cells == list(titles):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            found.append(cells)
    if not found:
        raise SystemExit(f"{MANUAL} has no table {titles}")
    return found


def listed(rows: Iterable[list[str]]) -> Iterator[str]:
    """Give rows of two cells as a list."""
    for name, meaning in rows:
        sentence = f"{meaning[0].upper()}{meaning[1:].rstrip('.')}."
        yield from item(text(name) if "`" in name else bold(name), [text(sentence)])


def item(title: str, body: Iterable[str]) -> Iterator[str]:
    """Give one entry of a list."""
    yield ".TP"
    yield title
    for words in body:
        yield from filled(words)


def see_also(*pages: str) -> Iterator[str]:
    """Name other pages, each as name(section)."""
    yield ".SH SEE ALSO"
    yield ",\n".join(f"\\fB{name}\\fR({section}" for name, section in (p.split("(") for p in pages))
    yield ".PP"
    yield f"{italic('/usr/share/doc/pushd/operations.md')} has all of it at length."


# Commands


def parameters(command: click.Command) -> tuple[list[click.Argument], list[click.Option]]:
    """Give the arguments and the options of a command, without --help."""
    found = command.params
    return (
        [one for one in found if isinstance(one, click.Argument)],
        [one for one in found if isinstance(one, click.Option)],
    )


def operand(option: click.Option) -> str:
    """Give what an option takes, as FILE, or nothing."""
    if option.is_flag or option.count:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return " | ".join(option.type.choices)
    return "NUMBER" if isinstance(option.type, click.IntRange | click.FloatRange) else "TEXT"


def names_of(option: click.Option) -> str:
    """Give the names of an option with what it takes."""
    names = ", ".join(bold(name) for name in option.opts)
    taken = operand(option)
    return f"{names} {italic(taken)}" if taken else names


def meaning_of(option: click.Option) -> str:
    """Give the help of an option, its range and its default."""
    words = [option.help or ""]
    if isinstance(option.type, click.IntRange | click.FloatRange):
        low, high = option.type.min, option.type.max
        if high is not None and high < 1 << 31:
            words.append(f"From {low} to {high}.")
        elif low:
            words.append(f"{low} or more.")
    if option.show_default and option.default is not None:
        words.append(f"The default is {option.default}.")
    if option.required:
        words.append("It has to be given.")
    return text(" ".join(words))


def synopsis(name: str, command: click.Command) -> str:
    """Give the line that shows how a command is written."""
    arguments, _ = parameters(command)
    words = [bold(name), f"[{italic('options')}]"]
    for argument in arguments:
        shown = (argument.metavar or argument.human_readable_name).strip("[]").upper()
        if isinstance(argument.type, click.Choice):
            shown = " | ".join(argument.type.choices)
        words.append(italic(shown) if argument.required else f"[{italic(shown)}]")
    return " ".join(words)


def options(found: Iterable[click.Option]) -> Iterator[str]:
    """List options."""
    for option in found:
        yield from item(names_of(option), [meaning_of(option)])


def help_option() -> Iterator[str]:
    """List the option that every command has."""
    yield from item(f"{bold('-h')}, {bold('--help')}", ["Show a short help and exit."])


# Pages


def pushd_page() -> Iterator[str]:
    """Write pushd(8)."""
    yield from head("pushd", 8, "push and chat server")
    yield ".SH SYNOPSIS"
    yield synopsis("pushd", cli.pushd)
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        """`pushd` keeps one TCP or TLS connection to each client, which speaks lines of JSON. What
        it has confirmed is on the disk, and waits in the queue of each device until that device
        has acked it.

        It needs no settings: without any it listens on 127.0.0.1:9527 and keeps its data in
        ./data. It stays in the foreground and logs to standard error."""
    )
    yield ".SH OPTIONS"
    yield from options(parameters(cli.pushd)[1])
    yield from help_option()
    yield ".SH SIGNALS"
    yield from listed(table("signal", "what it does"))
    yield ".SH ENVIRONMENT"
    yield from item(
        f"{bold('PUSHD_')}{italic('SECTION')}{bold('_')}{italic('SETTING')}",
        [text("Any setting, as PUSHD_LIMITS_PAGE is `limits.page`; see pushd.toml(5).")],
    )
    for name, meaning in (
        ("STATE_DIRECTORY", "Set by systemd: where the data is unless a setting says otherwise."),
        ("CREDENTIALS_DIRECTORY", "Set by systemd: where certificate and key may be."),
        ("LISTEN_FDS", "Set by systemd: sockets that are open already. Also `LISTEN_FDNAMES`."),
        ("NOTIFY_SOCKET", "Set by systemd: who is told of readiness. Also `WATCHDOG_USEC`."),
    ):
        yield from item(bold(name), [text(meaning)])
    yield ".SH FILES"
    yield from item(italic(config.DEFAULT_FILE), ["The settings."])
    yield from item(italic("/etc/pushd/conf.d/*.toml"), ["More of them, in order of name."])
    yield ".PP"
    yield "In the folder of the data:"
    yield from listed(table("file", "what it is"))
    yield ".SH EXIT STATUS"
    yield from listed(table("exit code of `pushd`", "meaning"))
    yield from see_also("pushctl(1)", "pushd.toml(5)", "systemd.socket(5)")


def pushctl_page() -> Iterator[str]:
    """Write pushctl(1)."""
    yield from head("pushctl", 1, "look at a pushd server, act on it, and talk to it")
    yield ".SH SYNOPSIS"
    yield f"{bold('pushctl')} {italic('verb')} [{italic('options')}] [{italic('arguments')}]"
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        """`pushctl` speaks by the control socket of a server on this machine, as root or as the
        server's own user; `ping` and `chat` reach any server by its address. It finds the socket
        as the server does: by the settings, the environment, or ./data.

        A USER is named by id, phone or exact name. Standard output has the answer and nothing
        else. Passwords are asked for, or read as one line from standard input."""
    )
    yield ".SH VERBS"
    for name, command in sorted(cli.pushctl.commands.items()):
        yield from verb(name, command)
    yield ".SH COMMON OPTIONS"
    yield "Most verbs take these; each says which it takes."
    yield from options(shared())
    yield from help_option()
    yield from options(parameters(cli.pushctl)[1])
    yield ".SH EXIT STATUS"
    yield from listed(table("exit code of `pushctl`", "meaning"))
    yield ".SH EXAMPLES"
    for number, (words, line) in enumerate(EXAMPLES):
        if number:
            yield ".PP"
        yield from (text(words), ".PP", ".RS 4", ".EX", escape(line), ".EE", ".RE")
    yield from see_also("pushd(8)", "pushd.toml(5)")


def verb(name: str, command: click.Command) -> Iterator[str]:
    """Describe one verb."""
    yield f".SS {escape(name)}"
    yield synopsis(f"pushctl {name}", command)
    yield ".PP"
    yield from paragraphs(command.help or "")
    _, found = parameters(command)
    yield from options(one for one in found if not is_shared(one))
    common = [name for one in found if is_shared(one) for name in one.opts]
    if common:
        yield ".PP"
        yield from filled(f"Common options: {', '.join(map(bold, common))}.")


def is_shared(option: click.Option) -> bool:
    """Tell whether an option means the same for each verb that has it; a --data may not."""
    return any(option.opts == one.opts and option.help == one.help for one in shared())


def shared() -> list[click.Option]:
    """Give the options that `status` takes: most verbs do."""
    return [
        one for one in parameters(cli.pushctl.commands["status"])[1] if set(one.opts) & set(SHARED)
    ]


def settings_page() -> Iterator[str]:
    """Write pushd.toml(5)."""
    yield from head("pushd.toml", 5, "settings of pushd")
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        """The settings of pushd(8) are a TOML file of sections with settings, each of which has a
        default. The later one wins: the default, /etc/pushd/pushd.toml (or the file of `-c`), the
        files conf.d/*.toml beside it in order of name, the environment, the flags.

        An unknown setting and a value out of its range stop the start with 78, each with its file
        and line and the nearest right name. `pushd --check-config` looks without a start;
        `pushctl config` prints each setting and where it came from.

        A reload (SIGHUP, `pushctl reload`) changes what is said to be live. The rest takes effect
        at the next start. Numbers are written in plain digits, in the unit of their setting.

        Each setting is also a variable: `limits.page` is `PUSHD_LIMITS_PAGE`. A list is
        separated by commas there."""
    )
    yield ".SH SETTINGS"
    section = ""
    for key, setting in config.SETTINGS.items():
        first, _, name = key.partition(".")
        if first != section:
            section = first
            yield f".SS [{escape(section)}]"
            yield text(config.meaning_of(section))
        yield from item(
            f"{bold(name)} = {escape(settings.toml(setting.default))}", [text(setting.describe())]
        )
    yield ".SH EXAMPLES"
    yield ".EX"
    yield escape(
        '[server]\nlisten = ["127.0.0.1:9527"]\n\n[tls]\nlisten = [":9528"]\n'
        'certificate = "/etc/pushd/tls/fullchain.pem"\nkey = "/etc/pushd/tls/privkey.pem"\n\n'
        "[store]\nhistory_days = 365"
    )
    yield ".EE"
    yield ".SH FILES"
    yield from item(italic(config.DEFAULT_FILE), ["Read where it exists, unless another is named."])
    yield from item(italic("/etc/pushd/conf.d/*.toml"), ["Read after it."])
    yield from see_also("pushd(8)", "pushctl(1)")


PAGES = {"pushd.8": pushd_page, "pushctl.1": pushctl_page, "pushd.toml.5": settings_page}


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text("\n".join(page()) + "\n", "utf-8")
    return [folder / name for name in PAGES]


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "build/man")):
        print(path)
