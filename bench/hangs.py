"""Count runs that hang in an evaluation during training under ZeRO 3, with uneven shares.

    python bench/hangs.py --model FOLDER --texts FOLDER --work FOLDER [--num-runs 20]

Each run trains a tiny model for three optimizer steps and evaluates before, after each, and at the
end. The corpus changes from run to run: as many texts as make the ranks' shares of batches differ,
and in every third run fewer texts than ranks, so that a share is empty.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from processes import reason, run_until
from result_line import hand_over
from texts import stand_in_words, write_beir
from train_ours import training_command

HANGS = "hangs"
NUM_WORDS = 1000


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Run training jobs that could hang."""

    model: Path
    texts: Path
    work: Path
    devices: int
    time_limit_s: float

    def run(self, number: int) -> tuple[str | None, float]:
        """Return why the run with this number failed, None if it did not, and its seconds."""
        folder = self.work / f"run_{number}"
        num_documents = 1 if number % 3 == 2 else 2 * self.devices * (2 + number) + 1
        write_beir(
            folder / "beir",
            num_queries=min(num_documents, 3 + number % 4),
            num_documents=num_documents,
            words=stand_in_words(NUM_WORDS),
            seed=number,
        )
        command = training_command(
            model=self.model,
            texts=self.texts,
            run=folder / "run",
            num_queries=2 * self.devices,
            benchmark="folder",
            adapter="none",
            overrides=[
                "strategy=zero3", f"trainer.devices={self.devices}", "trainer.precision=bf16-true",
                f"benchmark.path={folder / 'beir'}", "baseline=none", "evaluation.every_n_steps=1",
                "evaluation.max_tokens_per_batch=512", "data.num_hard_negatives=3",
                "trainer.max_steps=3", "model.compile=false", "data.num_workers=0",
                f"seed={number}",
            ],
        )  # fmt: skip
        log = folder / "run.log"
        start = time.monotonic()
        code = run_until(command, log=log, variables={}, time_limit_s=self.time_limit_s)
        seconds = time.monotonic() - start
        if code is None:
            return HANGS, seconds
        output = log.read_text(encoding="utf-8", errors="replace")
        return (reason(output) if code else None), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("model", "texts", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--num-runs", type=int, default=20)
    parser.add_argument("--num-at-once", type=int, default=5)
    parser.add_argument("--time-limit-s", type=float, default=90, help="a longer run hangs")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="hangs_", dir=arguments.work))
    runs = Runs(
        model=arguments.model,
        texts=arguments.texts,
        work=work,
        devices=arguments.devices,
        time_limit_s=arguments.time_limit_s,
    )
    with ThreadPoolExecutor(arguments.num_at_once) as pool:
        ended = list(pool.map(runs.run, range(arguments.num_runs)))
    failures = [why for why, _ in ended if why not in (None, HANGS)]
    hand_over(
        {
            "num_runs": len(ended),
            "num_hangs": sum(why == HANGS for why, _ in ended),
            "num_failed": len(failures),
            "failures": failures[:3],
            "run_s": sorted(round(seconds, 1) for _, seconds in ended),
            "time_limit_s": arguments.time_limit_s,
        }
    )


if __name__ == "__main__":
    main()
