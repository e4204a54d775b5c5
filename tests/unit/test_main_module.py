"""`python -m quarry`: which command, and with what."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec

import pytest

import quarry
from quarry.__main__ import COMMANDS, main
from quarry.sweep import listing


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What would have been started: module, name, arguments."""
    found: list[object] = []

    def run_module(module: str, *, run_name: str, alter_sys: bool) -> None:
        assert alter_sys, "launchers read sys.modules['__main__']"
        found.extend([module, run_name, sys.argv[1:]])

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setattr(sys, "argv", ["__main__.py", "given", "to", "main"])
    return found


def test_a_command_gets_the_other_arguments(started: list[object]) -> None:
    main(["eval", "model.path=DIR", "--cfg", "job"])
    assert started == ["quarry.cli.eval", "__main__", ["model.path=DIR", "--cfg", "job"]]


def test_help_of_a_command_is_its_own(started: list[object]) -> None:
    main(["train", "--help"])
    assert started == ["quarry.cli.train", "__main__", ["--help"]]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(
    arguments: list[str], started: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert started == []


def test_the_version_alone(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"{quarry.__version__}\n"


@pytest.mark.parametrize(
    ("name", "fix"),
    [("evla", "python -m quarry eval"), ("seed=1", "python -m quarry train seed=1")],
)
def test_an_unknown_command_names_the_one_that_is_meant(
    name: str, fix: str, started: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name])
    assert caught.value.code == 2
    assert f"{name}: no command" in (error := capsys.readouterr().err)
    assert error.rstrip().endswith(f"Fix: {fix}")
    assert started == []


def test_every_command_is_a_module() -> None:
    assert all(find_spec(module) for module, _ in COMMANDS.values())


@pytest.mark.parametrize("arguments", [["bogus"], ["study=tiny"]])
def test_the_list_of_studies_takes_no_arguments(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["listing.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        listing.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert f"{arguments[0]}: " in error
    assert "study=NAME" in error.partition("Fix: ")[2]
