"""Check the keys that form optimizer steps, and training data against what they are read with."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from quarry.config.lora_rules import lora_violations
from quarry.config.memory_rules import memory_violations
from quarry.config.signature_rules import fits, signature_of
from quarry.config.world_size import world_size

REFRESHING = "quarry.training.callbacks.refresh_negatives.RefreshNegatives"
"""Target of the callback that mines hard negatives during training."""


def num_mined(config: DictConfig) -> int:
    """Return the hard negatives of a query that are mined during training; 0: none are."""
    for node in (config.get("callbacks") or {}).values():
        if node is not None and node.get("_target_") == REFRESHING:
            return int(node.num_negatives)
    return 0


def training_violations(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong between the keys of data, loss and model of a training run."""
    data, batch_size = config.data, config.loss.get("contrastive_batch_size")
    global_batch_size = data.global_batch_size
    num_hard = data.num_hard_negatives  # null: the examples say, see RetrievalDataModule
    if global_batch_size < 1 or (batch_size is not None and batch_size < 1):
        pass  # value_ranges.py refuses it
    elif (batch_size or global_batch_size) < world_size(config):
        yield (
            f"data.global_batch_size={global_batch_size}: {world_size(config)} ranks share a "
            f"contrastive batch, and it has {batch_size or global_batch_size} queries (at least "
            "one a rank). Fix: raise it (and loss.contrastive_batch_size), or lower "
            "trainer.devices"
        )
    elif global_batch_size % (batch_size or global_batch_size):
        yield (
            f"data.global_batch_size={global_batch_size}: not a multiple of "
            f"loss.contrastive_batch_size={batch_size} (an optimizer step takes full contrastive "
            f"batches). Fix: data.global_batch_size={batch_size}"
        )
    elif num_hard == 0 and (batch_size or global_batch_size) == 1:
        yield (
            f"data.num_hard_negatives=0: with data.global_batch_size={global_batch_size} a "
            "contrastive batch has one passage, and its loss is always 0. Fix: raise "
            "data.global_batch_size or data.num_hard_negatives"
        )
    if num_hard == 0 and num_mined(config):
        yield (
            "data.num_hard_negatives=0: those that callbacks=refresh_negatives mines would not be "
            "used. Fix: data.num_hard_negatives=null"
        )
    if data.path is None and _needs_path(data.examples):
        yield "data.path is not set (the training data). Fix: data.path=FILE_OR_DIR"
    for key in ("path", "corpus_path", "split", "subset", "revision", "columns"):
        if data[key] is not None and key not in data.examples:
            yield (
                f"data.{key}={data[key]}: has no effect, this training set takes no {key}. "
                "Fix: leave it out"
            )
    yield from memory_violations(config)
    yield from lora_violations(config)


def _needs_path(examples: DictConfig) -> bool:
    """Return whether a training set is read from a path that the user must give."""
    parameter = signature_of(examples["_target_"]).parameters.get("path")
    return "path" in examples and parameter is not None and not fits(None, parameter.annotation)
