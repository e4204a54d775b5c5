"""Collect what run directories measured: untrained models, trained models, and baselines.

A trained model that another run evaluated belongs to its training run: both fill the same row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quarry.errors import UserError
from quarry.evaluation.given_rankings import SCORING
from quarry.models.saved import CONTRACT_FILE
from quarry.study_report.discovery import is_run
from quarry.study_report.run_record import RunRecord, read_record
from quarry.study_report.settings import WITHOUT_MODEL, Settings, Stage, is_in, relevant
from quarry.types import Report

UNTRAINED, TRAINED = "untrained", "trained"
TRAINED_FORMS = (TRAINED, "best", "hybrid")
"""Names of a training run's reports on trained weights."""

STOPPED = "training was stopped, or is still running"

GIVEN_LABEL = "ranking given"
"""Suffix of names of given rankings, whose model and training are unknown."""

NO_BASELINE = "quarry.retrieval.retriever.no_retriever"

EVALUATED = (
    "prompt", "retriever", "model.pooling", "model.is_causal", "model.normalize",
    "model.embedding_dim",
)  # fmt: skip
"""Keys and groups that an evaluation may set differently from the training."""


FIRST_STAGE = "retriever.first_stage"
"""Key of the first of two stages, whose report comes before that of the second."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of one retriever in one run directory.

    Attributes:
        record: record of the run directory where it was measured.
        origin: record of the training run of the model; `record` itself for an untrained model.
        stage: kind of retriever in the study.
        name: name of the model or baseline, with the form (such as "best") unless that is the
            trained model itself.
        settings: settings that the result depends on, without the seed.
        options: chosen option of each configuration group (see `placed`), of both runs.
        report: its report; without results if the run has none.
    """

    record: RunRecord
    origin: RunRecord
    stage: Stage
    name: str
    settings: Settings
    options: Mapping[str, str] = field(default_factory=dict)
    report: Report

    @property
    def seed(self) -> str | None:
        """Return the seed of the training; None for retrievers without training."""
        return self.origin.setting("seed") if self.stage == "supervised" else None

    @property
    def model(self) -> str:
        """Return the name without the form."""
        return self.name if self.stage in WITHOUT_MODEL else model_name(self.origin)

    @property
    def size(self) -> str | None:
        return None if self.stage in WITHOUT_MODEL else self.origin.setting("model.size")


def measured_in(record: RunRecord, *, uses_encoder: bool) -> list[Measured]:
    """Return the retrievers that a run directory has measured, or was meant to.

    Args:
        uses_encoder: whether the run's own retriever needs a model.

    Raises:
        UserError: the folder of `model.path` does not exist any more, so that it is unknown
            whether the model was trained.
    """
    if record.is_training:
        return [_of_training(record, report) for report in record.reports] + _stopped(record)
    if record.setting("task._target_") == SCORING:
        return _given(record)
    reports = record.reports or (Report(retriever="dense", results=()),)
    has_baseline = len(reports) > 1 and record.setting("baseline._target_") != NO_BASELINE
    found = []
    for index, report in enumerate(reports):
        is_baseline = not uses_encoder or (has_baseline and index == 0)
        if is_baseline:
            part = "retriever" if not uses_encoder else "baseline"
            if index == len(reports) - 2 and record.setting(f"{FIRST_STAGE}._target_") is not None:
                part = FIRST_STAGE
            found.append(_baseline(record, report, part=part))
        else:
            found.append(_of_evaluation(record, report, form=_form(reports, report)))
    return found


def _form(reports: Sequence[Report], report: Report) -> str:
    """Return the dtype suffix of a second report, of the same model in another dtype; else ""."""
    first = reports[-2] if len(reports) > 1 else report
    prefix = f"{first.retriever}-"
    is_other = report is not first and report.retriever.startswith(prefix)
    return report.retriever.removeprefix(prefix) if is_other else ""


def _of_training(record: RunRecord, report: Report) -> Measured:
    if report.retriever == UNTRAINED:
        return _measured(record, record, "zero_shot", report)
    if report.retriever in TRAINED_FORMS:
        form = "" if report.retriever == TRAINED else report.retriever
        return _measured(record, record, "supervised", report, form=form)
    return _baseline(record, report, part="baseline")


def _stopped(record: RunRecord) -> list[Measured]:
    """Return the trained model without results if a training run has no report of it.

    Earlier reports of the run, such as its baseline's, are written at once.
    """
    names = [report.retriever for report in record.reports]
    if TRAINED in names:
        return []
    if names:
        record = replace(record, problem=STOPPED)
    return [_of_training(record, Report(retriever=TRAINED, results=()))]


def _of_evaluation(record: RunRecord, report: Report, *, form: str) -> Measured:
    origin, was_trained, is_best = _origin(record)
    form = " ".join(part for part in ("best" if is_best else "", form) if part)
    return _measured(record, origin, "supervised" if was_trained else "zero_shot", report, form)


def _measured(
    record: RunRecord, origin: RunRecord, stage: Stage, report: Report, form: str = ""
) -> Measured:
    settings, options = dict(origin.settings), dict(origin.options)
    if origin is not record:
        settings = _overlaid(settings, record.settings)
        options = _overlaid(options, record.options)
    return Measured(
        record=record,
        origin=origin,
        stage=stage,
        name=f"{model_name(origin)} ({form})" if form else model_name(origin),
        settings=relevant(settings, stage),
        options=options,
        report=report,
    )


def _baseline(record: RunRecord, report: Report, *, part: str) -> Measured:
    own = {
        f"retriever{key.removeprefix(part)}": value
        for key, value in record.settings.items()
        if is_in(key, (part,))
    }
    return Measured(
        record=record,
        origin=record,
        stage="baseline",
        name=report.retriever,
        settings=relevant(own, "baseline"),
        report=report,
    )


def _given(record: RunRecord) -> list[Measured]:
    """Return given rankings, which have a name and no settings."""
    unknown = Report(retriever=record.directory.name, results=())
    return [
        Measured(
            record=record,
            origin=record,
            stage="given",
            name=f"{report.retriever} ({GIVEN_LABEL})",
            settings={},
            report=report,
        )
        for report in record.reports or (unknown,)
    ]


def _overlaid(origin: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in origin.items() if not is_in(key, EVALUATED)}
    return kept | {key: value for key, value in own.items() if is_in(key, EVALUATED)}


def model_name(record: RunRecord) -> str:
    """Return the option of `model`; for `model=local` the last part of its path or hub id."""
    option, path = record.options.get("model"), record.setting("model.path")
    if option not in (None, "local"):
        return option
    where = path or record.setting("model.hub_id")
    return Path(where).name if where else record.directory.name


def _origin(record: RunRecord) -> tuple[RunRecord, bool, bool]:
    """Return the origin of the evaluated model.

    Returns:
        The record of its training run, else `record`; whether it was trained; and whether it is
        the best model of the training rather than the last.
    """
    path = record.setting("model.path")
    if path is None:
        return record, False, False
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.startswith(("/", "./", "../", "~")) or path.count("/") != 1:
            raise UserError(
                f"{record.directory}: model.path={path} does not exist any more, so it is unknown "
                "whether the model was trained. Fix: restore the folder, or leave the directory "
                "out of runs."
            )
        return record, False, False  # a hub id
    for place in (folder, *folder.absolute().parents[:2]):
        if is_run(place):
            origin = read_record(place, problem="of its training alone")
            if origin.is_training:
                return origin, True, "best" in folder.parts[-1:]
    return record, (folder / CONTRACT_FILE).is_file(), False
