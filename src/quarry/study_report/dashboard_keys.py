"""Collect what runs have logged to Weights & Biases: the keys that panels may name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from quarry.errors import UserError
from quarry.runtime.renamed_keys import with_renamed_keys
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.settings import Settings, flattened, is_in, relevant
from quarry.tasks.summary import SETS_TABLE, flat_summary
from quarry.training.evaluation_log import EXAMPLES_TABLE, MEAN, measure_key

OF_TRAINING = ("train/loss", "train/learning_rate")
"""Logged by every training run."""

OF_CALLBACKS = {
    "callbacks.stop_on_divergence": ("train/gradient_norm",),
    "callbacks.throughput": ("perf/tokens_per_s", "perf/queries_per_s"),
}
"""Callback -> what it logs; on a GPU the second also logs `OF_A_GPU`."""

OF_A_GPU = ("perf/gpu_memory_share", "perf/peak_memory_gib")

MAX_AXES = 8
"""Settings on the axes of parallel coordinates."""


@dataclass(frozen=True, kw_only=True)
class LoggedKeys:
    """Keys that at least one of the runs has logged.

    Attributes:
        measure: the first one that most runs have values of, as logs call it.
        sets: names of sets and groups with a value of it, without the mean.
        history: keys with a value for each step.
        summary: keys of the runs' summaries.
        tables: tables in the runs' summaries.
        swept: settings that differ between the runs.
    """

    measure: str
    sets: tuple[str, ...]
    history: frozenset[str]
    summary: frozenset[str]
    tables: frozenset[str]
    swept: tuple[str, ...]

    @property
    def mean(self) -> str:
        """Return the key of a summary for the mean over all sets."""
        return f"results/{MEAN}/{self.measure}"


def logged_keys(directories: Sequence[Path]) -> LoggedKeys:
    """Return the keys that the runs in these directories have logged.

    Raises:
        UserError: no run was logged to W&B, or none has a summary.
    """
    logged = [path for path in directories if RunDirectory(path).wandb_run.is_file()]
    if not logged:
        raise UserError(
            f"runs: none of the {len(directories)} run directories was logged to W&B (no "
            "wandb_run.json). Fix: run them with logger=wandb"
        )
    settings: list[Settings] = []
    history: set[str] = set()
    summary: set[str] = set()
    tables: set[str] = set()
    measured: dict[str, int] = {}
    for path in logged:
        run = RunDirectory(path)
        own = _settings(run)
        settings.append(own)
        if not run.summary.is_file():
            continue
        flat = flat_summary(json.loads(run.summary.read_text(encoding="utf-8")))
        summary |= flat.keys()
        for measure in map(measure_key, json.loads(own.get("evaluation.measures", "[]"))):
            has_values = any(_is_of(key, measure) for key in flat)
            measured[measure] = measured.get(measure, 0) + has_values
        history |= _history(own, list(flat), is_on_gpu=bool(flat.get("cost/gpu_hours")))
        if any(key.startswith("results/") and key.count("/") == 2 for key in flat):
            tables.add(SETS_TABLE)
            if own.get("evaluation.num_examples", "0") != "0":
                tables.add(EXAMPLES_TABLE)
    if not measured:
        raise UserError("runs: none of the run directories has a summary.json: has any ended?")
    measure = max(measured, key=lambda name: measured[name])  # of equal ones the first
    names = [key.split("/")[1] for key in sorted(summary) if _is_of(key, measure)]
    return LoggedKeys(
        measure=measure,
        sets=tuple(name for name in names if name != MEAN),
        history=frozenset(history),
        summary=frozenset(summary),
        tables=frozenset(tables),
        swept=_swept(settings),
    )


def _settings(run: RunDirectory) -> Settings:
    stored = yaml.safe_load(run.resolved_config.read_text(encoding="utf-8"))
    return flattened(with_renamed_keys(stored))


def project_of(directories: Sequence[Path]) -> str:
    """Return the W&B project of the first run that was logged.

    Raises:
        UserError: the runs were logged to several projects.
    """
    files = [RunDirectory(path).wandb_run for path in directories]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    found = {str(json.loads(text)["project"]) for text in texts}
    if len(found) > 1:
        raise UserError(
            f"runs: they are in the projects {', '.join(sorted(found))}. Fix: task.project=NAME, "
            "or fewer runs"
        )
    return next(iter(found), "quarry")


def _history(settings: Settings, summary: Sequence[str], *, is_on_gpu: bool) -> set[str]:
    names = [key.removeprefix("results/") for key in summary if key.startswith("results/")]
    found = {f"val/{name}" for name in names if name.count("/") == 1 and "train/" not in name}
    if not any(key.startswith("optimizer.") for key in settings):
        return found
    found |= set(OF_TRAINING)
    for callback, keys in OF_CALLBACKS.items():
        if any(is_in(key, (callback,)) for key in settings):
            found |= set(keys)
            found |= set(OF_A_GPU) if is_on_gpu and "perf/tokens_per_s" in keys else set()
    return found


def _is_of(key: str, measure: str) -> bool:
    parts = key.split("/")
    return len(parts) == 3 and parts[0] == "results" and parts[2] == measure


def _swept(settings: Sequence[Settings]) -> tuple[str, ...]:
    """Return numbers of the configuration that differ between runs, at most `MAX_AXES`."""
    shown = [relevant(each, "supervised") for each in settings]
    keys = sorted({key for each in shown for key in each})
    varying = [key for key in keys if len({each.get(key) for each in shown}) > 1]
    numbers = [key for key in varying if any(_is_number(each.get(key)) for each in shown)]
    return tuple(numbers[:MAX_AXES])


def _is_number(text: str | None) -> bool:
    value = None if text is None else json.loads(text)
    return isinstance(value, int | float) and not isinstance(value, bool)
