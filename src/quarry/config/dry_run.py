"""Say which runs are dry runs, and check what they can do; reports leave them out."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

OF_EVALUATIONS = "val/"
"""Prefix of the metrics that only an evaluation logs."""


def dry_run_of(config: DictConfig) -> str | None:
    """Return the override that makes a run a dry run; None: it is a run like any other."""
    if (name := config.get("debug")) is not None:
        return f"debug={name}"
    is_fast = config.trainer.get("fast_dev_run")
    return f"trainer.fast_dev_run={str(is_fast).lower()}" if is_fast else None


def dry_run_violations(config: DictConfig) -> Iterator[str]:
    """Yield what waits for an evaluation in a dry run that has none, and batches that differ."""
    debug, batch_size = config.get("debug"), config.loss.get("contrastive_batch_size")
    limit = config.data.max_examples
    if debug == "overfit" and batch_size is not None and limit is not None and batch_size > limit:
        yield (
            f"loss.contrastive_batch_size={batch_size}: debug=overfit trains on {limit} examples. "
            "Fix: leave it out"
        )
    if debug in (None, "fast") or not str(config.benchmark["_target_"]).endswith(".no_benchmark"):
        return
    for name, node in config.callbacks.items():
        monitor = "" if node is None else str(node.get("monitor", ""))
        if monitor.startswith(OF_EVALUATIONS):
            yield (
                f"callbacks.{name}.monitor={monitor}: debug={debug} evaluates nothing. Fix: "
                f"callbacks=default, or debug=fast"
            )
    if config.optimized_metric is not None:
        yield (
            f"optimized_metric={config.optimized_metric}: debug={debug} evaluates nothing. Fix: "
            f"optimized_metric=null, or debug=fast"
        )
