"""Run task=report: make tables and figures of a study from run directories, without models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig

from quarry.config.logger_rules import check_loggers
from quarry.config.overrides import named_run_directory, refuse_other_overrides
from quarry.config.stored_targets import target_violation, trusted_packages
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.run_directory_files import safe_name
from quarry.evaluation.significance_test import SignificanceTest
from quarry.evaluation.tables import NOT_MEASURED, Table, number, terminal
from quarry.metrics.trec import parse_measure
from quarry.runtime.leftovers import remove_unfinished
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show
from quarry.study_report.discovery import FoundRuns, find_runs, newest_study
from quarry.study_report.entries import entries_of
from quarry.study_report.grid import value_grid
from quarry.study_report.measured import Measured, measured_in
from quarry.study_report.published_rows import read_published
from quarry.study_report.report_files import PAGE, StudyReport, write_study_report
from quarry.study_report.report_logging import log_study_report
from quarry.study_report.run_record import RunRecord, read_record
from quarry.study_report.table import StudyTable, study_tables, summary_cell

logger = logging.getLogger(__name__)

STUDIES = "study"
"""Folder of studies below `paths.runs_dir`."""

RERANKED = "quarry.retrieval.reranked.RerankedRetriever"
"""The retriever that needs a model if its first stage does."""


def report(
    config: DictConfig,
    *,
    study: str | None,
    base: str | None,
    measures: Sequence[str] | None,
    sets: Sequence[str] | None,
    published: Sequence[str] | None,
    leaves_out: Sequence[str],
    labels: Mapping[str, str] | None,
    specialisations: Mapping[str, Sequence[str]],
    alpha: float,
    num_permutations: int,
    folder: str | None,
) -> dict[str, float]:
    """Report on `runs=[DIR,...]`, on a study by name, or on the newest study.

    Returns:
        `report/<table>/<row>` -> the row's average, or its first column if there is none.

    Raises:
        UserError: there are no runs, or their numbers are not comparable; nothing is written.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "runs", "seed", "paths", "logger", "hydra"),
        why="has no effect on task=report, which reads everything from run directories. Fix: leave "
        "it out.",
    )
    check_loggers(config)
    for measure in measures or ():
        parse_measure(measure)
    test = SignificanceTest(alpha=alpha, num_permutations=num_permutations, seed=config.seed)
    rows = read_published(published)
    found = find_runs(run_patterns(config, study))
    measured, left_out = read_measured(found, trusted=trusted_packages(config))
    order = [name for models in specialisations.values() for name in models]
    tables = study_tables(
        entries_of(
            [each for each in measured if _is_shown(each, leaves_out)],
            order=order,
            labels=labels or {},
        ),
        published=rows,
        base=base,
        measures=measures,
        sets=sets,
        test=test,
    )
    if not tables:
        raise UserError(_NOTHING)
    made = StudyReport(
        title=f"Study {found.study.name}" if found.study else f"{len(found.directories)} runs",
        tables=tuple(tables),
        specialisations=specialisations,
        left_out=(*found.remarks, *left_out, *_in_no_row(measured, tables)),
    )
    name = None if found.study is None else found.study.name
    publish(config, made, folder=_folder(config, found, folder), study=name)
    return _summary(tables)


def publish(config: DictConfig, made: StudyReport, *, folder: Path, study: str | None) -> None:
    """Write a report into `folder`, log it, and print its tables."""
    remove_unfinished(folder, folder / "figures")
    pictures = write_study_report(made, folder)
    for line in made.left_out:
        logger.warning("%s", line)
    log_study_report(config, made, pictures, folder=folder, study=study)
    show(
        *map(_terminal, made.tables),
        f"Report: {folder / PAGE}",
        result_line=_result_line(made.tables),
    )


_NOTHING = (
    "There is nothing to show: no run has a value for the selection of task.measures, task.sets "
    "and task.leaves_out. Fix: select more."
)


def read_measured(
    found: FoundRuns, *, trusted: Sequence[str] = ()
) -> tuple[list[Measured], list[str]]:
    """Return what each run directory measured, and a sentence on each that cannot be read.

    Args:
        trusted: packages whose retrievers the runs may name.

    Raises:
        UserError: none can be read.
    """
    read: list[Measured] = []
    problems: list[str] = []
    for directory in [*found.directories, *found.unfinished]:
        try:
            record = read_record(directory, problem=found.unfinished.get(directory))
            uses_encoder = _uses_encoder(record, trusted=trusted)
            read.extend(measured_in(record, uses_encoder=uses_encoder))
        except UserError as error:
            problems.append(f"{directory} is left out: {error}")
    if not read:
        raise UserError("No run directory can be reported:\n" + "\n".join(problems))
    return read, problems


