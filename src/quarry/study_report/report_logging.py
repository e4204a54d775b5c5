"""A report in Weights & Biases: its tables and figures as one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import WandbLogger

from quarry.assembly.trainer import opened_loggers
from quarry.assembly.wandb_identity import WandbIdentity
from quarry.runtime.run_directory import RunDirectory
from quarry.study_report.report_files import StudyReport


def log_study_report(
    config: DictConfig,
    report: StudyReport,
    pictures: Mapping[str, Mapping[str, Path]],
    *,
    folder: Path,
    study: str | None,
) -> None:
    """Tables and pictures to W&B, where the logger is W&B; other loggers have no use for them.

    Args:
        pictures: key of a table -> what a figure shows -> its PNG.
        folder: of the report; an offline W&B run is written there, and a report that takes the
            place of another goes on with its run.
        study: that it is about, the group of its runs.
    """
    if not config.logger:
        return
    config.paths.run_dir = str(folder)
    facts = {
        "task": OmegaConf.to_container(config.task, resolve=True),
        "title": report.title,
        "runs": list(config.runs),
    }
    identity = WandbIdentity(
        directory=RunDirectory(folder), job_type="report", name=report.title, group=study
    )
    with opened_loggers(config.logger, identity=identity, hyperparameters=lambda: facts) as loggers:
        for each in loggers:
            if isinstance(each, WandbLogger):
                _log(each, report, pictures)


def _log(
    wandb_logger: WandbLogger,
    report: StudyReport,
    pictures: Mapping[str, Mapping[str, Path]],
) -> None:
    for table in report.tables:
        columns = ["model", *(f"{c.row.name} {c.measure}" for c in table.columns)]
        columns += [f"mean {table.measures[0]}"] if table.has_average else []
        rows = [
            [entry.label, *(cell.value for cell in cells)]
            for entry, cells in zip(table.entries, table.cells, strict=True)
        ]
        wandb_logger.log_table(f"report/{table.key}", columns=columns, data=rows)
    for key, shown in pictures.items():
        for name, path in shown.items():
            title = "/".join(part for part in ("report", key, name) if part)
            wandb_logger.log_image(title, images=[str(path)])
