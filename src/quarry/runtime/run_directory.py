"""Define the run directory: the paths of all files that a run writes."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quarry.errors import MissingPathError, UserError


@dataclass(frozen=True)
class RunDirectory:
    """Paths in the directory of one run."""

    path: Path

    @classmethod
    def create(cls, path: str | Path, *, resume_command: str | None = None) -> RunDirectory:
        """Create a directory for a new run.

        Args:
            resume_command: continues a checkpoint in the directory; None: the run does not train.

        Raises:
            UserError: it has another run.
        """
        run = cls(Path(path).absolute())
        if run.config.exists():
            raise UserError(
                f"hydra.run.dir={run.path}: holds a run already (a new run needs its own). Fix: "
                f"another hydra.run.dir, or {run._way_out(resume_command)}"
            )
        run.path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def shared(cls, path: str | Path) -> RunDirectory:
        """Return the directory that another rank of this run has made or is about to make."""
        return cls(Path(path).absolute())

    @classmethod
    def open(cls, path: str | Path | None) -> RunDirectory:
        """Open the directory of an earlier run.

        Raises:
            MissingPathError: `path` is no run directory.
        """
        if path is None:
            raise MissingPathError("run=null: it is not set (a run directory). Fix: run=DIR")
        run = cls(Path(path).expanduser().absolute())
        if not run.resolved_config.exists():
            raise MissingPathError(
                f"run={path} is no run directory: it has no {run.resolved_config.name}. Fix: "
                "run=DIR, the folder that the run named at its end"
            )
        return run

    def _way_out(self, resume_command: str | None) -> str:
        if resume_command is not None and self.has_checkpoint:
            return f"continue: {resume_command}"
        return f"remove the run if nothing in it is needed: rm -r {shlex.quote(str(self.path))}"

    @property
    def config(self) -> Path:
        """Configuration as composed, with unresolved interpolations."""
        return self.path / "config.yaml"

    @property
    def resolved_config(self) -> Path:
        return self.path / "config_resolved.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def checkpoint(self) -> Path:
        """The full training state, for resuming: a file, or under ZeRO a folder of shards."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether `task=resume` can continue the run.

        A killed process may have left its checkpoint under another name, which
        `training.checkpoint_files` gives back.
        """
        names = (self.checkpoint.name, "previous.ckpt", f".{self.checkpoint.name}.old")
        return any(self.checkpoint.with_name(name).exists() for name in names)

    @property
    def model(self) -> Path:
        """The trained model, as transformers or peft load it."""
        return self.path / "model"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def learning_curve(self) -> Path:
        """Evaluations and losses by step."""
        return self.path / "learning_curve.json"

    @property
    def summary(self) -> Path:
        """Final metrics and run cost."""
        return self.path / "summary.json"

    @property
    def wandb_run(self) -> Path:
        """The Weights & Biases run of this run."""
        return self.path / "wandb_run.json"

    @property
    def lock(self) -> Path:
        """The process that works in the directory, see `runtime.ownership`."""
        return self.path / ".lock"

    @property
    def log(self) -> Path:
        return self.path / "run.log"


@contextlib.contextmanager
def removed_if_empty(path: str | Path) -> Iterator[None]:
    """Remove the directory that Hydra made for a job, if the job fails and leaves it empty."""
    try:
        yield
    except BaseException:
        if Path(path).resolve() != Path.cwd().resolve():  # as for tasks without a run directory
            with contextlib.suppress(OSError):  # it holds something
                Path(path).rmdir()
        raise
