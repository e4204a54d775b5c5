"""What the smoke tests and the slow ones type, and how it is run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.preloaded import PreloadedPython, Script

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    "model.replica.hidden_size=32",
    "model.replica.intermediate_size=64",
    "model.replica.num_heads=2",
    "model.replica.vocab_size=1024",
    "data.global_batch_size=16",
    "benchmark.split=dev",
    "trainer.log_every_n_steps=1",
)
"""A model and updates so small that a run takes a second or two beside the imports."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.rstrip().rsplit("\n", 1)[-1]


def quiet_environment(folder: Path) -> dict[str, str]:
    """Caches and runs in `folder`; no network, no account, one thread (so that bits can agree)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HF_", "QUARRY"))}
    return kept | {
        "QUARRY_CACHE": str(folder / "cache"),
        "QUARRY_RUNS": str(folder / "runs"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),  # no ~/.netrc with a W&B key
        "OMP_NUM_THREADS": "1",
    }


def run_command(
    script: str, *overrides: str, environment: Mapping[str, str], timeout_s: float
) -> Result:
    """Runs `python SCRIPT OVERRIDES...` from another directory."""
    process = subprocess.run(
        [sys.executable, str(ROOT / script), *overrides],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr)


def run_forked(
    python: PreloadedPython,
    script: str,
    *overrides: str,
    environment: Mapping[str, str],
    timeout_s: float,
) -> Result:
    """As `run_command`, without the imports of libraries: for all but the first of its kind."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        command = Script(
            arguments=[str(ROOT / script), *overrides],
            environment=environment,
            folder=environment["HOME"],
            out=str(out),
            err=str(err),
        )
        (code,) = python.run(command, timeout_s=timeout_s)
        texts = [path.read_text(encoding="utf-8") for path in (out, err)]
    if code is None:
        raise subprocess.TimeoutExpired(command.arguments, timeout_s, *texts)
    return Result(code, *texts)
