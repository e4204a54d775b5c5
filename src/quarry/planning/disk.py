"""Estimate what a run writes to disk, and what it has to download first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from pytorch_lightning.callbacks import ModelCheckpoint
from transformers import PretrainedConfig

from quarry.models.memory import FP32_BYTES, NUM_MOMENTS
from quarry.planning.step_memory import TrainingSetup
from quarry.training.callbacks.best_model import BestModel
from quarry.training.callbacks.last_checkpoint import LastCheckpoint

PUBLISHED_ITEMSIZE = 2
"""Bytes of a weight on the hub: bfloat16."""

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskNeed:
    """Hold the bytes on disk at their peak.

    Attributes:
        last: the checkpoint to resume from, and the one before it, which stays until the new one
            has proved to be good. Temporary files lie beside them, and are counted so.
        top: the checkpoints of the best evaluations, and the one that is about to replace one.
        best: the best model, and the one that it is about to replace.
        model: the trained model.
        download: from the hub, weights and data, into its cache.
    """

    last: int
    top: int
    best: int
    model: int
    download: int

    @property
    def run_directory(self) -> int:
        return self.last + self.top + self.best + self.model


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedFiles:
    """State what the callbacks of a run save.

    Attributes:
        has_last: the checkpoint to resume from.
        has_best: the best model.
        top_k: checkpoints of the best evaluations, of each such callback; -1: of all.
    """

    has_last: bool
    has_best: bool
    top_k: tuple[int, ...]

    @classmethod
    def of(cls, callbacks: Mapping[Any, Any]) -> SavedFiles:
        """Read it from the nodes in `callbacks`; a node that is null saves nothing."""
        nodes = [node for node in callbacks.values() if node is not None]
        kinds = [get_object(node["_target_"]) for node in nodes]
        return cls(
            has_last=LastCheckpoint in kinds,
            has_best=BestModel in kinds,
            top_k=tuple(
                node["save_top_k"]
                for kind, node in zip(kinds, nodes, strict=True)
                if kind is ModelCheckpoint
            ),
        )


def planned_disk(
    setup: TrainingSetup, saved: SavedFiles, *, num_evaluations: int, download: int
) -> DiskNeed:
    """Add up what a training leaves on disk.

    Args:
        num_evaluations: after the first optimizer step.
        download: bytes that have to come from the hub.
    """
    checkpoint, model = checkpoint_bytes(setup), model_bytes(setup)
    # a better one is written before the worst one is removed
    num_top = sum(num_evaluations if k == -1 else min(k + 1, num_evaluations) for k in saved.top_k)
    return DiskNeed(
        last=2 * checkpoint if saved.has_last else 0,
        top=num_top * checkpoint,
        best=2 * model if saved.has_best else 0,
        model=model,
        download=download,
    )


def checkpoint_bytes(setup: TrainingSetup) -> int:
    """Return the bytes of trained weights and their optimizer states; of all shards together."""
    if setup.zero is None:
        return setup.num_trained * setup.trained_itemsize * (1 + NUM_MOMENTS)
    return setup.num_trained * (setup.trained_itemsize + FP32_BYTES * (1 + NUM_MOMENTS))


def model_bytes(setup: TrainingSetup) -> int:
    """Return the bytes of an adapter, or of all weights; ZeRO saves trained ones in fp32."""
    itemsize = setup.trained_itemsize if setup.zero is None else FP32_BYTES
    trained = setup.num_trained * itemsize
    if not setup.kept.trains_backbone:
        return trained
    return trained + setup.num_frozen * setup.frozen_itemsize


def download_bytes(source: str, config: PretrainedConfig, *, num_parameters: int) -> int:
    """Return the bytes of weights to download; 0: they are in the hub's cache, or in a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).exists():
        return 0
    if any(isinstance(try_to_load_from_cache(source, name), str) for name in WEIGHT_FILES):
        return 0
    text = config.get_text_config()
    head = 0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size
    return PUBLISHED_ITEMSIZE * (num_parameters + head)
