"""Sets without a result: a run writes what the others gave, and ends in an error all the same."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.errors import UserError
from quarry.evaluation.report import REPORT_FILE
from quarry.runtime.run_directory import RunDirectory
from quarry.types import Report


def refuse_failures(reports: Sequence[Report], run: RunDirectory) -> None:
    """Ends a run whose results are written if some set failed.

    Raises:
        UserError: one did; the message names them. Why each failed was logged and is in the report.
    """
    failed = [report for report in reports if report.failures]
    if not failed:
        return
    parts = [f"{report.retriever}: {', '.join(report.failures)}" for report in failed]
    names = dict.fromkeys(name for report in failed for name in report.failures)
    raise UserError(
        f"{len(names)} of the sets failed, so there is no mean ({'; '.join(parts)}). Why stands "
        f"above and in {run.path / REPORT_FILE}, with the results of the others."
    )
