"""Name the folders that a run writes to, and check them before anything is computed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from quarry.distributed import world
from quarry.runtime.disk_errors import MIN_BYTES, Place, check_place

MOVED = "move the directory and resume it there: run=DIR"
"""What helps a run that is resumed, for which `hydra.run.dir` is refused."""


def places_of(config: DictConfig) -> list[Place]:
    """Return the folders that runs with this configuration write to."""
    paths, run = config.paths, config.get("run")
    is_resumed = OmegaConf.select(config, "task._target_") == "quarry.tasks.resume.resume"
    return [
        Place(
            what="The run directory", path=Path(paths.run_dir if run is None else run).expanduser(),
            remedy=MOVED if is_resumed else "hydra.run.dir=DIR or QUARRY_RUNS=DIR",
        ),
        Place(
            what="The cache", path=Path(paths.cache_dir).expanduser(),
            remedy="paths.cache_dir=DIR or QUARRY_CACHE=DIR",
        ),
        Place(
            what="The embedding store", path=Path(paths.store_dir).expanduser(),
            remedy="paths.store_dir=DIR or evaluation.store=false",
        ),
    ]  # fmt: skip


def check_places(config: DictConfig) -> None:
    """Refuse a run directory, and a cache that is empty, which cannot be written to.

    A cache that has something may have all that is needed. The store is checked with the size of
    the embeddings (`retrieval/store/room.py`).

    Raises:
        UserError: such a folder, or one whose disk is full.
    """
    if not world.is_launched_first() or OmegaConf.is_missing(config.paths, "run_dir"):
        return
    run, cache, _ = places_of(config)
    check_place(run, num_bytes=MIN_BYTES)
    check_place(cache, num_bytes=1, is_readable_alone=True)
