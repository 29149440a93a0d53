"""Settings: five layers, one frozen result, and every error in one line with the nearest name."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd import config, settings
from pushd.config import Config
from pushd.errors import ConfigError


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the default file be one that the test writes, or none."""
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "etc" / "pushd.toml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The operand of -c; its conf.d lies beside it."""
    return tmp_path / "pushd.toml"


def errors(*, file: Path | None = None, flags: Any = None, environ: Any = None) -> list[str]:
    """The lines of the ConfigError that these layers raise, without the file's folder."""
    with pytest.raises(ConfigError) as caught:
        config.load(str(file) if file else None, flags or {}, environ or {})
    return [re.sub(r"^/\S*/", "", line) for line in caught.value.lines]


def error_in(file: Path, text: str) -> str:
    """The one line about a file of this text, without the number of the line in it."""
    file.write_text(text, "utf-8")
    (line,) = errors(file=file)
    return re.sub(r"^(pushd\.toml):\d+: ", r"\1: ", line)


# Layers


def test_without_anything_the_defaults_hold() -> None:
    """pushd works without any settings: loopback, and data in ./data."""
    loaded = config.load(None, {}, {"HOME": "/root", "PATH": "/bin"})
    assert loaded == Config()
    assert loaded.server.listen == ("127.0.0.1:9527",)
    assert loaded.server.data == "./data"


def test_the_defaults_are_within_their_own_ranges() -> None:
    """Each default, written out and read back, passes its own check."""
    for setting in config.SETTINGS.values():
        assert settings.checked(setting, setting.default) == setting.default


def test_each_layer_beats_the_one_before(file: Path) -> None:
    """Default < file < conf.d in order of name < environment < flag, and origins tell which."""
    file.write_text(
        "[server]\ndata='f'\nzone='Asia/Tokyo'\nbacklog=1\nloop='asyncio'\n[log]\nlevel='error'\n"
    )
    folder = file.parent / "conf.d"
    folder.mkdir()
    (folder / "20.toml").write_text("[server]\ndata='20'\nzone='Asia/Shanghai'\nbacklog=20\n")
    (folder / "10.toml").write_text("[server]\ndata='10'\nzone='Asia/Seoul'\nbacklog=10\n")
    environ = {"PUSHD_SERVER_DATA": "env", "PUSHD_SERVER_BACKLOG": "7"}
    flags = {"server.data": "flag", "server.loop": None}

    loaded = config.load(str(file), flags, environ)
    assert loaded.server == config.Server(
        data="flag", zone="Asia/Shanghai", backlog=7, loop="asyncio"
    )
    assert loaded.log.level == "error"
    assert loaded.files == (str(file), str(folder / "10.toml"), str(folder / "20.toml"))

    origins = config.origins(str(file), flags, environ)
    assert origins["server.data"] == ("flag", "--data")
    assert origins["server.backlog"] == (7, "PUSHD_SERVER_BACKLOG")
    assert origins["server.zone"] == ("Asia/Shanghai", f"{folder / '20.toml'}:3")
    assert origins["server.loop"] == ("asyncio", f"{file}:5")
    assert origins["server.listen"] == (("127.0.0.1:9527",), "default")
    assert set(origins) == set(config.SETTINGS)


def test_the_default_file_is_read_where_it_exists() -> None:
    """Without -c the file in /etc counts, and so does its conf.d, even alone."""
    main = Path(config.DEFAULT_FILE)
    (main.parent / "conf.d").mkdir(parents=True)
    (main.parent / "conf.d" / "a.toml").write_text("[queue]\ndays=5\n")
    assert config.load(None, {}, {}).queue.days == 5
    main.write_text("[queue]\ndays=4\nmessages=3\n")
    assert config.load(None, {}, {}).queue == config.Queue(days=5, messages=3)


