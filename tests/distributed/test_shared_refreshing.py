"""Two processes mine the hard negatives of one, each encoding and searching a share."""

from __future__ import annotations

from pathlib import Path

import torch

from helpers.joint_training import relative_error
from helpers.preloaded import PreloadedPython
from helpers.processes import run_processes
from helpers.refreshed_training import train

WORKER = Path(__file__).parent / "refreshing_worker.py"


def test_two_ranks_have_the_lists_of_one(tmp_path: Path, preloaded_python: PreloadedPython) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "together").mkdir()
    # no dropout: two ranks draw other masks than one
    alone = train(tmp_path / "alone", before_training=True, dropout=0.0)
    run_processes(
        preloaded_python, WORKER, str(tmp_path / "together"), num_processes=2, timeout_s=150
    )
    ranks = [torch.load(tmp_path / "together" / f"{rank}.pt") for rank in range(2)]
    assert list(alone["lists"]) == [0, 3, 6]
    for found in ranks:
        # of the first weights to the bit; then gradients are summed in another order
        assert found["lists"] == alone["lists"]
    assert ranks[0]["batches"] != ranks[1]["batches"]
    assert relative_error(ranks[0]["weights"], alone["weights"]) < 1e-4  # of fp32 sums
