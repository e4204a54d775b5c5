"""Real commands on a very small model: what a user types, with the time that it may take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from helpers.commands import SMALL, Result, quiet_environment, run_command, run_forked
from helpers.preloaded import PreloadedPython


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One cache for all commands."""
    return quiet_environment(tmp_path_factory.mktemp("quarry"))


@pytest.fixture(scope="session")
def command(
    environment: dict[str, str], preloaded_python: PreloadedPython
) -> Callable[..., Result]:
    """Runs `python SCRIPT OVERRIDES...`, at most two minutes, without the imports of libraries."""
    return partial(run_forked, preloaded_python, environment=environment, timeout_s=120)


@pytest.fixture(scope="session")
def trained(environment: dict[str, str]) -> tuple[Path, Result]:
    """The run directory of one short training run with the default logger, and its output."""
    run = Path(environment["QUARRY_RUNS"]) / "trained"
    result = run_command(
        "train.py", *SMALL, "trainer.max_steps=6", "evaluation.every_n_steps=2",
        "callbacks.last_checkpoint.every_n_steps=2", "tags=[mine]", f"hydra.run.dir={run}",
        environment=environment, timeout_s=120,
    )  # fmt: skip
    assert result.code == 0, result.err
    return run, result
