"""Encode the blocks of a job by Ray: blocks are tasks, and each encoder is an actor.

Ray places the actors, starts them again where they died, and repeats their block; with
`address` its autoscaler adds nodes for actors that wait. Workers read the corpus and write their
blocks by themselves, so only numbers and records go through Ray.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from quarry.assembly.loaded_encoder import PreparedEncoder
from quarry.encoding.encode_job import EncodeJob
from quarry.encoding.manifest import StoredBlock
from quarry.errors import UserError
from quarry.runtime.extras import require
from quarry.runtime.progress import Progress

logger = logging.getLogger(__name__)

MAX_DEATHS = 50
"""Deaths of workers on one block before it counts as their cause."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a Ray of our own: near the least that Ray takes, for next to nothing goes through it."""

WAIT_S = 30.0
"""Seconds after which a log says that no worker has started."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers are started as this process was, without uv
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU of its own: unchanged
    "RAY_DEDUP_LOGS": "0",
}


class BlockWorker:
    """Actor that encodes blocks; its model loads with the first one.

    Args:
        job: what it encodes.
        num_threads: of torch on the CPU.
    """

    def __init__(self, job: EncodeJob, num_threads: int) -> None:
        import torch

        from quarry.encoding.block_encoder import BlockEncoder

        torch.set_num_threads(num_threads)
        self._blocks = BlockEncoder(job)

    def process_id(self) -> int:
        """Return the id of this process, when it is ready to work."""
        return os.getpid()

    def encode(self, number: int) -> StoredBlock:
        """Encode a block; one that is finished is only looked up."""
        return self._blocks.encode(number)


def by_ray(
    job: EncodeJob,
    numbers: Sequence[int],
    prepared: PreparedEncoder,
    *,
    address: str | None,
    num_workers: int | None,
    cpus_per_worker: int,
    on_worker: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, StoredBlock]]:
    """Yield each block when a worker has finished it.

    Args:
        numbers: the open blocks.
        address: of a cluster; None: a Ray of its own on this machine, which ends with the job.
        num_workers: encoders; None: one for each GPU, else for each `cpus_per_worker` CPUs.
        cpus_per_worker: CPUs, and threads, of each.
        on_worker: receives the process id of each worker that is ready for the first time.

    Raises:
        UserError: of a worker; Ray is not installed or not reached, has no room for one worker, or
            workers die again and again on one block.
    """
    require("ray", what="task.engine=ray")
    if not numbers:
        return
    with _connected(address, num_workers=num_workers, cpus_per_worker=cpus_per_worker) as ray:
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        count = _num_workers(ray, num_workers, cpus_per_worker, has_gpus=has_gpus)
        actor = ray.remote(
            num_cpus=cpus_per_worker,
            num_gpus=1 if has_gpus else 0,
            max_restarts=-1,
            max_task_retries=MAX_DEATHS,
        )(BlockWorker)
        # the job itself, which is small: a worker that starts again gets it again
        workers = [actor.remote(job, cpus_per_worker) for _ in range(min(count, len(numbers)))]
        logger.info("%s: %d workers of Ray for %d blocks", job.label, len(workers), len(numbers))
        yield from _finished(ray, job, numbers, workers, on_worker=on_worker)


def _finished(
    ray: Any,
    job: EncodeJob,
    numbers: Sequence[int],
    workers: Sequence[Any],
    *,
    on_worker: Callable[[int], None],
) -> Iterator[tuple[int, StoredBlock]]:
    """Give the next open block to whichever worker is free, until all are finished.

    A worker gets its first block when it runs: one that waits for a node holds none.
    """
    starting = {worker.process_id.remote(): worker for worker in workers}
    working: dict[Any, tuple[Any, int]] = {}
    waiting = deque(numbers)
    num_open = sum(len(job.texts_of(number)) for number in numbers)
    total = len(job.corpus)
    with Progress(
        label=job.label, total=total, units="texts", num_done=total - num_open
    ) as progress:
        while waiting or working:
            done, _ = ray.wait([*starting, *working], timeout=WAIT_S)
            if not done and not working:
                _say_that_none_started(ray)
            for task in done:
                if task in starting:
                    worker = starting.pop(task)
                    on_worker(_result(ray, task, job, None))
                else:
                    worker, number = working.pop(task)
                    block: StoredBlock = _result(ray, task, job, number)
                    progress.add(block.num_texts)
                    yield number, block
                if waiting:
                    number = waiting.popleft()
                    working[worker.encode.remote(number)] = worker, number


def _result(ray: Any, task: Any, job: EncodeJob, number: int | None) -> Any:
    """Return the result of a task.

    Raises:
        UserError: that of the worker, or its process died too often.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        which = "starting" if number is None else f"block {number} of {job.label}"
        raise UserError(
            f"task.engine=ray: workers ended again and again at {which} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}). Finished blocks are "
            "kept. Fix: give them more memory, fewer of them (task.num_workers), or a lower "
            "evaluation.max_tokens_per_batch, and run the same command again"
        ) from error


