"""What `helpers/preloaded.py` runs is a script as Python runs it, but for imports of libraries."""

from __future__ import annotations

import os
from pathlib import Path

from helpers.preloaded import PreloadedPython, Script

SCRIPT = """
import atexit, os, sys
assert __name__ == "__main__" and sys.modules["__main__"].__file__ == sys.argv[0]
assert "torch" in sys.modules and not any(name.startswith("quarry") for name in sys.modules)
assert (os.environ["OWN"], os.getcwd()) == ("1", os.path.dirname(sys.argv[0]))
assert sys.stdin.read() == ""
import beside
atexit.register(print, "at exit")
print(*sys.argv[1:])
sys.exit(int(sys.argv[1]))
"""


def script(folder: Path, text: str, name: str, *arguments: str) -> Script:
    path = folder / "script.py"
    path.write_text(text)
    (folder / "beside.py").touch()
    return Script(
        arguments=[str(path), *arguments],
        environment={**os.environ, "OWN": "1"},
        folder=str(folder),
        out=str(folder / f"{name}.out"),
        err=str(folder / f"{name}.err"),
    )


def test_a_script_has_its_own_process_and_ends_as_python_does(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    codes = [
        preloaded_python.run(script(tmp_path, SCRIPT, code, code, "more"), timeout_s=60)
        for code in ("0", "3")
    ]
    assert codes == [[0], [3]], (tmp_path / "0.err").read_text()
    assert (tmp_path / "3.out").read_text() == "3 more\nat exit\n"
    assert (tmp_path / "3.err").read_text() == ""
    assert preloaded_python.run(script(tmp_path, "1 / 0", "bad"), timeout_s=60) == [1]
    assert (tmp_path / "bad.err").read_text().endswith("\nZeroDivisionError: division by zero\n")


def test_nobody_waits_for_the_others_of_one_that_failed_or_longer_than_was_said(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    text = "import sys, time; sys.exit(5) if sys.argv[1] == 'bad' else time.sleep(600)"
    waits, fails = (script(tmp_path, text, name, name) for name in ("good", "bad"))
    assert preloaded_python.run(waits, fails, timeout_s=60) == [None, 5]
    assert preloaded_python.run(waits, timeout_s=0.1) == [None]
