"""Run a script with a limit on GPU memory, as on a smaller card.

    python bench/limited.py 40 train.py experiment=sft_msmarco ...

The limit is set before the script starts, so it applies to everything.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch

from quarry.runtime.entry import settle_allocator

GIB = 2**30


def share_of(limit_gib: float, num_bytes: int) -> float:
    """Return `limit_gib` as a share of a card's memory.

    Raises:
        ValueError: the limit is not above 0 and at most the card's memory.
    """
    share = limit_gib * GIB / num_bytes
    if not 0 < share <= 1:
        raise ValueError(
            f"{limit_gib:g} GiB: must be above 0 and at most {num_bytes / GIB:.1f}, what the card "
            "has. Fix: give another limit."
        )
    return share


def limit(limit_gib: float) -> None:
    """Limit torch's allocator in this process to `limit_gib` of the first GPU.

    Raises:
        ValueError: there is no GPU, or it has less.
    """
    if not torch.cuda.is_available():
        raise ValueError(f"{limit_gib:g} GiB: needs a CUDA device.")
    share = share_of(limit_gib, torch.cuda.get_device_properties(0).total_memory)
    assert torch.cuda.memory_reserved(0) == 0, "something was loaded before the limit"
    torch.cuda.set_per_process_memory_fraction(share, 0)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("usage: python bench/limited.py GIB SCRIPT [ARGUMENTS ...]")
    settle_allocator()  # as train.py does; there it would be too late
    limit(float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as if it were started directly
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
