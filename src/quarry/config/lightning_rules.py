"""Which arguments of Lightning's Trainer work here, and what to use in place of the others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from omegaconf import DictConfig

from quarry.runtime.own_command import own_command

BENCHMARK = "a smaller benchmark: benchmark.sets=[NAME], benchmark=small, debug=fast"
STEPS = "evaluation.every_n_steps=N (optimizer steps)"

INSTEAD = {
    "accumulate_grad_batches": "data.global_batch_size and loss.contrastive_batch_size",
    "limit_train_batches": "trainer.max_steps=N (optimizer steps), or debug=fast",
    "overfit_batches": "debug=overfit, or data.max_examples=N",
    "limit_val_batches": BENCHMARK,
    "limit_test_batches": BENCHMARK,
    "limit_predict_batches": BENCHMARK,
    "val_check_interval": STEPS,
    "check_val_every_n_epoch": STEPS,
    "num_sanity_val_steps": "evaluation.before_training=true",
    "reload_dataloaders_every_n_epochs": "nothing: the order of the data changes each epoch",
    "use_distributed_sampler": "nothing: each rank takes its share of a contrastive batch",
    "callbacks": "the group callbacks, or +callbacks.NAME._target_=CLASS",
    "logger": "the group logger: logger=csv",
    "default_root_dir": "hydra.run.dir=DIR",
    "enable_checkpointing": "callbacks=none, or the group callbacks",
    "enable_model_summary": "nothing: the log counts the weights",
}
"""Argument of the Trainer that this project does not pass on -> what to set in its place."""

DEFAULTS = {"accumulate_grad_batches": 1}
"""Argument of `INSTEAD` -> the value that changes nothing, and is allowed."""


_TIME = re.compile(r"\s*\d+:\d\d:\d\d:\d\d\s*")
"""Days, hours, minutes and seconds, as Lightning reads them."""


def trainer_violations(config: DictConfig, *, primary: str) -> Iterator[str]:
    """Yield arguments of the Trainer that have no effect here, or would break a run."""
    for name, instead in INSTEAD.items():
        value = config.trainer.get(name)
        if value is not None and value != DEFAULTS.get(name):
            yield f"trainer.{name}={str(value).lower()}: not used here. Fix: {instead}"
    limit = config.trainer.get("max_time")
    if isinstance(limit, str) and not _TIME.fullmatch(limit):
        yield (
            f"trainer.max_time={limit}: no time (DD:HH:MM:SS). Fix: trainer.max_time=00:12:00:00, "
            "which is twelve hours, or leave it out"
        )
    if primary == "eval" and config.trainer.get("fast_dev_run"):
        value = str(config.trainer.fast_dev_run).lower()
        yield f"trainer.fast_dev_run={value}: no effect on an evaluation. Fix: debug=fast"


def training_only_violations(config: DictConfig) -> Iterator[str]:
    """Yield keys of trainer and evaluation with values that training cannot use."""
    evaluation = config.evaluation
    if evaluation.compare_dtype is not None:
        yield (
            f"evaluation.compare_dtype={evaluation.compare_dtype}: no effect on training. Fix: "
            f"leave it out, or {own_command('eval')} model.path=RUN_DIR afterwards"
        )
    if evaluation.store:
        yield (
            "evaluation.store=true: no effect on training, where weights change from one "
            f"evaluation to the next. Fix: leave it out, or {own_command('eval')} "
            "model.path=RUN_DIR afterwards"
        )
    if config.trainer.max_epochs in (None, -1) and config.trainer.max_steps == -1:
        yield (
            f"trainer.max_epochs={str(config.trainer.max_epochs).replace('None', 'null')}, "
            "trainer.max_steps=-1: training would never end. Fix: set one of them"
        )
    limit = config.data.max_examples
    if limit is not None and limit < 1:
        yield f"data.max_examples={limit}: too small (at least 1, or null for all). Fix: raise it"
