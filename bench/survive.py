"""Kill a training run after its first checkpoint, resume it, and compare with an uninterrupted run.

    python bench/survive.py --model FOLDER --texts FOLDER --work FOLDER --strategy zero2 [KEY=VALUE]

It trains LoRA, under `zero3` all weights in bf16-true, with evaluations in training. Both runs run
at the same time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from processes import ROOT, reason, run_until
from result_line import hand_over
from runs_compared import survival
from train_ours import training_command

NUM_STEPS, NUM_STEPS_PER_SAVE = 6, 3
FULL = ("trainer.precision=bf16-true",)


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """Run the training runs that should agree."""

    model: Path
    texts: Path
    work: Path
    strategy: str
    devices: int
    time_limit_s: float
    overrides: Sequence[str] = ()

    def run(self, name: str) -> Path:
        return self.work / name / "run"

    def train(self, name: str, *, is_killed: bool = False) -> None:
        """Run six optimizer steps with a checkpoint and an evaluation after three.

        Raises:
            RuntimeError: the run failed, or ended before it was killed.
        """
        run = self.run(name)
        run.parent.mkdir()
        is_full = self.strategy == "zero3"
        command = training_command(
            model=self.model,
            texts=self.texts,
            run=run,
            num_queries=4,
            benchmark="folder",
            adapter="none" if is_full else "lora",
            overrides=[
                f"strategy={self.strategy}", f"trainer.devices={self.devices}",
                *(FULL if is_full else ()), "data.num_workers=0",
                f"benchmark.path={self.texts / 'beir'}", "baseline=none",
                f"evaluation.every_n_steps={NUM_STEPS_PER_SAVE}",
                "evaluation.max_tokens_per_batch=32768", "data.num_hard_negatives=3",
                f"trainer.max_steps={NUM_STEPS}", "recipe.num_warmup_steps=2",
                "trainer.log_every_n_steps=1", "+trainer.deterministic=warn", "model.compile=false",
                f"callbacks.last_checkpoint.every_n_steps={NUM_STEPS_PER_SAVE}", *self.overrides,
            ],
        )  # fmt: skip
        self._run(command, name, run / "checkpoints" / "last.ckpt" if is_killed else None)
        if is_killed and (run / "model").exists():
            raise RuntimeError("the run ended before it was killed")

    def resume(self, name: str) -> None:
        run = self.run(name)
        command = [sys.executable, str(ROOT / "train.py"), "task=resume", f"run={run}"]
        self._run([*command, "logger=none"], f"{name}_resumed", None)

    def _run(self, command: Sequence[str], name: str, ends_when: Path | None) -> None:
        log = self.work / f"{name}.log"
        code = run_until(
            command, log=log, variables={}, time_limit_s=self.time_limit_s, ends_when=ends_when
        )
        output = log.read_text(encoding="utf-8", errors="replace")
        print(output, flush=True)
        if code != 0:
            why = "its time limit" if code is None else reason(output)
            raise RuntimeError(f"{name} ended: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("model", "texts", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--time-limit-s", type=float, default=240, help="of each run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the training")
    arguments = vars(parser.parse_args())
    work = Path(tempfile.mkdtemp(prefix="survive_", dir=arguments.pop("work")))
    survivor = Survivor(work=work, **arguments)

    def killed_and_resumed() -> None:
        survivor.train("killed", is_killed=True)
        survivor.resume("killed")

    with ThreadPoolExecutor(2) as pool:
        for running in (pool.submit(survivor.train, "whole"), pool.submit(killed_and_resumed)):
            running.result()
    hand_over(survival(survivor.run("whole"), survivor.run("killed"), first=NUM_STEPS_PER_SAVE))


if __name__ == "__main__":
    main()
