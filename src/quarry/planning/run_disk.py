"""Refuse a training whose checkpoints do not fit the disk of its run directory."""

from __future__ import annotations

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.errors import UserError
from quarry.planning.disk import DiskNeed, SavedFiles, planned_disk
from quarry.planning.inputs import planned_step
from quarry.planning.setup import planned_model, training_setup
from quarry.planning.workload import planned_workload
from quarry.runtime.disk_errors import free_bytes, readable_size

SMALLER = (
    "hydra.run.dir=DIR or QUARRY_RUNS=DIR on a larger disk, or callbacks.last_checkpoint=null (the "
    "run could not be continued)"
)
MOVED = "or move the directory to a larger disk and resume it there"


def check_run_disk(config: DictConfig, *, is_resumed: bool = False) -> None:
    """Refuse a training before it starts if its checkpoints and model do not fit.

    What a resumed run has of them already needs no more room. Checkpoints of the best evaluations
    (`top_checkpoints`) are not counted: how many there will be depends on the data.

    Raises:
        UserError: the disk of the run directory has less room.
    """
    need = None
    with contextlib.suppress(UserError):  # what is wrong is said where it is used
        need = _need(config)
    folder = Path(config.paths.run_dir).absolute()
    free = free_bytes(folder)
    if need is None or need.run_directory <= free + (_saved_bytes(folder) if is_resumed else 0):
        return
    parts = {"checkpoints/last.ckpt, twice while it is replaced": need.last, "model/": need.model}
    parts |= {"checkpoints/best, likewise": need.best} if need.best else {}
    named = ", ".join(f"{name}: {readable_size(size)}" for name, size in parts.items() if size)
    key, remedy = ("run", MOVED) if is_resumed else ("hydra.run.dir", SMALLER)
    beside = f", {readable_size(_saved_bytes(folder))} of it are there" if is_resumed else ""
    raise UserError(
        f"{key}={folder}: this training writes {readable_size(need.run_directory)} "
        f"({named}){beside}, and {readable_size(free)} are free there. Nothing was started. Fix: "
        f"make room, {remedy}"
    )


def _saved_bytes(folder: Path) -> int:
    saved = (folder / name for name in ("checkpoints", "model"))
    return sum(file.stat().st_size for one in saved for file in one.rglob("*") if file.is_file())


def _need(config: DictConfig) -> DiskNeed:
    spec = build(config.model)
    step = planned_step(config, spec)
    # sizes do not depend on the data, which are not read here
    counts = {"num_examples": step.data.global_batch_size, "tokens_per_query": 1}
    workload = planned_workload(step, **counts)
    setup = training_setup(step, planned_model(spec), workload)
    return planned_disk(setup, SavedFiles.of(config.callbacks), num_evaluations=0, download=0)
