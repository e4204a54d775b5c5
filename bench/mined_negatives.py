"""Train a pretrained model with mined hard negatives and without, with several seeds.

    python bench/mined_negatives.py --model DIR --train-set DIR --test-set DIR --work DIR

Both sets are BEIR folders. The train split of one and the test split of the other are cut to
--num-queries queries and --num-documents documents.

1. A plain training for each seed, with in-batch negatives.
2. `task=mine` with the model of the first seed, in the corpus of the training set.
3. A training of the base model for each seed, with one mined negative for each query that has some.
   Queries, optimizer steps and settings are the same.

`task=report` then compares both on the test set, and the base model is measured once. Finished runs
in --work are not made again; name another folder for other settings.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cut_sets import cut_set

ROOT = Path(__file__).resolve().parents[1]

TRAINING = (
    "model/adapter=lora", "model/pooling=mean", "prompt=repllama", "prompt.max_query_length=32",
    "prompt.max_document_length=64", "trainer.max_epochs=-1", "optimizer.lr=1e-3",
    "scheduler.num_warmup_steps=4", "loss.temperature=0.05", "callbacks=none", "logger=none",
    "benchmark=folder", "benchmark.content=code", "evaluation.every_n_steps=0",
    "evaluation.max_tokens_per_batch=2048",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """Run the commands of one comparison.

    Attributes:
        model: the pretrained model.
        train_set: BEIR folder, cut.
        test_set: BEIR folder, cut.
        work: folder of all runs.
        batch_size: queries of an optimizer step.
        max_steps: optimizer steps of a training.
    """

    model: Path
    train_set: Path
    test_set: Path
    work: Path
    batch_size: int
    max_steps: int

    def run(self, seeds: Sequence[int]) -> list[Path]:
        """Return the run directories of the plain and the mined trainings."""
        data = ("data=folder", f"data.path={self.train_set}", "data.split=train")
        plain, mined = ({seed: self.work / f"{name}_{seed}" for seed in seeds}
                        for name in ("plain", "mined"))  # fmt: skip
        for seed, run in plain.items():
            is_first = "true" if seed == seeds[0] else "false"
            self.train(run, seed, *data, f"evaluation.before_training={is_first}")
        negatives = self.work / f"negatives_{seeds[0]}"
        if not (negatives / "mining.json").exists():
            quarry(
                "train.py", "task=mine", f"model.path={plain[seeds[0]]}", *data,
                f"task.corpus={self.train_set}", "task.top_k=20", "task.sampling=random",
                "task.num_negatives=1", "task.keep_queries=true", f"seed={seeds[0]}",
                f"hydra.run.dir={negatives}",
            )  # fmt: skip
        for seed, run in mined.items():
            self.train(
                run, seed, "data=file", f"data.path={negatives / 'mined.jsonl'}",
                "data.num_hard_negatives=null", "evaluation.before_training=false",
            )  # fmt: skip
        return [*plain.values(), *mined.values()]

    def train(self, run: Path, seed: int, *overrides: str) -> None:
        if (run / "summary.json").exists():
            return
        shutil.rmtree(run, ignore_errors=True)  # of a call that was killed
        quarry(
            "train.py", "model=local", f"model.path={self.model}", *TRAINING, *overrides,
            f"benchmark.path={self.test_set}", f"trainer.max_steps={self.max_steps}",
            f"data.global_batch_size={self.batch_size}", f"seed={seed}", f"hydra.run.dir={run}",
        )  # fmt: skip


def quarry(*command: str) -> None:
    """Run a command of this checkout, and show how long it took."""
    start = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True)
    print(f"{time.monotonic() - start:.0f} s: {' '.join(command)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("--model", "--train-set", "--test-set", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--num-queries", type=int, default=300)
    parser.add_argument("--num-documents", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args(arguments)
    sizes = {"num_queries": given.num_queries, "num_documents": given.num_documents}
    work = given.work.resolve()
    train_set, test_set = work / "sets" / "train", work / "sets" / "test" / given.test_set.name
    if not (work / "sets" / "done").exists():
        shutil.rmtree(work / "sets", ignore_errors=True)
        cut_set(given.train_set, train_set, split="train", **sizes)
        cut_set(given.test_set, test_set, **sizes)
        (work / "sets" / "done").touch()
    trainings = Trainings(
        model=given.model.resolve(),
        train_set=train_set,
        test_set=test_set,
        work=work,
        batch_size=given.batch_size,
        max_steps=given.max_steps,
    )
    listed = ",".join(map(str, trainings.run(given.seeds)))
    quarry("eval.py", "task=report", f"runs=[{listed}]", f"task.folder={work / 'report'}")


if __name__ == "__main__":
    main()
