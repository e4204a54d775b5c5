"""Report this machine: hardware, versions, and the rate of a large matrix product in bf16.

python bench/machine.py [--size 8192]
"""

from __future__ import annotations

import argparse
import os

import torch

from measuring import best_time
from quarry.runtime.provenance import collect_provenance
from result_line import hand_over

COMMIT = "QUARRY_COMMIT"
"""Environment variable that names the commit of a checkout without git."""

LARGEST_ON_CPU = 1024
"""Largest size on a CPU, where the rate is only informative and must not take minutes."""


def matrix_rate(size: int, *, num_products: int = 20) -> float:
    """Return the FLOP/s of a square matrix product, the best of three runs of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = torch.randn(2, size, size, device=device).bfloat16()

    def products() -> None:
        for _ in range(num_products):
            left @ right

    return num_products * 2 * size**3 / best_time(products, num_repeats=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=8192)
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    size = arguments.size if has_gpu else min(arguments.size, LARGEST_ON_CPU)
    provenance = collect_provenance()
    commit = {"commit": os.environ[COMMIT]} if os.environ.get(COMMIT) else None
    hand_over(
        {
            "device": torch.cuda.get_device_name() if has_gpu else f"{os.cpu_count()} CPU cores",
            "has_gpu": has_gpu,
            "num_gpus": torch.cuda.device_count(),
            "memory_gib": torch.cuda.mem_get_info()[1] / 2**30 if has_gpu else 0.0,
            "matrix_flop_per_s": matrix_rate(size),
            "matrix_size": size,
            "cuda": torch.version.cuda,
            **{key: provenance[key] for key in ("python", "packages", "hardware")},
            "git": commit or provenance["git"],
        }
    )


if __name__ == "__main__":
    main()
