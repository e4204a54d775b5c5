"""The commands that the storm kills, what each continues with, and what it must leave."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.commands import SMALL
from helpers.study_runs import a_set, values_of, write_run_directory
from quarry.runtime.run_directory import RunDirectory
from quarry.types import Report

TIMES = ("seconds", "_s", "time", "date", "rate", "started", "finished", "memory", "rss")
"""Parts of names whose values differ from run to run."""

NO_LOGGER = ("logger=none",)

UNEVALUATED = (*(one for one in SMALL if not one.startswith("benchmark.")), "benchmark=none")


class Scenario(ABC):
    """A command that is killed again and again, until it ends.

    Attributes:
        name: of the kind, in the record.
        num_at_once: processes that run the command at the same time.
    """

    name: str
    num_at_once = 1

    def prepare(self, folder: Path) -> Path:
        """Return a new folder with what the command needs."""
        folder.mkdir(parents=True)
        return folder

    @abstractmethod
    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        """Return what is typed now: the script and its overrides."""

    def is_done(self, folder: Path) -> bool:
        """Return whether all is there, so that the command would refuse to run again."""
        return False

    @abstractmethod
    def outcome(self, folder: Path) -> dict[str, str]:
        """Return a digest of each result, by its name."""

    def debris(self, folder: Path) -> list[str]:
        """Return what must not be left after a command that was not killed."""
        return sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if is_temporary(path.relative_to(folder))
        )


def is_temporary(path: Path) -> bool:
    """Return whether a path looks like something unfinished; caches and locks do not."""
    name = path.name
    if "cache" in path.parts or name in (".lock", ".locks", ".hydra"):
        return False
    return name.startswith(".") or name.endswith((".tmp", ".old", ".partial"))


def digest(path: Path, *, trial: Path) -> str:
    """Return the SHA-256 of a file; of JSON, of what does not change from run to run.

    Args:
        trial: the folder of the trial, whose path is no part of it.
    """
    content = path.read_bytes().replace(str(trial).encode(), b"TRIAL")
    if path.suffix == ".json":
        content = json.dumps(_without_times(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def digests(trial: Path, below: str, *patterns: str) -> dict[str, str]:
    """Return the digests of the files that match in a folder of a trial, by their paths."""
    folder = trial / below
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): digest(path, trial=trial) for path in sorted(found)}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_times(each)
            for key, each in value.items()
            if not any(part in key for part in TIMES)
        }
    return [_without_times(each) for each in value] if isinstance(value, list) else value


class Train(Scenario):
    """Training with evaluations and checkpoints; killed runs are resumed."""

    name = "train"

    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        run = folder / "run"
        logger = () if is_real else NO_LOGGER
        if RunDirectory(run).has_checkpoint:
            return ["train.py", "task=resume", f"run={run}", *logger]
        shutil.rmtree(run, ignore_errors=True)  # before its first checkpoint: as the message says
        return [
            "train.py", *SMALL, "trainer.max_steps=6", "evaluation.every_n_steps=3",
            "callbacks.last_checkpoint.every_n_steps=1", f"hydra.run.dir={run}", *logger,
        ]  # fmt: skip

    def outcome(self, folder: Path) -> dict[str, str]:
        return digests(
            folder, "run", "model/*.safetensors", "model/*.json", "metrics.json", "per_query/*",
            "runs/*", "learning_curve.json",
        )  # fmt: skip


class Pair(Train):
    """Two processes that continue the same run; one is killed."""

    name = "two processes"
    num_at_once = 2


class OfTrained(Scenario):
    """A command that reads a finished run.

    Args:
        trained: the run directory, which is copied.
    """

    def __init__(self, trained: Path) -> None:
        self.trained = trained

    def prepare(self, folder: Path) -> Path:
        shutil.copytree(self.trained, super().prepare(folder) / "run", symlinks=True)
        return folder


class Export(OfTrained):
    """Export of a trained model."""

    name = "export"

    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        return ["train.py", "task=export", f"run={folder / 'run'}"]

    def is_done(self, folder: Path) -> bool:
        return (folder / "run" / "export").exists()

    def outcome(self, folder: Path) -> dict[str, str]:
        return digests(folder, "run", "export/**/*.safetensors", "export/**/*.json")


class Encode(OfTrained):
    """A zero-shot evaluation with a store of its own that begins empty."""

    name = "encode"

    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        shutil.rmtree(folder / "result", ignore_errors=True)
        return [
            "eval.py", f"model.path={folder / 'run' / 'model'}", "benchmark.split=dev",
            "baseline=none", f"paths.cache_dir={folder / 'cache'}",
            "evaluation.max_tokens_per_batch=512", f"hydra.run.dir={folder / 'result'}",
            *(() if is_real else NO_LOGGER),
        ]  # fmt: skip

    def outcome(self, folder: Path) -> dict[str, str]:
        return digests(folder, "result", "metrics.json", "per_query/*", "runs/*")

    def debris(self, folder: Path) -> list[str]:
        unfinished = [str(path) for path in (folder / "cache").rglob("*.tmp")]
        return super().debris(folder / "result") + unfinished


class WriteReport(Scenario):
    """The report of a study."""

    name = "report"

    def prepare(self, folder: Path) -> Path:
        study = super().prepare(folder) / "study"
        for model, quality in (("qwen-base", 0.3), ("qwen-coder", 0.6)):
            reports = [
                Report(
                    retriever=name,
                    results=tuple(
                        a_set(s, values_of(value, num_queries=40, seed=seed))
                        for s, seed in (("alpha", 11), ("beta", 21))
                    ),
                )
                for name, value in (("bm25", 0.3), ("dense", quality))
            ]
            write_run_directory(study / model, reports, model=model)
        return folder

    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        return ["eval.py", "task=report", f"runs=[{folder / 'study'}]"]

    def outcome(self, folder: Path) -> dict[str, str]:
        return digests(folder, "study/report", "*.md", "*.csv", "*.json")


class Sweep(Scenario):
    """A sweep of two jobs, continued by `study.resume=true`."""

    name = "sweep"

    def command(self, folder: Path, *, is_real: bool) -> list[str]:
        sweep = folder / "sweep"
        return [
            "train.py", "-m", "seed=1,2", *UNEVALUATED, "trainer.max_steps=3",
            "callbacks.last_checkpoint.every_n_steps=1", "logger=none",
            f"hydra.sweep.dir={sweep}",
            *(("study.resume=true",) if (sweep / "study.json").exists() else ()),
        ]  # fmt: skip

    def outcome(self, folder: Path) -> dict[str, str]:
        return digests(folder, "sweep", "seed-*/model/*.safetensors")


def scenarios(trained: Path) -> dict[str, tuple[Scenario, float]]:
    """Return all scenarios by name, each with its share of the trials."""
    return {
        scenario.name: (scenario, share)
        for scenario, share in (
            (Train(), 0.30), (Export(trained), 0.20), (Encode(trained), 0.20),
            (WriteReport(), 0.12), (Pair(), 0.12), (Sweep(), 0.06),
        )
    }  # fmt: skip


def drawn(chosen: Sequence[tuple[Scenario, float]], chance: random.Random) -> Scenario:
    """Return a scenario, by the shares."""
    return chance.choices([one for one, _ in chosen], [share for _, share in chosen])[0]


if __name__ == "__main__":
    sys.exit("run tests/storm/kills.py")
