"""Two processes train and evaluate as one does, in one run directory; killed, they go on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.commands import ROOT, SMALL, Result

STEPS = (
    *SMALL, "logger=csv", "trainer.max_steps=12", "evaluation.every_n_steps=6",
    "loss.contrastive_batch_size=8",
    "data.grad_cache_chunk_tokens=200", "callbacks.last_checkpoint.every_n_steps=4",
)  # fmt: skip
"""Two contrastive batches a step, each in chunks."""

Command = Callable[..., Result]
Train = Callable[..., tuple[Path, Result]]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def train(command: Command, environment: dict[str, str]) -> Train:
    """Runs a training by its name, once; further overrides are those of the first call."""
    done: dict[str, tuple[Path, Result]] = {}

    def run(name: str, *overrides: str) -> tuple[Path, Result]:
        if name not in done:
            folder = Path(environment["QUARRY_RUNS"]) / name
            run_dir = f"hydra.run.dir={folder}"
            result = command("train.py", *STEPS, *overrides, run_dir, timeout_s=180)
            done[name] = folder, result
        return done[name]

    return run


def losses(run: Path) -> list[float]:
    with (run / "csv" / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def points(run: Path) -> list[float]:
    """The learning curve."""
    key = "val/stdlib_code/ndcg_at_10"
    with (run / "csv" / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row[key]]


def reached(result: Result) -> dict[str, float]:
    """What the result line says: retriever -> nDCG@10."""
    pairs = (part.split("=") for part in result.last_line.split()[1:])
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_two_processes_train_as_one_does(strategy: str, train: Train) -> None:
    one, first = train("one-process")
    more = ["evaluation.corpus_on_disk=true"] if strategy == "zero3" else []
    two, second = train(strategy, "trainer.devices=2", f"strategy={strategy}", *more)
    assert first.code == 0, first.err
    assert second.code == 0, second.err
    assert len(losses(one)) == 12
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert reached(second) == pytest.approx(reached(first), abs=2e-3)
    assert points(two) == pytest.approx(points(one), abs=2e-3)
    assert len(points(one)) == 3
    expected, found = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=2e-4)


def test_one_run_directory_and_every_message_once(train: Train) -> None:
    run, result = train("zero2", "trainer.devices=2", "strategy=zero2")
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.yaml", "config_resolved.yaml", "provenance.json", "run.log", "checkpoints",
        "model", "csv", "metrics.json", "report.md", "per_query", "runs", "plots",
        "summary.json", "learning_curve.json", ".lock",
    }  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["cost"]["num_devices"] == 2
    assert result.out.count("Run directory:") == 1
    assert result.err.count("Run directory:") + result.out.count("INFO Run directory:") <= 1
    assert "Traceback" not in result.err
    assert {p.name for p in run.parent.iterdir() if p.name.startswith("zero2")} == {"zero2"}


@pytest.fixture(scope="module")
def evaluate(train: Train, command: Command, environment: dict[str, str]) -> Callable[..., bytes]:
    """The ranking that eval.py makes of the model of one process, and keeps in a store of its own.

    Each of a name once.
    """
    run, _ = train("one-process")
    done: dict[str, bytes] = {}

    def rank(name: str, *overrides: str) -> bytes:
        if name not in done:
            folder = Path(environment["QUARRY_RUNS"]) / f"eval-{name}"
            result = command(
                "eval.py", f"model.path={run}", "logger=none", "benchmark.split=dev", *overrides,
                f"paths.store_dir={folder}-store", f"hydra.run.dir={folder}",
            )  # fmt: skip
            assert result.code == 0, result.err
            assert result.out.count("Run directory:") == 1
            (ranking,) = (folder / "runs").iterdir()
            done[name] = ranking.read_bytes()
        return done[name]

    return rank


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_eval_ranks_in_two_processes_as_in_one(
    strategy: str, evaluate: Callable[..., bytes]
) -> None:
    two = evaluate(strategy, "trainer.devices=2", f"strategy={strategy}")
    assert two == evaluate("one")


def test_killed_while_shards_are_written_exported_and_resumed(
    train: Train, command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    whole, _ = train("zero3", "trainer.devices=2", "strategy=zero3")
    run = tmp_path / "killed"
    mark = run / "mark"  # a resumed run writes below its directory alone
    callback = "helpers.killed_saving.KillWhileSaving"
    path = os.pathsep.join([str(ROOT / "tests"), environment.get("PYTHONPATH", "")])
    environment = environment | {"PYTHONPATH": path}
    process = start_training(
        environment, run, *STEPS, "logger=none",
        "trainer.devices=2", "strategy=zero3", f"+callbacks.killer._target_={callback}",
        "+callbacks.killer.name=.step-8.tmp", f"+callbacks.killer.mark={mark}",
    )  # fmt: skip
    try:
        code = process.wait(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert mark.exists(), "killed too early to show anything"
    checkpoints = run / "checkpoints"
    assert (checkpoints / "last.ckpt").resolve().name == "last.ckpt.step-4"
    assert (checkpoints / ".step-8.tmp").exists()
    assert not (run / "model").exists()
    command = partial(command, environment=environment, timeout_s=180)

    trusted = "trusted_packages=[helpers]"  # the killing callback stands in its configuration
    exported = command("train.py", "task=export", f"run={run}", trusted)
    assert exported.code == 0, exported.err
    assert "was stopped before its end" in exported.out + exported.err
    assert (run / "export" / "model.safetensors").exists()
    early = load_file(run / "model" / "model.safetensors")

    result = command("train.py", "task=resume", f"run={run}", trusted, "logger=none")
    assert result.code == 0, result.err
    expected, found = (load_file(r / "model" / "model.safetensors") for r in (whole, run))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert not all(torch.equal(early[name], weight) for name, weight in expected.items())
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "last.ckpt.step-12"}


def start_training(
    environment: dict[str, str], run: Path, *overrides: str
) -> subprocess.Popen[bytes]:
    """A training whose processes are a group of their own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={run}"],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