def _say_that_none_started(ray: Any) -> None:
    free, there = ray.available_resources(), ray.cluster_resources()
    logger.warning(
        "task.engine=ray: no worker has started yet (free: %g of %g CPUs, %g of %g GPUs)",
        free.get("CPU", 0), there.get("CPU", 0), free.get("GPU", 0), there.get("GPU", 0),
    )  # fmt: skip


def _num_workers(ray: Any, asked: int | None, cpus_per_worker: int, *, has_gpus: bool) -> int:
    if asked is not None:
        return asked
    there = ray.cluster_resources()
    count = int(there["GPU"] if has_gpus else there.get("CPU", 0) // cpus_per_worker)
    if count < 1:
        raise UserError(
            f"task.cpus_per_worker={cpus_per_worker}: Ray has {there.get('CPU', 0):g} CPUs (a "
            "worker would wait for ever). Fix: task.cpus_per_worker=1"
        )
    return count


class _RayMessages(io.TextIOBase):
    """Stands for stdout, to which Ray writes news of dying workers: puts them into the log."""

    def write(self, text: str) -> int:
        if words := re.sub(r"\x1b\[[\d;]*m", "", text).strip():
            logger.info("Ray: %s", words.partition(". ")[0][:200])
        return len(text)


@contextlib.contextmanager
def _connected(
    address: str | None, *, num_workers: int | None, cpus_per_worker: int
) -> Iterator[Any]:
    """Yield the module of Ray, connected to a cluster, or to a Ray that ends with the block."""
    import ray

    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    settings: dict[str, Any] = {
        "logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False,
    }  # fmt: skip
    folder = None
    if address is None:
        # sockets lie in it, whose paths are short
        folder = Path(tempfile.mkdtemp(prefix="quarry-ray-", dir=_short_folder()))
        num_cpus = os.cpu_count() or 1
        if num_workers is not None:  # more than there are is the user's choice on one machine
            num_cpus = max(num_cpus, num_workers * cpus_per_worker)
        settings |= {
            "address": "local", "_temp_dir": str(folder), "num_cpus": num_cpus,
            "object_store_memory": OBJECT_STORE_BYTES,
        }  # fmt: skip
    else:
        settings = {key: settings[key] for key in ("logging_level", "log_to_driver")}
        settings["address"] = address
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            ray.init(**settings)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"task.engine=ray: Ray cannot be reached or started ({error}). Fix: "
                "task.address=HOST:PORT of a running cluster (ray status), or leave it out"
            ) from error
        _restore(handlers)  # Ray's own would end the process without a word
        with contextlib.redirect_stdout(_RayMessages()):
            yield ray
    finally:
        ray.shutdown()
        _restore(handlers)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _short_folder() -> str | None:
    """Return a folder for sockets, whose paths may have 107 bytes; None: the system's own."""
    return "/tmp" if len(tempfile.gettempdir()) > 30 and Path("/tmp").is_dir() else None
