"""Start the data loader's worker processes from a server that has imported what they need.

A spawned worker imports everything again, and a loader starts its workers one after the other:
it waits until each has read its arguments. That took 5 to 6 s a worker. A plain fork is not
possible, since the training process has threads and a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

PRELOADED = ("hydra", "quarry.config.schema", "quarry.data.collation", "quarry.data.train_dataset")
"""Modules of a worker's dataset and collator; the first two serve train.py, which each imports."""


def worker_context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")


def start_worker_server() -> None:
    """Start the server if it does not run yet; return at once, while the server imports."""
    worker_context().set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


def follow_training_process(_worker_id: int) -> None:
    """End a worker when its loader ends, and not before; for a loader's `worker_init_fn`.

    Not before: Ctrl-C reaches all processes of a terminal, and the training process may need more
    batches to complete an optimizer step before it saves.

    Also when the loader was killed: PyTorch's own check watches the parent of a worker. Here that
    is the server, which lives as long as one of its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    loader_process = multiprocessing.parent_process()
    if loader_process is not None:
        loader_process.join()
        os._exit(1)
