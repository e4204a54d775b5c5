"""Processes that prepare batches: they start quickly, and none outlives the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

LOADER = """
import time
from torch.utils.data import DataLoader
from quarry.data.workers import end_with_training_process, start_worker_server, worker_context

if __name__ == "__main__":
    start_worker_server()
    loader = DataLoader(
        range(10_000), num_workers=2, multiprocessing_context=worker_context(),
        worker_init_fn=end_with_training_process,
    )
    batches = iter(loader)
    next(batches)
    print(*(worker.pid for worker in batches._workers), flush=True)
    time.sleep(60)
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


@pytest.mark.timeout(90)
def test_workers_end_with_a_loader_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "loader.py"
    script.write_text(LOADER, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        workers = [int(pid) for pid in it.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(is_alive, workers))
        it.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "they are still there"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