def test_a_named_file_hides_the_default_one(file: Path) -> None:
    """With -c nothing of /etc is read."""
    main = Path(config.DEFAULT_FILE)
    main.parent.mkdir()
    main.write_text("[queue]\ndays=4\n")
    file.write_text("")
    assert config.load(str(file), {}, {}).queue.days == 30


def test_systemd_names_the_data_where_nothing_else_does(file: Path) -> None:
    """STATE_DIRECTORY, the first of its list, replaces the default and nothing more."""
    environ = {"STATE_DIRECTORY": "/var/lib/pushd:/var/lib/other"}
    assert config.origins(None, {}, environ)["server.data"] == ("/var/lib/pushd", "STATE_DIRECTORY")
    file.write_text("[server]\ndata='mine'\n")
    assert config.load(str(file), {}, environ).server.data == "mine"


@pytest.mark.parametrize("name", [".hidden.toml", "old.toml~", "README"])
def test_other_files_in_conf_d_are_left_alone(file: Path, name: str) -> None:
    """What an editor or a package manager leaves there is no setting."""
    file.write_text("")
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / name).write_text("not = [toml")
    assert config.load(str(file), {}, {}).files == (str(file),)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("PUSHD_LIMITS_PER_ADDRESS", "false", False),
        ("PUSHD_LIMITS_PER_ADDRESS", "1", True),
        ("PUSHD_AUTH_BCRYPT_COST", "12", 12),
        ("PUSHD_LIMITS_DRAIN", "0.5", 0.5),
        ("PUSHD_LOG_FORMAT", "json", "json"),
        ("PUSHD_SERVER_LISTEN", "[::1]:0, :9527", ("[::1]:0", ":9527")),
    ],
)
def test_a_variable_has_the_type_of_its_setting(variable: str, text: str, value: object) -> None:
    """The environment knows only texts; each becomes what the setting is."""
    values = config.origins(None, {}, {variable: text}).values()
    assert [pair for pair in values if pair[1] == variable] == [(value, variable)]


def test_the_result_cannot_be_changed() -> None:
    """A Config is frozen, so that nobody changes it behind another's back."""
    with pytest.raises(AttributeError):
        Config().limits.line = 1  # type: ignore[misc]


# Files


@pytest.mark.parametrize(
    "text", ["", "\ufeff", "# nothing\n", "\ufeff[limits]\r\nline = 1048576\r\n"]
)
def test_empty_files_boms_and_crlf_are_fine(file: Path, text: str) -> None:
    """An empty file, a BOM and Windows line ends change nothing."""
    file.write_bytes(text.encode())
    assert msgspec.structs.replace(config.load(str(file), {}, {}), files=()) == Config()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[limits]\nline = 10k # or so\n", "line 2, column 10); a number has no unit, not 10k"),
        (b"[limits]\nline = 1\nline = 2\n", "at line 3"),
        (b"[limits\n", "at line 1"),
        (b"[log]\nlevel = 'in\xff'\n", "is not UTF-8 at byte 17"),
        (b"a = " + b"[" * 20000, "is nested too deeply"),
        (b"a = " + b"9" * 5000, "integer string conversion"),
        (b"#" * (config.FILE_MAX + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_told_in_one_line(file: Path, data: bytes, words: str) -> None:
    """Syntax, encoding, depth and size: one line that names the file and the place."""
    file.write_bytes(data)
    (line,) = errors(file=file)
    assert re.match(r"pushd\.toml(:[1-3])?: ", line)
    assert words in line


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\n\n[limits]\n\tline = -1\n", ["4: limits.line"]),
        ("limits.line = -1\nlimits.page=0", ["1: limits.line", "2: limits.page"]),
        ("#\nlimits = {page = 3, line = -1}\n", ["2: limits.line"]),
        ("[limits]\n\nquue_limit = 1\n", ["3: limits.quue_limit"]),
        ("[log]\n[quarks]\nx=1", ["2: quarks"]),
        ("#\nlisten = 1", ["2: listen"]),
        ("log = 1", ["1: log"]),
        ("#\n[[log]]", ["2: log"]),
        ('[server]\nzone = """\nline = 1\n"""\n', ["2: server.zone"]),
        ("\ufeff\n[limits]\r\npage_max = 5\r\npage = 9", ["4: limits.page"]),
        ("[tls]\nlisten = [\n':1']", ["2: tls.listen"]),
        ("[limits]\nline = 10k", ["2: Expected newline or end of document after a statement"]),
    ],
)  # fmt: skip
def test_an_error_names_its_line(file: Path, text: str, lines: list[str]) -> None:
    """FILE:LINE: key, as editors know it, for values, names, syntax, and pairs that do not fit."""
    file.write_text(text, "utf-8", newline="")
    found = errors(file=file)
    assert len(found) == len(lines)
    for got, line in zip(found, lines, strict=True):
        assert got.startswith(f"pushd.toml:{line}"), got


