"""Processes that prepare batches: forked from a server that has imported what they need.

A worker that is spawned imports everything anew, and a loader starts its workers one after the
other: it waits until each has read what it is given. That took 5 to 6 s a worker. A plain fork is
no way, since the training process has threads and a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

PRELOADED = ("hydra", "quarry.config.schema", "quarry.data.collation", "quarry.data.train_dataset")
"""What a worker's dataset and collator take; the former two are for train.py, which each reads."""


def worker_context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")


def start_worker_server() -> None:
    """Returns at once; the server imports by itself. One that runs already stays as it is."""
    worker_context().set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


def follow_training_process(_worker_id: int) -> None:
    """For a loader's `worker_init_fn`: the worker ends when its loader does, and not before.

    Not before: Ctrl-C reaches all processes of a terminal, and the one that trains may want some
    more batches, to end an update before it saves.

    When its loader does, even if that was killed: PyTorch's own watch looks at the process that a
    worker was forked from, here the server, which lives as long as one of its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    loader_process = multiprocessing.parent_process()
    if loader_process is not None:
        loader_process.join()
        os._exit(1)
