"""Log a report's tables and figures to Weights & Biases as one W&B run."""

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
    """Log tables and pictures to W&B, if that is the logger; other loggers receive nothing.

    Args:
        pictures: key of a table -> title of a figure -> its PNG.
        folder: folder of the report, for offline W&B runs; a report that replaces an older one
            there continues its W&B run.
        study: name of the study, the W&B group; None: no group.
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
