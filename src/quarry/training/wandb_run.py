"""Log a run to Weights & Biases with Lightning's logger, and its files as artifacts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from quarry.errors import UserError
from quarry.training.wandb_staging import WandbStaging

logger = logging.getLogger(__name__)


class WandbRun(WandbLogger):
    """Lightning's logger, which also logs files.

    Args:
        project, name, save_dir, offline: see `WandbLogger`.
        group, job_type, tags: of the run, for W&B's dashboards.
        max_artifact_gib: larger artifacts are not uploaded; 0: none are, None: all are.
        more: further arguments of `WandbLogger` and `wandb.init`.
    """

    def __init__(
        self,
        *,
        project: str,
        save_dir: str,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        offline: bool = False,
        max_artifact_gib: float | None = 1.0,
        **more: Any,
    ) -> None:
        if max_artifact_gib is not None and max_artifact_gib < 0:
            raise UserError(
                f"logger.wandb.max_artifact_gib={max_artifact_gib} must be at least 0 (nothing is "
                "uploaded), or null (everything is)."
            )
        self._staging = WandbStaging(Path(save_dir))
        super().__init__(
            project=project,
            save_dir=save_dir,
            name=name,
            offline=offline,
            group=group,
            job_type=job_type,
            tags=None if tags is None else list(tags),
            **more,
        )
        # Lightning passes None, and W&B warns that it has no effect
        self._wandb_init.pop("anonymous", None)
        self.max_artifact_gib = max_artifact_gib

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers, tables and images; what W&B stages of them lies in the run directory."""
        with self._staging.used():
            super().log_metrics(metrics, step)

    def finish(self, *, exit_code: int) -> None:
        """End the W&B run; the next run of this process has its own."""
        self.experiment.finish(exit_code=exit_code)
        self._staging.close()

    def log_files(self, kind: str, root: Path, names: Sequence[str]) -> None:
        """Log files below `root` as one artifact, under their relative names, if there are any.

        The files are not copied: an offline run reads them when it is synced.

        Args:
            kind: type of the artifact, such as "model"; its name is the type with the run's id.
            names: files and folders; missing ones are skipped.
        """
        files = [file for name in names for file in _files(root / name)]
        num_bytes = sum(file.stat().st_size for file in files)
        if not files or self.max_artifact_gib == 0:
            return
        if self.max_artifact_gib is not None and num_bytes > self.max_artifact_gib * 2**30:
            logger.info(
                "W&B does not get the artifact %r of %s: %.1f GiB are more than "
                "logger.wandb.max_artifact_gib=%g",
                kind,
                root,
                num_bytes / 2**30,
                self.max_artifact_gib,
            )
            return
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self.experiment.id}", type=kind)
        for file in files:
            name = file.relative_to(root).as_posix()
            artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact)


def _files(path: Path) -> list[Path]:
    """Return the file itself, or all files of a folder, in order."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []
