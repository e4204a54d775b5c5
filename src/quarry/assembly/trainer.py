"""Build Lightning's Trainer and the loggers of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger

from quarry.assembly.wandb_identity import WandbIdentity, with_identity
from quarry.config.instantiate import build, build_named
from quarry.distributed import world
from quarry.runtime.threads import hand_over_quickly
from quarry.training.checkpoint_io import save_durably
from quarry.training.wandb_run import WandbRun


def build_trainer(
    trainer_node: DictConfig,
    *,
    run_dir: str,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    **more: Any,
) -> pl.Trainer:
    """Build Lightning's Trainer with the settings that every run of this project shares.

    Args:
        trainer_node: `trainer` of the configuration.
        run_dir: for Lightning's own files.
        more: further arguments of the Trainer.
    """
    hand_over_quickly()
    trainer: pl.Trainer = build(
        trainer_node,
        callbacks=list(callbacks),
        logger=list(loggers),
        default_root_dir=run_dir,
        use_distributed_sampler=False,  # our sampler shards the data
        enable_model_summary=False,
        enable_progress_bar=False,  # ours are training_progress.py and runtime/progress.py
        num_sanity_val_steps=0,
        **more,
    )
    # Lightning's SIGTERM handler would start a collective within another one
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    save_durably(trainer.strategy)
    return trainer


@contextmanager
def opened_loggers(
    logger_nodes: DictConfig,
    *,
    identity: WandbIdentity,
    hyperparameters: Callable[[], dict[str, Any]],
) -> Iterator[list[Logger]]:
    """Yield the configured loggers, which receive the hyperparameters; close them at the end.

    Ranks other than 0 have none. Closing matters: the next job of a sweep would log to a W&B run
    that is still open.

    Args:
        logger_nodes: `logger` of the configuration.
        identity: id, group, name and tags of the run in W&B.
        hyperparameters: called on rank 0.
    """
    loggers: list[Logger] = []
    if world.is_launched_first():
        loggers = build_named(with_identity(logger_nodes, identity))
    status = "failed"
    try:
        for pl_logger in loggers:
            pl_logger.log_hyperparams(hyperparameters())
        yield loggers
        status = "success"
    finally:
        for pl_logger in loggers:
            pl_logger.finalize(status)
            if isinstance(pl_logger, WandbRun):
                pl_logger.finish(exit_code=0 if status == "success" else 1)
            elif isinstance(pl_logger, WandbLogger):
                pl_logger.experiment.finish(exit_code=0 if status == "success" else 1)