def test_a_line_that_is_not_known_is_left_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is better than a wrong one."""
    file.write_text("[limits]\nline = -1\n")
    monkeypatch.setattr(config, "lines_of", lambda text: {})
    (line,) = errors(file=file)
    assert line.startswith("pushd.toml: limits.line: must be")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A named file must be there and be a file; a broken link in conf.d is not overlooked."""
    assert errors(file=tmp_path / "no.toml") == [
        "no.toml: cannot be read: No such file or directory"
    ]
    (folder := tmp_path / "folder").mkdir()
    assert errors(file=folder) == ["folder: cannot be read: Is a directory"]
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "x.toml").symlink_to("nowhere")
    (folder / "pushd.toml").write_text("")
    (line,) = errors(file=folder / "pushd.toml")
    assert line == "x.toml: cannot be read: No such file or directory"


def test_a_broken_link_as_the_default_file_is_an_error() -> None:
    """What looks configured must not run with the defaults."""
    main = Path(config.DEFAULT_FILE)
    main.parent.mkdir()
    main.symlink_to("nowhere")
    assert errors() == ["pushd.toml: cannot be read: No such file or directory"]


def test_a_pipe_is_no_settings_file(tmp_path: Path) -> None:
    """A reload would find it empty, or wait for ever."""
    os.mkfifo(tmp_path / "pipe.toml")
    assert errors(file=tmp_path / "pipe.toml") == ["pipe.toml: is no regular file"]


# Names


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[limit]\nx=1", "limit: unknown section, did you mean limits?"),
        ("[quark]\nx=1", "quark: unknown section"),
        ("[limits]\nlines=1", "limits.lines: unknown setting, did you mean line?"),
        ("[auth]\nheartbeat=1", "auth.heartbeat: unknown setting, did you mean limits.heartbeat?"),
        ("[limits]\nzzzz=1", "limits.zzzz: unknown setting"),
        ("listen=['a:1']", "listen: unknown setting, did you mean server.listen?"),
        ("log='debug'", "log: must be a section, write [log]"),
        ("[[log]]\nlevel='debug'", "log: must be a section, write [log]"),
        ('[limits]\n"a\\nb"=1', "limits.a\\nb: unknown setting"),
        (
            "[limits.line]\nx=1",
            "limits.line: must be a whole number in plain digits, not a section",
        ),
    ],
)
def test_unknown_names_are_errors_with_the_nearest_right_one(
    file: Path, text: str, line: str
) -> None:
    """A misspelt setting would silently not hold; the right name is offered where one is near."""
    assert error_in(file, text) == f"pushd.toml: {line}"


def test_unknown_variables_are_errors_too() -> None:
    """All that begins with PUSHD_ must be a setting."""
    assert errors(environ={"PUSHD_LIMITS_PER_ADRESS": "1", "PUSHD": "", "pushd_x": ""}) == [
        "environment: PUSHD_LIMITS_PER_ADRESS: unknown variable,"
        " did you mean PUSHD_LIMITS_PER_ADDRESS?"
    ]


