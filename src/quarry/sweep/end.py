"""Show the jobs of a sweep when it ends, and how to continue it where some did not finish."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from textwrap import shorten

from quarry.config.command_line import prepared_arguments
from quarry.config.entry_point import check_entry_point
from quarry.config.near_misses import notes_near_misses
from quarry.config.sweep_overrides import with_first_choices
from quarry.runtime.entry import end_with_error
from quarry.runtime.renamed_keys import refuse_renamed_keys
from quarry.runtime.task_output import show
from quarry.sweep.launcher_files import launcher_files_removed_at_end
from quarry.sweep.record import JobRecord, Study, StudyRecord

begun_study: ContextVar[StudyRecord | None] = ContextVar("begun_study", default=None)
"""The record of the sweep that this process began; Hydra has no callback for a sweep that fails."""

FAILED_CODE = 1

MAX_REASON = 300
"""Characters of an error that are shown; `study.json` and `error.log` have more."""


@contextmanager
def shows_study(*, primary: str) -> Iterator[None]:
    """Wrap an entry point: show the jobs of a sweep, and end with a code above 0 where one failed.

    A run that is no sweep is left alone.

    Args:
        primary: train or eval, what the entry point composes.

    Raises:
        UserError: the command line is for the other entry point.
    """
    failure: Exception | None = None
    check_entry_point(sys.argv[1:], primary=primary)
    refuse_renamed_keys(sys.argv[1:])
    typed, sys.argv[1:] = sys.argv[1:], with_first_choices(prepared_arguments(sys.argv[1:]))
    try:
        with launcher_files_removed_at_end(), notes_near_misses(typed, primary=primary):
            yield
    except Exception as error:
        if begun_study.get() is None:
            raise
        failure = error
    except KeyboardInterrupt:
        _show_interrupted()
        raise
    record = begun_study.get()
    study = None if record is None else record.settle()
    if record is None or study is None:
        return
    show_jobs(study, record)
    unfinished = study.having("failed", "interrupted")
    if failure is not None and not unfinished:
        raise failure
    if unfinished:  # which is what the failure came from, if there is one
        end_with_error(_failures(study, record), code=FAILED_CODE)


def show_jobs(study: Study, record: StudyRecord) -> None:
    """Show a line for each job (status, time, main metrics), and where the record is."""
    rows = [[job.status, _time(job), _outcome(job)] for job in study.jobs]
    table = "\n".join(_aligned(study, rows))
    counts = {s: len(study.having(s)) for s in ("finished", "failed", "interrupted", "queued")}
    line = " ".join(f"{status}={number}" for status, number in counts.items())
    show(table, f"Study: {record.path}", result_line=f"study {line}")


def _aligned(study: Study, rows: list[list[str]]) -> list[str]:
    named = [[job.directory, *row] for job, row in zip(study.jobs, rows, strict=True)]
    lines = [["job", "status", "time", "result"], *named]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return ["  ".join(map(str.ljust, line[:3], widths)) + f"  {line[3]}" for line in lines]


def _time(job: JobRecord) -> str:
    if job.seconds is None:
        return "-"
    minutes, seconds = divmod(round(job.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _outcome(job: JobRecord) -> str:
    return job.result or (_brief(job.error) if job.error else "-")


def _brief(text: str) -> str:
    """Return the first line of a text, with what follows where it ends in a colon."""
    first, _, rest = text.partition("\n")
    return shorten(
        f"{first} {rest}" if first.endswith(":") else first, MAX_REASON, placeholder=" ..."
    )


def _failures(study: Study, record: StudyRecord) -> str:
    """Return the error of a sweep; jobs that failed alike share a line."""
    unfinished = study.having("failed", "interrupted")
    alike: dict[str, list[str]] = {}
    for job in unfinished:
        alike.setdefault(_brief(job.error or job.status), []).append(job.directory)
    lines = [f"- {', '.join(names)}: {reason}" for reason, names in alike.items()]
    return (
        f"{len(unfinished)} of {len(study.jobs)} jobs did not finish. When the cause is gone, "
        f"continue with the same command and study.resume=true hydra.sweep.dir={record.folder}\n"
        + "\n".join(lines)
    )


def _show_interrupted() -> None:
    record = begun_study.get()
    study = None if record is None else record.settle()
    if record is None or study is None:
        return
    num_finished = len(study.having("finished"))
    running = len(study.having("running"))
    still = f" {running} still run elsewhere." if running else ""
    sys.stderr.write(
        f"\nInterrupted: {num_finished} of {len(study.jobs)} jobs are finished.{still} Continue "
        f"with the same command and study.resume=true hydra.sweep.dir={record.folder}\n"
    )
