"""Write Lightning's checkpoints beside their target, atomically and durably."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.strategies import Strategy

from quarry.runtime.files import replacing


class DurableCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint to a hidden file beside the target, sync it, and rename it.

    Lightning's own plugin serializes a checkpoint in memory, writes it into the temporary folder,
    and moves it from there. It needs memory and room for a second copy of the training state in
    places that nobody has planned for.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("storage_options: there are none for local files")
        # through a file object: torch would store the name of a path in the file
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)


def save_durably(strategy: Strategy) -> None:
    """Let a strategy write its checkpoints so, unless the user has chosen a plugin."""
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = DurableCheckpointIO()