# Values

WHOLE = "must be a whole number in plain digits, not"
COST = "must be from 4 to 15 (log2 of rounds), not"
LEVEL = "must be one of debug, info, warning, error, not"
LIST = 'must be a list of texts like ["a", "b"], not'
PART = "server.listen: 127.0.0.1:1 is a part of 0.0.0.0:1"
ZONE = "there is no such zone here (package tzdata)"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[limits]\nline='10k'", f"limits.line: {WHOLE} 10k"),
        ("[limits]\nline=1e9", f"limits.line: {WHOLE} 1000000000.0"),
        ("[limits]\npage=true", f"limits.page: {WHOLE} true"),
        ("[limits]\nbad_lines=0", "limits.bad_lines: must be from 1 to 1000000 (lines), not 0"),
        ("[auth]\nbcrypt_cost=16", f"auth.bcrypt_cost: {COST} 16"),
        (
            f"[auth]\nbcrypt_cost={2**64}",
            f"auth.bcrypt_cost: {COST} a number of more than 64 bits",
        ),
        ("[limits]\ndrain=nan", "limits.drain: must be from 0 to 60 (seconds), not nan"),
        ("[limits]\ndrain=-inf", "limits.drain: must be from 0 to 60 (seconds), not -inf"),
        ("[limits]\ndrain='1'", "limits.drain: must be a number, not 1"),
        ("[limits]\nper_address=0", "limits.per_address: must be true or false, not 0"),
        ("[log]\nlevel='Inof'", f"log.level: {LEVEL} Inof, did you mean info?"),
        ("[log]\nlevel=3", "log.level: must be a text in quotes, not 3"),
        ("[log]\nlevel=1979-05-27", "log.level: must be a text in quotes, not 1979-05-27"),
        ("[server]\ndata=''", "server.data: must not be empty"),
        ("[server]\ndata='''a\\u0000'''", None),
        ('[server]\ndata="a\\u0000"', "server.data: must not hold a NUL character"),
        ("[server]\nlisten='a:1'", f"server.listen: {LIST} a:1"),
        ("[server]\nlisten=[1]", f"server.listen: {LIST} [1]"),
        ("[server]\nlisten=[]", "server.listen: must name at least one address"),
        ("[server]\nlisten=['a:1','a:1']", "server.listen: a:1 is there twice"),
        ("[server]\nlisten=[':1','a:1']", "server.listen: a:1 is a part of :1"),
        ("[server]\nlisten=['127.0.0.1:1','0.0.0.0:1']", PART),
        ("[server]\nlisten=['[::1]:1','[::]:1']", "server.listen: [::1]:1 is a part of [::]:1"),
        ("[server]\nlisten=['[::]:1','0.0.0.0:1',':1']", "server.listen: [::]:1 is a part of :1"),
        ("[server]\nlisten=['a:1','b']", "server.listen: b: the port is missing, write host:port"),
        ("[auth]\nreserved_names=['a',' ']", "auth.reserved_names: must not hold an empty name"),
        (
            "[server]\nzone='Asia/Shangai'",
            f"server.zone: Asia/Shangai: {ZONE}, did you mean Asia/Shanghai?",
        ),
        ("[server]\nzone='../etc/passwd'", f"server.zone: ../etc/passwd: {ZONE}"),
        ("[server]\nzone='Asia'", f"server.zone: Asia: {ZONE}"),
    ],
)  # fmt: skip
def test_bad_values_are_told_in_one_line(file: Path, text: str, line: str | None) -> None:
    """Wrong types, ranges and choices say what is right; nothing is guessed or rounded."""
    if line is None:  # the control of the next row: in a literal string it is no NUL
        file.write_text(text)
        assert config.load(str(file), {}, {}).server.data == "a\\u0000"
    else:
        got = error_in(file, text)
        assert got.startswith(f"pushd.toml: {line}")


