"""Sweeps as users start them: a process for each job, failures, kills, going on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from helpers.commands import SMALL, Result, run_command
from helpers.sweeps import StartedSweep, commands_started, counted, jobs_of

Environment = dict[str, str]

pytestmark = pytest.mark.timeout(240)

UNEVALUATED = (
    *(one for one in SMALL if not one.startswith("benchmark")),
    "benchmark=none", "logger=none", "callbacks.last_checkpoint.every_n_steps=1",
)  # fmt: skip


def test_a_job_of_two_devices_has_one_directory_and_a_failed_one_ends_itself_alone(
    environment: Environment, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    result = run_command(
        "train.py", "-m", "model.path=/nowhere,null", "trainer.devices=2", "strategy=ddp",
        "trainer.max_steps=2", *UNEVALUATED, f"hydra.sweep.dir={folder}",
        environment=counted(environment, tmp_path / "count"), timeout_s=150,
    )  # fmt: skip
    jobs = jobs_of(folder)
    assert [job["status"] for job in jobs.values()] == ["failed", "finished"], result.err
    failed, good = jobs
    assert good == "model.path-null"
    assert result.code == 1
    error = result.err.split("\nError: ")[-1]
    assert error.startswith("1 of 2 jobs did not finish.")
    assert f"- {failed}: {jobs[failed]['error']}" in error
    assert "/nowhere" in jobs[failed]["error"]
    assert (folder / failed / "error.log").read_text()
    assert jobs[good]["result"] in result.out
    assert result.last_line == "study finished=1 failed=1 interrupted=0 queued=0"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {failed, good, ".locks"}
    assert not (folder / "multirun.yaml").exists()  # of Hydra's: secrets in the clear
    assert (folder / good / "model").exists()
    # the sweep, two processes of the good job, and of the other one as many as it came to
    commands = commands_started(tmp_path / "count", "train.py")
    of_job = [c for c in commands if any(f"study.job={good}" in part for part in c)]
    assert len(of_job) == 2
    assert sum("-m" in command for command in commands) == 1
    assert 4 <= len(commands) <= 5
    (first,) = [c for c in of_job if c[-1] == "hydra.mode=RUN"]
    assert "study.name=sweep" in first
    stored = yaml.safe_load((folder / good / "config_resolved.yaml").read_text())
    assert stored["study"] == {"name": "sweep", "job": good, "resume": False}


def test_a_sweep_that_is_stopped_and_killed_goes_on_where_it_was(
    command: Callable[..., Result], environment: Environment, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    overrides = (
        "-m", "seed=1,2", "trainer.max_steps=60", *UNEVALUATED, f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    checkpoints = [folder / f"seed-{seed}" / "checkpoints" / "last.ckpt" for seed in (1, 2)]
    start = partial(StartedSweep, "train.py", environment=environment)

    sweep = start(*overrides)
    said = sweep.stopped_when(checkpoints[0].exists, signal.SIGTERM)
    assert sweep.process.returncode == 130
    assert "Interrupted: 0 of 2 jobs are finished." in said
    assert f"study.resume=true hydra.sweep.dir={folder}" in said
    assert [job["status"] for job in jobs_of(folder).values()] == ["interrupted", "queued"]

    sweep = start(*overrides, "study.resume=true")
    sweep.stopped_when(checkpoints[1].exists, signal.SIGKILL)
    first, second = jobs_of(folder).values()
    assert (first["status"], first["attempts"]) == ("finished", 2)
    assert second["status"] == "running"  # nobody could say anything else
    provenance = json.loads((folder / "seed-1" / "provenance.json").read_text())
    assert len(provenance["resumed"]) == 1

    result = command("train.py", *overrides, "study.resume=true")
    assert result.code == 0, result.err
    first, second = jobs_of(folder).values()
    assert (first["status"], first["attempts"]) == ("finished", 2)
    assert (second["status"], second["attempts"]) == ("finished", 2)
    assert (folder / "seed-2" / "model").exists()
