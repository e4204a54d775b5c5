"""A command that needs a library which is not installed names the pip command, in one line."""

from __future__ import annotations

import logging
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from hydra.errors import MissingConfigException

from quarry.errors import UserError
from quarry.runtime.entry import shows_user_errors
from quarry.runtime.extras import LIBRARIES, PLUGINS, can_draw, is_installed, require

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError) as caught:
        require("sentence_transformers", what="task=export")
    assert str(caught.value) == (
        "task=export needs sentence-transformers. Fix: pip install 'quarry-retrieval[export]'"
    )


def test_a_library_that_is_there_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    require("matplotlib", what="a plot")
    assert can_draw()


def test_a_library_that_is_broken_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text("import a_part_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_part_that_is_not_there"):
        is_installed("broken_library")


def test_without_matplotlib_one_line_says_that_there_are_no_plots(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.WARNING):
        assert not can_draw()
    (line,) = caplog.messages
    assert "No plots" in line
    assert line.endswith("Fix: pip install 'quarry-retrieval[plots]'")


@pytest.mark.parametrize(
    ("message", "option"),
    [
        ("In 'hydra/launcher/gpus': Could not load 'hydra/launcher/joblib'.", "launcher=joblib"),
        ("In 'x': could not find 'hydra/sweeper/optuna'\n\nAvailable:\n\tbasic", "sweeper=optuna"),
    ],
)
def test_a_plugin_of_hydra_that_is_missing_is_named(
    message: str,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit), shows_user_errors():
        raise MissingConfigException(message, missing_cfg_file="x")
    plugin = f"hydra-{option.split('=')[1]}-{option.split('=', maxsplit=1)[0]}"
    assert capsys.readouterr().err.strip() == (
        f"Error: hydra/{option} needs {plugin}. Fix: pip install 'quarry-retrieval[sweeps]'"
    )


def test_every_extra_has_its_library() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_plugins = [(plugin, "sweeps") for plugin in PLUGINS.values()]
    for library, extra in [*LIBRARIES.values(), *of_plugins]:
        assert any(each.startswith(library) for each in extras[extra]), library
    (in_all,) = extras["all"]
    assert set(in_all.split("[")[1].rstrip("]").split(",")) == set(extras) - {
        "loggers",
        "docs",
        "all",
        "dev",
    }
