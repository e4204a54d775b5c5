"""The sbatch script of docs/distributed.md continues by itself; SLURM's commands are stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from helpers.commands import ROOT

STAND_IN = '#!/bin/sh\necho "${0##*/} $*" >> "$HOME/called"\n[ "${0##*/}" != srun ] || exit $CODE\n'


@pytest.fixture
def script() -> str:
    text = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    (found,) = [block for block in blocks if "#SBATCH" in block]
    return "\n".join(line.removeprefix("  ") for line in found.splitlines())


def calls(script: str, home: Path, *, code: int) -> list[str]:
    """What the script calls where training ends with an exit code."""
    commands = home / "bin"
    commands.mkdir(exist_ok=True)
    for name in ("srun", "scontrol"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    environment = {
        "HOME": str(home),
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "CODE": str(code),
    }
    subprocess.run(["bash", "-c", script], env=environment, check=False, timeout=20)
    called = (home / "called").read_text().splitlines()
    (home / "called").unlink()
    return called


def test_the_job_is_queued_again_and_continues(script: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "train" / "coder"
    start = "srun --kill-on-bad-exit=1 python train.py model=qwen-coder"
    first, again = calls(script, tmp_path, code=143)
    assert first.startswith(start)
    assert first.endswith(f"hydra.run.dir={run}")
    assert again == "scontrol requeue 7"
    run.mkdir(parents=True)  # ended before the first checkpoint
    assert calls(script, tmp_path, code=143) == [first, again]
    assert not run.exists()
    assert len(list(run.parent.iterdir())) == 1
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    resumed = f"srun --kill-on-bad-exit=1 python train.py task=resume run={run}"
    assert calls(script, tmp_path, code=143) == [resumed, again]


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_what_is_finished_or_failed_is_not_queued_again(
    script: str, tmp_path: Path, code: int
) -> None:
    assert len(calls(script, tmp_path, code=code)) == 1


def test_every_task_receives_the_signal(script: str) -> None:
    assert "#SBATCH --signal=TERM@" in script  # with B: the script alone would
    assert "#SBATCH --requeue" in script