def _is_shown(measured: Measured, leaves_out: Sequence[str]) -> bool:
    """Return whether a report is a row; `task.leaves_out` does not apply to given rankings."""
    return measured.stage == "given" or measured.report.retriever not in leaves_out


def _in_no_row(measured: Sequence[Measured], tables: Sequence[StudyTable]) -> list[str]:
    """Return a sentence on each run without results that no row shows as missing.

    Another directory has the results of its settings, or its sets are in no table.
    """
    entries = [entry for table in tables for entry in table.entries]
    shown = {m.record.directory for e in entries for m in e.members if m.seed in e.unfinished}
    shown |= {m.origin.directory for m in measured if m.origin is not m.record}  # evaluated later
    problems = {m.record.directory: m.record.problem for m in measured if m.record.problem}
    return [
        f"{directory}: {problem}"
        for directory, problem in problems.items()
        if directory not in shown
    ]


def _uses_encoder(record: RunRecord, *, trusted: Sequence[str]) -> bool:
    """Return whether the retriever of a run needs a model; that of a training run does.

    The class is checked, not an instance: its arguments may have changed since.

    Raises:
        UserError: the class cannot be imported, or is of a package that is not trusted.
    """
    if record.is_training:
        return True
    target = record.setting("retriever._target_") or ""
    if target == RERANKED:
        target = record.setting("retriever.first_stage._target_") or ""
    problem = target_violation(target, "retriever", trusted=trusted)
    if problem is not None:
        raise UserError(problem)
    try:
        return bool(get_object(target).uses_encoder)  # true also for a property object
    except Exception as error:
        raise UserError(
            f"retriever._target_={target} cannot be imported, so it is unknown whether it needs a "
            f"model: {error}"
        ) from error


def run_patterns(config: DictConfig, study: str | None) -> list[str]:
    """Return `runs`, or the folder of a study: the named one, or the newest."""
    studies = Path(config.paths.runs_dir).expanduser() / STUDIES
    if config.runs and study is not None:
        raise UserError(f"task.study={study} has no effect beside runs. Fix: give one of the two.")
    if config.runs:
        return list(config.runs)
    if study is None:
        return [str(newest_study(studies))]
    if not (studies / study).is_dir():
        known = ", ".join(sorted(path.name for path in studies.glob("*"))) or "none"
        raise MissingPathError(
            f"task.study={study}: there is no {studies / study} (there are: {known})."
        )
    return [str(studies / study)]


def _folder(config: DictConfig, found: FoundRuns, folder: str | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser().absolute()
    if (named := named_run_directory(config)) is not None:
        return named
    if config.study.job is not None:  # jobs of a sweep would write over one another
        return Path(HydraConfig.get().runtime.output_dir).absolute() / "report"
    if found.study is not None:
        return found.study / "report"
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return (Path(config.paths.runs_dir).expanduser() / "report" / now).absolute()


def _terminal(table: StudyTable) -> str:
    grid = value_grid(table)
    rows = [row for block in grid.blocks[: grid.published_from] for row in block]
    plain = Table(
        header=["model", *(f"{name} {measure}".strip() for name, measure in grid.header)],
        names=[row.label for row in rows],
        cells=[
            [f"{c.text or NOT_MEASURED}{'*' if c.is_marked else ' '}" for c in row.cells]
            for row in rows
        ],
        is_best=[[False] * len(row.cells) for row in rows],
    )
    base = f" (*: different from {table.base.label})" if table.comparisons and table.base else ""
    return f"{table.title}, {', '.join(table.measures)}{base}\n{terminal(plain)}"


def _summary(tables: Sequence[StudyTable]) -> dict[str, float]:
    return {
        f"report/{table.key}/{entry.label}": cell.value
        for table in tables
        for entry in table.entries
        if (cell := summary_cell(table, entry)).value is not None
    }


def _result_line(tables: Sequence[StudyTable]) -> str:
    """Return the result line: for each table and row the average, or the first column."""
    parts = ["report"]
    for table in tables:
        for entry in table.entries:
            text = number(summary_cell(table, entry).value, has_failed=True)
            parts.append(f"{table.key}/{safe_name(entry.label)}={text}")
    return " ".join(parts)
