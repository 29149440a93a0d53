"""One run of libFuzzer over one target, in a process of its own: `… child TARGET FOLDER FLAGS`.

FOLDER holds the corpus, which grows. The process ends as libFuzzer ends it: 0 when the time is
over, else with the input that did it written where the flags say. `replay` runs a corpus once and
tells which lines of some modules it reached, which libFuzzer cannot.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# What is measured: all of these modules, the first up to the part that encodes replies.
DECODER = ("pushd/protocol.py", "pushd/draft.py")
ENCODING = "# --- encoding"
# What guides a target: the less of it, the faster it runs.
GUIDES = {"lines": ["pushd.protocol", "pushd.draft", "pushd.names"], "core": ["pushd"]}


def fuzz(target: str, flags: Sequence[str]) -> None:
    """Run until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=GUIDES[target]):
        from tests.fuzz import targets
    if target == "lines":
        # So that short lines are nested too deeply.
        sys.setrecursionlimit(200)
    atheris.Setup([sys.argv[0], *flags], targets.TARGETS[target])
    atheris.Fuzz()


def replay(target: str, folder: Path) -> dict[str, tuple[int, int]]:
    """Run all inputs of a corpus once; give the lines reached, and those there are, by module."""
    import coverage

    modules = [f"*/{name}" for name in DECODER]
    watcher = coverage.Coverage(data_file=None, config_file=False, include=modules)
    watcher.start()
    sys.setrecursionlimit(400)
    try:
        from tests.fuzz import targets

        for file in sorted(folder.iterdir()):
            targets.TARGETS[target](file.read_bytes())
    finally:
        watcher.stop()
    found = {}
    for name in sorted(watcher.get_data().measured_files()):
        _, there, _, missed, _ = watcher.analysis2(name)
        texts = Path(name).read_text().splitlines()
        end = next((n for n, text in enumerate(texts) if text.startswith(ENCODING)), len(texts))
        lines, missing = [n for n in there if n <= end], [n for n in missed if n <= end]
        found[Path(name).name] = (len(lines) - len(missing), len(lines))
        print(Path(name).name, len(lines) - len(missing), len(lines), missing, flush=True)
    return found


if __name__ == "__main__":
    verb, chosen, corpus, *rest = sys.argv[1:]
    if verb == "replay":
        replay(chosen, Path(corpus))
    else:
        fuzz(chosen, [corpus, *rest])
