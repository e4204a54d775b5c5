"""Run a sweep of four tiny models with `hydra/launcher=gpus`; record which GPU each job had.

python bench/gpu_sweep.py --model FOLDER --texts FOLDER --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from processes import reason, run_until
from result_line import hand_over
from train_ours import training_command

NUM_JOBS = 4
Job = dict[str, Any]


def has_own_gpus(jobs: Sequence[Job], *, num_gpus: int) -> bool:
    """Return whether each job saw exactly one GPU, and shared it with no concurrent job.

    Args:
        jobs: `gpus`, the value of CUDA_VISIBLE_DEVICES, `begin` and `end` in seconds.
        num_gpus: of the machine; all must be used if there are enough jobs.
    """
    if any(len(job["gpus"].split(",")) != 1 or not job["gpus"] for job in jobs):
        return False
    ordered = sorted(jobs, key=lambda job: (job["gpus"], job["begin"]))
    for one, other in pairwise(ordered):
        if one["gpus"] == other["gpus"] and other["begin"] < one["end"]:
            return False
    return len({job["gpus"] for job in jobs}) == min(num_gpus, len(jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--num-jobs", type=int, default=NUM_JOBS)
    parser.add_argument("--num-gpus", type=int, required=True, help="that the machine has")
    parser.add_argument("--time-limit-s", type=float, default=200)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sweep_", dir=arguments.work))
    command = training_command(
        model=arguments.model,
        texts=arguments.texts,
        run=work / "unused",
        num_queries=2,
        overrides=[
            f"seed={','.join(map(str, range(1, arguments.num_jobs + 1)))}",
            "hydra/launcher=gpus", f"hydra.sweep.dir={work / 'sweep'}", "logger=none",
            "trainer.max_steps=10", "data.num_workers=0",
            "+callbacks.seen._target_=seen_gpus.SeenGpus",
            "+callbacks.seen.path=${paths.run_dir}/gpus.json",
        ],
    )  # fmt: skip
    command = [one for one in command if not one.startswith(("hydra.run.dir=", "logger=csv"))]
    command.insert(2, "-m")
    log = work / "sweep.log"
    start = time.perf_counter()
    code = run_until(command, log=log, variables={}, time_limit_s=arguments.time_limit_s)
    output = log.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        print(output)
        sys.exit(f"RuntimeError: the sweep ended with {code}: {reason(output)}")
    jobs = [json.loads(file.read_text()) for file in sorted(work.glob("sweep/*/gpus.json"))]
    hand_over(
        {
            "sweep_s": time.perf_counter() - start,
            "num_jobs": len(jobs),
            "gpus": [job["gpus"] for job in jobs],
            "has_own_gpus": len(jobs) == arguments.num_jobs
            and has_own_gpus(jobs, num_gpus=arguments.num_gpus),
        }
    )


if __name__ == "__main__":
    main()
