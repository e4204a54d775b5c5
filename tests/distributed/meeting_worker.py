"""One of several processes: agrees on a value before there is a group, then joins one."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch

from quarry.distributed import world
from quarry.distributed.launch import agreed_with_first

if __name__ == "__main__":
    launcher, own = sys.argv[1], os.environ["RANK"]
    if launcher == "slurm":
        os.environ |= {
            "SLURM_NTASKS": os.environ["WORLD_SIZE"],
            "SLURM_NTASKS_PER_NODE": os.environ["WORLD_SIZE"],
            "SLURM_PROCID": own,
            "SLURM_LOCALID": own,
            "SLURM_NODEID": "0",
            "SLURM_JOB_NAME": "study",
            "SLURM_NODELIST": "127.0.0.1",
        }
        del os.environ["RANK"]
    assert agreed_with_first(f"value of {own}") == "value of 0"
    os.environ["RANK"] = own
    # the port is free again
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    assert world.gathered(own) == [str(rank) for rank in range(world.size())]
    torch.distributed.destroy_process_group()
