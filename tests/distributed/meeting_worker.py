"""One of several processes: agrees on a value before there is a group, then joins one."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch

from quarry.distributed import world
from quarry.distributed.launch import agreed_with_first


def meet(own: str) -> None:
    assert agreed_with_first(f"value of {own}") == "value of 0"
    # the port is free again
    os.environ["RANK"] = own
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    assert world.gathered(own) == [str(rank) for rank in range(world.size())]
    world.leave()


if __name__ == "__main__":
    rank = os.environ["RANK"]
    meet(rank)  # told as by DeepSpeed's launcher
    os.environ |= {
        "SLURM_NTASKS": os.environ["WORLD_SIZE"],
        "SLURM_NTASKS_PER_NODE": os.environ["WORLD_SIZE"],
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_NODEID": "0",
        "SLURM_JOB_NAME": "study",
        "SLURM_NODELIST": "127.0.0.1",
    }
    os.environ["MASTER_PORT"] = sys.argv[1]  # the first may be open still
    del os.environ["RANK"]
    meet(rank)
