"""One of several processes that mine together during a training; each writes what it found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from helpers.refreshed_training import train
from quarry.distributed import world

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    found = train(folder, num_processes=2, before_training=True, dropout=0.0)
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
    world.leave()
