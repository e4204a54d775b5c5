"""One of several processes that evaluate together; each writes what it found."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch

from helpers.shared_evaluation import evaluate
from quarry.distributed import world

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.save(evaluate(folder / "store"), folder / f"{os.environ['RANK']}.pt")
    world.leave()
