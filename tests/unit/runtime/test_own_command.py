"""Messages name the command in the way that its user has started it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from quarry.runtime import own_command as module
from quarry.runtime.own_command import own_command, restarted
from quarry.runtime.shipped_files import PACKAGE

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        (str(CHECKOUT / "train.py"), "python eval.py"),
        ("eval.py", "python eval.py"),
        ("/work/mine/train.py", "quarry-eval"),  # a script of the user
        ("/venv/bin/quarry-train", "quarry-eval"),
        (str(PACKAGE / "cli" / "train.py"), "python -m quarry eval"),
        ("/usr/bin/pytest", "python eval.py"),  # this is a checkout
    ],
)
def test_the_command_as_it_was_started(
    started: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started, "seed=1"])
    monkeypatch.chdir(CHECKOUT)
    assert own_command("eval") == expected


def test_the_list_of_studies_says_what_works_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(PACKAGE / "sweep" / "listing.py")])
    monkeypatch.chdir(CHECKOUT)
    assert own_command("train") == "python train.py"
    monkeypatch.chdir(tmp_path)
    assert own_command("train") == "python -m quarry train"


def test_without_a_checkout_a_notebook_gets_the_console_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "shipped", lambda name: tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["/venv/bin/jupyter"])
    assert own_command("train") == "quarry-train"


def test_a_script_is_started_again_by_its_path_and_a_module_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/quarry-train", "seed=1"])
    assert restarted() == (sys.executable, str(tmp_path / "bin" / "quarry-train"))
    main.__spec__ = ModuleSpec("quarry.cli.train", None)
    assert restarted() == (sys.executable, "-m", "quarry.cli.train")
