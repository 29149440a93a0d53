"""Whatever stands in a settings file or the environment: good settings, or clear lines."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pushd import config
from pushd.cli import BAD_CONFIG, pushd
from pushd.errors import ConfigError
from tests.fuzz import values
from tests.fuzz.examples import examples, tried

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEYS = sorted(config.SETTINGS)
SECTIONS = sorted({key.partition(".")[0] for key in KEYS})

word = st.sampled_from(
    ["10k", "1e9", "true", "", "0", "-1", "UTC", "../..", "[::1]:1", ":99999", "debug", "\u0661"]
)
scalar = st.one_of(
    st.integers().map(str),
    st.sampled_from(["true", "false", "1.5", "inf", "nan", "-0.0", "1e400", "0x10", "1979-05-27"]),
    st.sampled_from(["07:32:00", "1979-05-27T07:32:00Z", "9" * 400, "[]", "{}", "[[1]]", "{a=1}"]),
    (word | values.texts).map(lambda text: f'"{escaped(text)}"'),
    (word | values.texts).map(lambda text: f'["{escaped(text)}"]'),
)


def escaped(text: str) -> str:
    """Write a text as TOML has it."""
    return "".join(f"\\U{ord(letter):08x}" for letter in text)


pair = st.builds(
    "{} = {}\n".format, st.sampled_from([key.partition(".")[2] for key in KEYS]), scalar
)
dotted = st.builds("{} = {}\n".format, st.sampled_from([*KEYS, *SECTIONS, "quue.limit"]), scalar)
section = st.builds("[{}]\n".format, st.sampled_from([*SECTIONS, "quue", "server.listen", "'x'"]))
files = st.lists(section | pair | dotted | st.text(max_size=20), max_size=6).map("".join)
raw = st.binary(max_size=60) | files.map(lambda text: text.encode("utf-8", "replace"))
raw |= files.map(lambda text: b"\xef\xbb\xbf" + text.encode("utf-8", "replace"))
variables = st.dictionaries(
    st.sampled_from([f"PUSHD_{key.replace('.', '_').upper()}" for key in KEYS] + ["PUSHD_QUUE"]),
    word | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    max_size=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are written."""
    return tmp_path_factory.mktemp("settings")


def load(file: Path, environment: dict[str, str]) -> list[str]:
    """Load settings; give the lines that say why they cannot be."""
    flags: dict[str, Any] = {}
    try:
        config.load(str(file), flags, environment)
    except ConfigError as problem:
        return list(problem.lines)
    return []


@examples(150)
@given(data=raw, environment=variables)
def test_property_any_settings(folder: Path, data: bytes, environment: dict[str, str]) -> None:
    """Settings that cannot be are told in lines of text, each of them one line."""
    tried("any settings file and environment")
    file = folder / "pushd.toml"
    file.write_bytes(data)
    for line in load(file, environment):
        assert line.strip()
        assert line.isprintable(), repr(line)
        assert "Traceback" not in line


@examples(30)
@given(data=raw)
def test_property_any_file_at_start(folder: Path, data: bytes) -> None:
    """`pushd --check-config` ends with 78 and clear lines, or says that the settings are good."""
    tried("any settings file at the start")
    file = folder / "checked.toml"
    file.write_bytes(data)
    words = ["--check-config", "-c", str(file), "--data", str(folder)]
    done = CliRunner().invoke(pushd, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, BAD_CONFIG), done.output
    if done.exit_code:
        assert done.stderr.strip()
        assert "Traceback" not in done.output