@pytest.mark.parametrize(
    "text", ["10k", "", "1e9", "1.0", "0x10", "1_000", "٣", "9" * 5000, "true"]
)
def test_a_number_in_a_variable_is_plain_digits(text: str) -> None:
    """int() would take underscores and other scripts' digits, and crawl over long ones."""
    (line,) = errors(environ={"PUSHD_LIMITS_LINE": text})
    assert line.startswith("environment: PUSHD_LIMITS_LINE: must be a whole number")
    assert len(line) < 200


def test_bad_variables_of_other_types() -> None:
    """A boolean is not guessed, and a list of nothing is no list."""
    assert errors(
        environ={
            "PUSHD_LIMITS_PER_ADDRESS": "maybe",
            "PUSHD_LIMITS_DRAIN": "soon",
            "PUSHD_SERVER_LISTEN": " , ",
            "PUSHD_LOG_LEVEL": "",
        }
    ) == [
        "environment: PUSHD_LIMITS_DRAIN: must be a number, not soon",
        "environment: PUSHD_LIMITS_PER_ADDRESS: must be true or false, not maybe",
        'environment: PUSHD_LOG_LEVEL: must be one of debug, info, warning, error, not ""',
        "environment: PUSHD_SERVER_LISTEN: must name at least one address",
    ]


