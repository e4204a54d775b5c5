"""Processes that prepare batches: they start quickly, and none outlives the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

LOADER = """
import signal, sys, time
from torch.utils.data import DataLoader
from quarry.data.workers import follow_training_process, start_worker_server, worker_context

if __name__ == "__main__":
    start_worker_server()
    loader = DataLoader(
        range(1_000), num_workers=2, multiprocessing_context=worker_context(),
        worker_init_fn=follow_training_process,
    )
    batches = iter(loader)
    next(batches), next(batches)  # one of each worker
    signal.signal(signal.SIGINT, lambda *_: None)  # as in training, which ends an update first
    print(*(worker.pid for worker in batches._workers), flush=True)
    if sys.stdin.readline():
        print(2 + sum(1 for _ in batches))
"""


@pytest.mark.parametrize("entry", ["train.py", "eval.py"])
def test_a_worker_that_reads_an_entry_point_imports_little(entry: str) -> None:
    asks = (
        f"import runpy, sys; runpy.run_path({entry!r}, run_name='__mp_main__');"
        "print('pytorch_lightning' in sys.modules, 'transformers' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", asks],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout.split() == ["False", "False"], answer.stderr


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose loader has a batch of each worker; once told to, it reads the others."""
    script = tmp_path / "loader.py"
    script.write_text(LOADER, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # signals to its group are for it and its workers alone
    )
    with process:
        yield process
        process.kill()


def pids_of_workers(loader: subprocess.Popen[str]) -> list[int]:
    assert loader.stdout is not None
    pids = [int(pid) for pid in loader.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    return pids


@pytest.mark.timeout(90)
def test_workers_end_with_a_loader_that_is_killed(loader: subprocess.Popen[str]) -> None:
    workers = pids_of_workers(loader)
    loader.kill()
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "they are still there"
        time.sleep(0.1)


@pytest.mark.timeout(90)
def test_workers_outlive_a_ctrl_c_as_long_as_batches_are_wanted(
    loader: subprocess.Popen[str],
) -> None:
    workers = pids_of_workers(loader)
    os.killpg(loader.pid, signal.SIGINT)  # as a terminal does
    answer, _ = loader.communicate("go on\n", timeout=60)
    assert (answer, loader.returncode) == ("1000\n", 0)
    assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
