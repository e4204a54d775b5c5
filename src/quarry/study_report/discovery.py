"""Find the run directories of a report: named ones, those of a pattern, or the jobs of a study."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarry.errors import MissingPathError
from quarry.runtime.own_command import own_command
from quarry.runtime.run_directory import RunDirectory
from quarry.sweep.record import STUDY_FILE, JobRecord, StudyRecord

logger = logging.getLogger(__name__)

REPORT_FILE = "report.json"
"""File in a report's folder; such a folder is no run directory, and patterns skip it."""

MAX_DEPTH = 3
"""Depth to which a folder is searched for run directories: STUDY/SWEEP/JOB."""


@dataclass(frozen=True, kw_only=True)
class FoundRuns:
    """Run directories of a report, with and without results.

    Attributes:
        directories: run directories with results, in order.
        unfinished: run directory without results -> the reason; its values are missing.
        remarks: other problems, such as failed jobs without a run directory, a sentence each.
        study: the one folder that was named, if all runs are below it; else None.
    """

    directories: tuple[Path, ...]
    unfinished: Mapping[Path, str]
    remarks: tuple[str, ...] = ()
    study: Path | None = None


def find_runs(patterns: Sequence[str]) -> FoundRuns:
    """Return the run directories that paths and patterns (`runs/eval/*`) match, each once.

    A folder that is no run directory stands for those below it, a study for its jobs. If it has a
    `study.json`, that tells why a job has no results.

    Raises:
        MissingPathError: nothing matches, a folder has no run directory, or no run directory has
            results.
        UserError: a `study.json` is malformed.
    """
    reasons: dict[Path, str | None] = {}
    remarks: list[str] = []
    folders: list[Path] = []
    for pattern in patterns:
        for path in _matching(pattern):
            if is_run(path):
                reasons.setdefault(path, None)
                continue
            folders.append(path)
            jobs = _jobs_of(path)
            known = {job.directory: job for job in jobs}
            below = list(_runs_below(path, MAX_DEPTH))
            if not below and not jobs:
                raise MissingPathError(
                    f"runs: {path} is no run directory, and there is none below it. A run "
                    f"directory has {RunDirectory(path).resolved_config.name}. Fix: name one, or "
                    "a folder of run directories."
                )
            for directory in below:
                reasons[directory] = known[directory].problem if directory in known else None
            remarks += [job.remark for job in jobs if job.directory not in below and job.problem]
    dry_runs = [path for path in reasons if is_dry_run(path)]
    if dry_runs:
        logger.info("%d dry runs (debug=..., trainer.fast_dev_run) are left out", len(dry_runs))
        if len(dry_runs) == len(reasons):
            raise MissingPathError(
                f"runs: all {len(dry_runs)} run directories are dry runs (debug=..., "
                "trainer.fast_dev_run), which are not reported. Fix: name other runs."
            )
    reasons = {path: why for path, why in reasons.items() if path not in dry_runs}
    return _sorted_out(reasons, remarks, folders if len(patterns) == 1 else [])


def newest_study(studies: Path) -> Path:
    """Return the study that was started or changed last.

    Raises:
        MissingPathError: there is none.
    """
    found = [path for path in studies.glob("*") if path.is_dir() and any(_runs_below(path, 3))]
    if not found:
        raise MissingPathError(
            f"There are no runs to report: {studies} has no study yet. Fix: run one, or name run "
            f"directories: {own_command('eval')} task=report runs=[DIR,...]"
        )
    return max(found, key=_last_change)


def is_run(path: Path) -> bool:
    """Return whether a folder is a run directory: it has a resolved configuration."""
    return RunDirectory(path).resolved_config.is_file()


def is_dry_run(path: Path) -> bool:
    """Return whether the provenance of a run directory says that it was a dry run."""
    provenance = RunDirectory(path).provenance
    if not provenance.is_file():
        return False
    try:
        found = json.loads(provenance.read_text(encoding="utf-8"))
    except ValueError:  # the reader of the run directory says it better
        return False
    return isinstance(found, dict) and found.get("dry_run") is not None


@dataclass(frozen=True, kw_only=True)
class _Job:
    directory: Path
    problem: str | None

    @property
    def remark(self) -> str:
        return f"{self.directory.name}: {self.problem}"


def _sorted_out(
    reasons: Mapping[Path, str | None], remarks: Sequence[str], folders: Sequence[Path]
) -> FoundRuns:
    finished = [path for path in reasons if RunDirectory(path).metrics.is_file()]
    unfinished = {
        path: reason or _why_without_results(RunDirectory(path))
        for path, reason in reasons.items()
        if path not in finished
    }
    if not finished:
        lines = [f"{path}: {reason}" for path, reason in unfinished.items()]
        raise MissingPathError(
            "None of the run directories has results (metrics.json):\n"
            + "\n".join(f"- {line}" for line in [*lines, *remarks])
        )
    more = [f"{path.name}: {reasons[path]}" for path in finished if reasons[path]]
    return FoundRuns(
        directories=tuple(finished),
        unfinished=unfinished,
        remarks=(*remarks, *more),
        study=folders[0] if len(folders) == 1 else None,
    )


def _why_without_results(run: RunDirectory) -> str:
    if run.summary.is_file():  # it is written last
        return "nothing was evaluated (benchmark=none)"
    return "no metrics.json: the run was stopped, or is still running"


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if not glob.has_magic(pattern) or path.is_dir():
        if not path.is_dir():
            raise MissingPathError(f"runs: {pattern} is no folder. Fix: check the path.")
        return [path.absolute()]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    folders = [m.absolute() for m in matches if m.is_dir() and not (m / REPORT_FILE).is_file()]
    if not folders:
        raise MissingPathError(f"runs: no folder matches {pattern}. Fix: check the pattern.")
    return folders


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.is_symlink():
            continue
        if is_run(path):
            yield path
        elif depth > 1:
            yield from _runs_below(path, depth - 1)


def _jobs_of(folder: Path) -> list[_Job]:
    study = StudyRecord(folder).read()
    jobs = () if study is None else study.jobs
    return [_Job(directory=folder / job.directory, problem=_problem(job)) for job in jobs]


def _problem(job: JobRecord) -> str | None:
    if job.status == "finished":
        return None
    return f"{job.status}: {job.error}" if job.error else job.status


def _last_change(study: Path) -> float:
    times = [RunDirectory(path).resolved_config.stat().st_mtime for path in _runs_below(study, 3)]
    file = study / STUDY_FILE
    return max([*times, *([file.stat().st_mtime] if file.is_file() else [])])