def test_all_errors_of_all_layers_come_together(file: Path) -> None:
    """One start shows everything that is to be mended."""
    file.write_text("[server]\nzone='x/y'\nbacklog=0\n")
    lines = errors(file=file, flags={"log.level": "x"}, environ={"PUSHD_X": "1"})
    assert [line.split(": ")[:2] for line in lines] == [
        ["pushd.toml:2", "server.zone"],
        ["pushd.toml:3", "server.backlog"],
        ["environment", "PUSHD_X"],
        ["flags", "--log-level"],
    ]


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("line_before_login", "line"),
        ("heartbeat_min", "heartbeat"),
        ("heartbeat", "heartbeat_max"),
        ("login_idle", "login_total"),
        ("page", "page_max"),
        ("packet", "reply"),
        ("messages_per_frame", "unconfirmed"),
        ("unconfirmed", "commit_queue"),
    ],
)
def test_settings_must_fit_each_other(file: Path, small: str, large: str) -> None:
    """Where one setting bounds another, the layer that broke it is named; equal is fine."""
    least = getattr(Config().limits, large) + 1
    line = error_in(file, f"[limits]\n{small}={least}")
    assert line == (
        f"pushd.toml: limits.{small}: {least} is more than limits.{large} ({least - 1}, default)"
    )
    most = getattr(Config().limits, small) - 1
    # A change of one may break a second pair; only ours is looked for.
    assert (
        f"PUSHD_LIMITS_{large.upper()}: limits.{large}: {most} is less than limits.{small}"
        f" ({most + 1}, default)"
    ) in errors(environ={f"PUSHD_LIMITS_{large.upper()}": str(most)})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[limits]\nquue_limit=5",
            "limits.quue_limit: unknown setting, did you mean one of queue.messages, queue.days,"
            " queue.device_days?",
        ),
        ("[queue]\nmesages=5", "queue.mesages: unknown setting, did you mean messages?"),
        ("[queue]\nmessages=-1", "queue.messages: must be from 1 to 100000000 (messages), not -1"),
        ("[queue]\nmessages='10k'", f"queue.messages: {WHOLE} 10k"),
        ("[queue]\nmessages=1e9", f"queue.messages: {WHOLE} 1000000000.0"),
        ("[queues]\nmessages=1", "queues: unknown section, did you mean queue?"),
        ("\t[queue]\n\tmessages\t=\t5\t# five\n", ""),
        ("\ufeff[queue]\nmessages=5\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_people_get_wrong(file: Path, text: str, line: str) -> None:
    """A misspelt or impossible setting never holds without a word; tabs and a BOM do no harm."""
    if line:
        assert error_in(file, text) == f"pushd.toml: {line}"
        return
    file.write_text(text, "utf-8")
    assert config.load(str(file), {}, {}).queue.messages == (5 if text else 10000)


@pytest.mark.parametrize(
    "listen",
    [
        ("0.0.0.0:1", "[::]:1"),
        ("127.0.0.1:1", "[::1]:1"),
        ("[fe80::1%eth0]:1", "[::1]:1"),
        (":1", "127.0.0.1:2"),
        (":0", "127.0.0.1:0"),
    ],
)
def test_addresses_beside_each_other(listen: tuple[str, ...]) -> None:
    """Both families stand together; only what is a part of another address is refused."""
    assert config.load(None, {"server.listen": listen}, {}).server.listen == listen


# What a reload takes over


def test_a_reload_keeps_what_needs_a_restart() -> None:
    """What changed is named, apart; the settings that result are the new ones where they may be."""
    running = Config(server=config.Server(backlog=1), limits=config.Limits(line=5000))
    fresh = Config(server=config.Server(backlog=2, stop_seconds=1.0), files=("a",))
    settings, changed, restart = config.adopt(running, fresh)
    assert settings == Config(server=config.Server(backlog=1, stop_seconds=1.0), files=("a",))
    assert changed == ["server.stop_seconds", "limits.line"]
    assert restart == ["server.backlog"]
    assert config.adopt(settings, settings) == (settings, [], [])


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9527", ("127.0.0.1", 9527)),
        ("localhost:0", ("localhost", 0)),
        ("my-host.example.org.:65535", ("my-host.example.org.", 65535)),
        ("[::1]:9527", ("::1", 9527)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        (":9527", ("", 9527)),
    ],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    """host:port, [v6]:port, :port for all addresses, and port 0."""
    assert config.parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the port is missing"),
        ("localhost", "the port is missing"),
        ("9527", "did you mean :9527?"),
        ("::1:9527", "did you mean [::1]:9527?"),
        ("::1", "did you mean [:]:1?"),
        ("[::1]", "the port must be"),
        ("[::g]:1", "no IPv6 address"),
        ("[127.0.0.1]:1", "no IPv6 address"),
        ("a:", "the port must be"),
        ("a:65536", "the port must be"),
        ("a:-1", "the port must be"),
        ("a:+1", "the port must be"),
        ("a:٣", "the port must be"),
        ("a:" + "9" * 5000, "the port must be"),
        ("127.0.0.999:1", "no host name"),
        ("1.2.3:1", "no host name"),
        ("a b:1", "no host name"),
        ("-a:1", "no host name"),
        ("a..b:1", "no host name"),
        ("a" * 64 + ":1", "no host name"),
        ("http://a:1", "brackets"),
    ],
)
def test_bad_addresses_say_what_is_wrong(text: str, words: str) -> None:
    """A mistake is told when the settings are read, not when the socket fails."""
    with pytest.raises(ValueError, match=re.escape(words)):
        config.parse_address(text)


@given(st.text(max_size=80))
def test_no_address_raises_anything_else(text: str) -> None:
    """Whatever is written there, the result is an address or a ValueError."""
    try:
        host, port = config.parse_address(text)
    except ValueError:
        return
    assert 0 <= port <= 65535
    assert host == host.strip()


