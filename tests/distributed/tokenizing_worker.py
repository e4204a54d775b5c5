"""One of several ranks that tokenize a corpus together; see `MODES` for what else they do."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch

from helpers.shared_tokenizing import (
    encode_stored,
    fail_to_encode,
    fail_to_tokenize,
    tokenize_all,
)
from quarry.distributed import world
from quarry.errors import UserError

MODES = ("tokenize", "fail", "one fails", "store", "die")


def work(mode: str, folder: Path) -> object:
    if mode == "tokenize":
        return tokenize_all()
    if mode == "fail":
        return fail_to_tokenize()
    if mode == "store":
        return encode_stored(folder / "store")
    try:
        if mode == "die":
            return encode_stored(folder / "store", dies_at=15)
        fail_to_encode()
    except Exception as error:  # noqa: BLE001 (of one rank; the other sees that it is gone)
        traceback.print_exc()
        torch.save(isinstance(error, UserError), folder / f"failed {world.rank()}.pt")
    os._exit(0)


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    assert mode in MODES
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    found = work(mode, folder)
    torch.save(found, folder / f"{mode} {os.environ['RANK']}.pt")
    world.leave()
