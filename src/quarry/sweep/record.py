"""Record the jobs of a sweep in `study.json`; several processes may write it at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from quarry.errors import UserError
from quarry.runtime.files import write_json
from quarry.runtime.lock import locked, locked_if_free
from quarry.runtime.renamed_keys import renamed_override

Status = Literal["queued", "running", "finished", "failed", "interrupted"]

STUDY_FILE = "study.json"
LOCKS = ".locks"


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """Describe a job.

    Attributes:
        directory: its run directory, below the study's; its name.
        overrides: its command line, secrets hidden.
        status: how far it is.
        error: how it failed.
        started: when the last attempt began, UTC.
        seconds: how long that took.
        attempts: how often it was started.
        objective: what the sweeper got.
        result: the result line of the job.
    """

    directory: str
    overrides: tuple[str, ...]
    status: Status = "queued"
    error: str | None = None
    started: str | None = None
    seconds: float | None = None
    attempts: int = 0
    objective: float | None = None
    result: str | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Hold the content of `study.json`.

    Attributes:
        name: of the study.
        fixed: the keys that have one value in all jobs; the others name a job.
        jobs: in the order of the sweep.
    """

    name: str
    fixed: tuple[str, ...]
    jobs: tuple[JobRecord, ...] = ()

    def job(self, directory: str) -> JobRecord | None:
        return next((job for job in self.jobs if job.directory == directory), None)

    def same_job(self, overrides: Sequence[str]) -> JobRecord | None:
        """Return the job with these overrides; an earlier version may have named it otherwise."""
        own = sorted(overrides)
        return next((job for job in self.jobs if sorted(job.overrides) == own), None)

    def with_job(self, job: JobRecord) -> Study:
        """Return it with this job in the place of the one in its directory, else at the end."""
        if self.job(job.directory) is None:
            return replace(self, jobs=(*self.jobs, job))
        jobs = (job if one.directory == job.directory else one for one in self.jobs)
        return replace(self, jobs=tuple(jobs))

    def having(self, *statuses: Status) -> list[JobRecord]:
        return [job for job in self.jobs if job.status in statuses]


class StudyRecord:
    """Read and write the record in the folder of a study; a change is atomic for all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / STUDY_FILE

    def read(self) -> Study | None:
        """Return the study; None: none was begun.

        Raises:
            UserError: the file is no record of a study.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            jobs = tuple(_job(job) for job in content["jobs"])
            fixed = tuple(map(renamed_override, content["fixed"]))
            return Study(name=content["name"], fixed=fixed, jobs=jobs)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{self.path}: not the record of a study ({type(error).__name__}: {error}). Move "
                "it away, or choose another hydra.sweep.dir."
            ) from error

    def folder_of(self, job: JobRecord) -> Path:
        """Return a job's run directory, which a new attempt replaces.

        Raises:
            UserError: it is not below the study's folder.
        """
        found, own = (self.folder / job.directory).resolve(), self.folder.resolve()
        if own not in found.parents:
            raise UserError(
                f"{self.path}: directory={job.directory} is not in the folder of the study. Fix: "
                "restore the file, or choose another hydra.sweep.dir"
            )
        return self.folder / job.directory

    def write(self, study: Study) -> None:
        """Replace what is recorded by a study."""
        self.change(lambda _: study)

    def change(self, change: Callable[[Study | None], Study]) -> Study:
        """Replace what is recorded by what `change` makes of it, and return that."""
        with locked(self._lock(STUDY_FILE), what=str(self.path)):
            study = change(self.read())
            write_json(self.path, asdict(study))
        return study

    def put(self, job: JobRecord) -> None:
        """Record a job."""

        def with_job(study: Study | None) -> Study:
            assert study is not None
            return study.with_job(job)

        self.change(with_job)

    @contextmanager
    def held(self, directory: str) -> Iterator[None]:
        """Hold the right to run a job; wait while another process has it."""
        with locked(self._lock(directory), what=f"the job {directory}"):
            yield

    @property
    def locks(self) -> Path:
        """Return the folder for locks, one for all processes of the study."""
        folder = self.folder / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_held(self, directory: str) -> bool:
        with locked_if_free(self._lock(directory)) as is_free:
            return not is_free

    def settle(self) -> Study | None:
        """Mark jobs that are recorded as running, and that no process runs, as interrupted."""
        study = self.read()
        for job in [] if study is None else study.having("running"):
            if not self.is_held(job.directory):
                self.put(replace(job, status="interrupted"))
        return self.read()

    def _lock(self, name: str) -> Path:
        return self.locks / name


def _job(content: dict[str, Any]) -> JobRecord:
    overrides: Sequence[str] = content.pop("overrides")
    return JobRecord(overrides=tuple(map(renamed_override, overrides)), **content)
