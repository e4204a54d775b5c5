"""One of several processes that train the cases of `helpers.joint_training`; rank 0 writes them."""

from __future__ import annotations

import os
import sys

import torch

from helpers.joint_training import cases_of, dropout_cases, train
from quarry.distributed import world

if __name__ == "__main__":
    folder = sys.argv[1]
    torch.set_num_threads(1)
    num_processes = int(os.environ["WORLD_SIZE"])
    chosen = cases_of(num_processes)
    if num_processes == 2:
        chosen += [*dropout_cases("zero2"), *dropout_cases("zero3")]
    for case in chosen:
        result = train(case, num_processes=num_processes)
        torch.save(result, f"{folder}/{case.name}.{os.environ['RANK']}.pt")
    world.leave()