def test_utc_needs_no_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare container has no tzdata; the default must work there."""
    monkeypatch.setattr(config.zoneinfo, "ZoneInfo", lambda _: pytest.fail("looked for data"))
    assert config.zone_of("UTC").utcoffset(None) is not None


# The shipped file


def test_the_shipped_file_changes_nothing(file: Path) -> None:
    """As shipped, everything is commented out."""
    file.write_text(config.default_text(), "utf-8")
    assert msgspec.structs.replace(config.load(str(file), {}, {}), files=()) == Config()


def test_the_shipped_file_shows_every_setting_and_its_default() -> None:
    """Uncommented, its lines are exactly the defaults of exactly the settings."""
    lines = config.default_text().splitlines()
    text = "\n".join(re.sub(r"^# ([a-z_]+ = )", r"\1", line) for line in lines)
    flat = {
        f"{section}.{key}": tuple(value) if isinstance(value, list) else value
        for section, table in tomllib.loads(text).items()
        for key, value in table.items()
    }
    assert flat == {key: setting.default for key, setting in config.SETTINGS.items()}


def test_the_shipped_file_is_that_of_the_settings() -> None:
    """To write it anew: make settings."""
    shipped = Path(__file__).parent.parent / "packaging" / "pushd.toml"
    assert shipped.read_text("utf-8") == config.default_text()


def test_the_shipped_file_says_what_a_reload_changes() -> None:
    """Each setting says when a change of it takes effect."""
    text = config.default_text()
    for setting in config.SETTINGS.values():
        effect = "(restart)" if setting.restart else "(live)"
        assert f"{effect}\n# {setting.key.partition('.')[2]} = " in text
        assert setting.describe().endswith(effect)


def test_every_number_has_a_unit_and_a_meaning() -> None:
    """A bare number in a settings file is a riddle."""
    for setting in config.SETTINGS.values():
        assert setting.text
        assert bool(setting.unit) == (setting.kind in (int, float)), setting.key
        assert (setting.low is None) == (setting.kind not in (int, float)), setting.key


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5))
def test_no_environment_raises_anything_else(environ: dict[str, str]) -> None:
    """Whatever stands in the environment, it is a Config or a ConfigError of whole lines."""
    prefixed = {f"PUSHD_LIMITS_{key}": value for key, value in environ.items()}
    try:
        config.load(None, {}, prefixed)
    except ConfigError as error:
        assert all(line.isprintable() for line in error.lines)


# TLS


def test_credentials(tmp_path: Path) -> None:
    """A bare name is a credential of systemd if there is one; a path and another name stay."""
    (tmp_path / "pushd.crt").touch()
    environ = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "PUSHD_TLS_CERTIFICATE": "pushd.crt",
        "PUSHD_TLS_KEY": "other.key",
    }
    loaded = config.load(str(empty(tmp_path)), {}, environ)
    assert loaded.tls.certificate == f"{tmp_path}/pushd.crt"
    assert loaded.tls.key == "other.key"
    environ["PUSHD_TLS_CERTIFICATE"] = "./pushd.crt"
    assert config.load(str(empty(tmp_path)), {}, environ).tls.certificate == "./pushd.crt"


def test_tls_needs_a_certificate(tmp_path: Path) -> None:
    """A listener for TLS without one is an error that names both settings."""
    with pytest.raises(ConfigError, match=r"tls\.listen: needs tls\.certificate"):
        config.load(str(empty(tmp_path)), {}, {"PUSHD_TLS_LISTEN": ":9528"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host:1", ("host", 1, False)),
        (":1", ("localhost", 1, False)),
        ("tls://host:1", ("host", 1, True)),
        ("tls://[::1]:1", ("::1", 1, True)),
    ],
)
def test_the_address_of_a_server(text: str, expected: tuple[str, int, bool]) -> None:
    """A server is reached in clear, or by TLS when the address says so."""
    assert config.parse_server(text) == expected


@pytest.mark.parametrize("text", ["ssl://host:1", "tls://host", "tls://", "http://host:80"])
def test_the_address_of_no_server(text: str) -> None:
    """Another scheme, or no port, is an error."""
    with pytest.raises(ValueError):
        config.parse_server(text)


def empty(folder: Path) -> Path:
    """A settings file that sets nothing."""
    file = folder / "empty.toml"
    file.touch()
    return file
