"""Real commands on a very small model: what a user types, with the time that it may take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import ROOT, SMALL, Result


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One cache for all commands; no network, no account, one thread (so that bits can agree)."""
    folder = tmp_path_factory.mktemp("quarry")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HF_", "QUARRY"))}
    return kept | {
        "QUARRY_CACHE": str(folder / "cache"),
        "QUARRY_RUNS": str(folder / "runs"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),  # no ~/.netrc with a W&B key
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Callable[..., Result]:
    """Runs `python SCRIPT OVERRIDES...` from another directory, at most two minutes."""

    def run(script: str, *overrides: str) -> Result:
        process = subprocess.run(
            [sys.executable, str(ROOT / script), *overrides],
            cwd=environment["HOME"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Result(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="session")
def trained(command: Callable[..., Result], environment: dict[str, str]) -> tuple[Path, Result]:
    """The run directory of one short training run with the default logger, and its output."""
    run = Path(environment["QUARRY_RUNS"]) / "trained"
    result = command(
        "train.py", *SMALL, "trainer.max_steps=6", "evaluation.every_n_steps=2",
        "callbacks.last_checkpoint.every_n_steps=2", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 0, result.err
    return run, result
