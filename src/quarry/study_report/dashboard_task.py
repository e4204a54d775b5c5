"""Run task=dashboard: make a Weights & Biases workspace and report of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.resolvers import wandb_offline
from quarry.errors import UserError
from quarry.runtime.extras import require
from quarry.runtime.files import write_json
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show
from quarry.study_report.dashboard import as_json, report, workspace
from quarry.study_report.dashboard_keys import logged_keys, project_of
from quarry.study_report.dashboard_panels import sections
from quarry.study_report.discovery import find_runs
from quarry.study_report.report_task import run_patterns


def dashboard(
    config: DictConfig,
    *,
    study: str | None,
    entity: str | None,
    project: str | None,
    output: str | None,
    specialisations: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Make the dashboard of `runs=[DIR,...]`, of a study by name, or of the newest study.

    Args:
        entity, project: where it goes; None: the account's default, and the runs' project.
        output: a JSON file that gets what would be sent; None: it is sent.

    Returns:
        `dashboard/num_panels`.

    Raises:
        UserError: the library or an account is missing, or no run was logged to W&B.
    """
    quiet_libraries()
    refuse_other_overrides(
        ("task", "runs", "paths", "hydra"),
        why="has no effect on task=dashboard, which reads run directories. Fix: leave it out.",
    )
    warn_of_run_directory(config, task="dashboard")
    require("wandb_workspaces", what="task=dashboard")
    if output is None and wandb_offline():
        raise UserError(
            "task=dashboard: there is no W&B account. Fix: wandb login, or task.output=FILE.json"
        )
    found = find_runs(run_patterns(config, study))
    keys = logged_keys(found.directories)
    group = None if found.study is None else found.study.name
    project = project or project_of(found.directories)
    owner = _owner(entity, is_sent=output is None)
    view = workspace(keys, entity=owner, project=project, study=group)
    page = report(keys, entity=owner, project=project, study=group, specialisations=specialisations)
    num_panels = sum(len(panels) for panels in sections(keys).values())
    if output is None:
        places = [str(made.save().url) for made in (view, page)]
    else:
        file = Path(output).expanduser().absolute()
        write_json(file, {"workspace": as_json(view), "report": as_json(page)})
        places = [f"Written, not sent: {file}"]
    show(*places, result_line=f"dashboard panels={num_panels}")
    return {"dashboard/num_panels": float(num_panels)}


def _owner(entity: str | None, *, is_sent: bool) -> str:
    """Return the entity; of what is only written it may be empty."""
    if entity is not None or not is_sent:
        return entity or ""
    import wandb

    return str(wandb.Api().default_entity)
