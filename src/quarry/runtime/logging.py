"""Write log lines to the console (Hydra's handler) and the run directory; quiet libraries."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from quarry.distributed import world
from quarry.runtime.files import open_own
from quarry.runtime.hiding import HidingFormatter


@contextmanager
def logs_to(path: Path) -> Iterator[None]:
    """Add a log file to the root logger inside the block; secrets are hidden in it.

    Raises:
        UserError: `path` is a link, which could lead out of the run directory.
    """
    stream = open_own(path, "a", encoding="utf-8")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HidingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        stream.close()


def quiet_libraries() -> None:
    """Silence messages of libraries that repeat in every run and that nobody can act on.

    On ranks other than 0, silence everything but errors.
    """
    if not world.is_launched_first():
        logging.getLogger().setLevel(logging.ERROR)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it found none
    disable_progress_bar()
    # a DeprecationWarning is for a dependency's authors; ours are logged
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated.*")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated.*")
    warnings.filterwarnings("ignore", message=".*saving the DeepSpeed Stage 3 checkpoint.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    for name in (
        "pytorch_lightning",
        "lightning",
        "lightning_fabric",
        "httpx",
        "huggingface_hub",
        "datasets",
        "DeepSpeed",
        "compilers",  # what DeepSpeed's import tries out
        "matplotlib",
        "bm25s",
        "faiss",
        "sentence_transformers",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
