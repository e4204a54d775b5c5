from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from quarry.runtime.devices import visible_gpus
from quarry.sweep.gpu_slots import lent_gpus


def test_the_environment_names_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus() == ("3", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


@pytest.mark.timeout(60)
def test_each_gpu_is_lent_to_one_at_a_time(tmp_path: Path) -> None:
    lock = threading.Lock()
    held: list[str] = []
    most = 0

    def job(num: int) -> None:
        nonlocal most
        with lent_gpus(num, gpus=("0", "1", "2"), folder=tmp_path) as lent:
            with lock:
                assert len(lent) == num
                assert not set(lent) & set(held)
                held.extend(lent)
                most = max(most, len(held))
            time.sleep(0.2)
            with lock:
                for gpu in lent:
                    held.remove(gpu)

    errors: list[BaseException] = []

    def noted(num: int) -> None:
        try:
            job(num)
        except Exception as error:  # noqa: BLE001 (of a thread)
            errors.append(error)

    jobs = [threading.Thread(target=noted, args=[num]) for num in (1, 2, 1, 2, 3)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert errors == []
    assert held == []
    assert most > 1
