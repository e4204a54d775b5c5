"""What is shown on two GPUs: data alone, stage by stage; `two_gpus.py` runs it.

Timed trainings end when their clock is full. The others train a few updates with evaluations and
checkpoints: `whole` to the end, `killed` until its first checkpoint, `resumed` from there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import ROOT
from train_ours import clock_overrides, training_command

CLOCK = "clock.json"
ONE = "ddp_one"
"""The job that trains in one process what the others train in two."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is.

    Attributes:
        large, small: sizes of models, see random_model.py.
        num_words: that texts are made of.
        num_queries: of a timed update on one GPU, each with 16 passages.
        num_queries_full: of an update of all weights of the large model, on both GPUs.
        num_warm_up, num_steps: updates before and under the clock, in windows of a third of them.
        num_updates, num_updates_per_save: of a run that is killed and goes on.
        num_workers: that prepare batches.
        is_compiled: timed trainings of LoRA compile their layers.
        survivors: strategies whose runs are killed and go on: LoRA of the large model, under
            `zero3` all weights of the small one.
        time_limit_s: of each process.
    """

    large: str = "7B"
    small: str = "1.5B"
    num_words: int = 151_000
    num_queries: int = 8
    num_queries_full: int = 16
    num_warm_up: int = 4
    num_steps: int = 12
    num_updates: int = 6
    num_updates_per_save: int = 3
    num_workers: int = 2
    is_compiled: bool = True
    survivors: tuple[str, ...] = ("ddp", "zero2", "zero3")
    time_limit_s: float = 170


SCALES = {
    "full": Scale(),
    "tiny": Scale(
        large="tiny", small="tiny", num_words=1000, num_queries=2, num_queries_full=4,
        num_warm_up=1, num_steps=3, num_workers=0, is_compiled=False,
        survivors=("ddp", "zero3"),
    ),
}  # fmt: skip
"""`tiny` asks whether it runs at all, on any machine; its numbers mean nothing."""

LORA_STRATEGIES = ("ddp", "zero2")
FULL = ("strategy=zero3", "trainer.precision=bf16-true")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training in processes of its own.

    Attributes:
        name: of its result.
        gpus: that it sees.
        run: its run directory.
        ends_when: the file that it is ended after; None: it ends by itself.
        grace_s: how long it may take to end by itself once that file is there.
        num_queries: of an update.
    """

    name: str
    command: tuple[str, ...]
    gpus: tuple[int, ...]
    run: Path
    time_limit_s: float
    num_queries: int
    ends_when: Path | None = None
    grace_s: float = 0

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoints" / "last.ckpt"


Lane = tuple[Job, ...]
"""One after another."""

Stages = dict[str, tuple[Lane, ...]]
"""Lanes of a stage run side by side."""


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Makes them; everything lies in `work`."""

    work: Path
    scale: Scale

    def stages(self) -> Stages:
        """The most important first."""
        scale, few = self.scale, self.scale.num_queries
        many = 2 * few
        return {
            "one": (
                (self._lora("lora_one", few, gpus=(0,)),),
                (
                    self._trained(ONE, "auto", gpus=(1,)),
                    self._full("full_small_one", scale.small, few, gpus=(1,)),
                ),
            ),
            "ddp": ((self._lora("lora_ddp", many, "strategy=ddp"),),),
            "zero2": ((self._lora("lora_zero2", many, "strategy=zero2"),),),
            "whole": tuple((self._trained(f"{name}_whole", name),) for name in scale.survivors),
            "killed": tuple((self._killed(name),) for name in scale.survivors),
            "resumed": tuple((self._resumed(name),) for name in scale.survivors),
            "zero3_large": (
                (
                    self._full(
                        "full_large",
                        scale.large,
                        scale.num_queries_full,
                        "model.gradient_checkpointing=true",
                    ),
                ),
            ),
            "zero3_small": ((self._full("full_small", scale.small, many),),),
            "same_batch": (
                (
                    self._lora("lora_ddp_same_batch", few, "strategy=ddp"),
                    self._lora("lora_zero2_same_batch", few, "strategy=zero2"),
                ),
            ),
        }

    def _lora(
        self, name: str, num_queries: int, *overrides: str, gpus: tuple[int, ...] = (0, 1)
    ) -> Job:
        compiled = f"model.compile={str(self.scale.is_compiled).lower()}"
        more = [compiled, *overrides]
        return self._timed(name, self.scale.large, num_queries, more, adapter="lora", gpus=gpus)

    def _full(
        self,
        name: str,
        size: str,
        num_queries: int,
        *overrides: str,
        gpus: tuple[int, ...] = (0, 1),
    ) -> Job:
        more = ["model.compile=false", *FULL, *overrides]
        return self._timed(name, size, num_queries, more, adapter="none", gpus=gpus)

    def _timed(
        self,
        name: str,
        size: str,
        num_queries: int,
        overrides: Sequence[str],
        *,
        adapter: str,
        gpus: tuple[int, ...],
    ) -> Job:
        run = self.run_of(name)
        clock = clock_overrides(
            run.with_name(CLOCK),
            num_warm_up=self.scale.num_warm_up,
            num_steps=self.scale.num_steps,
            num_steps_per_window=self.scale.num_steps // 3,
        )
        command = training_command(
            model=self.model(size),
            texts=self.texts,
            run=run,
            num_queries=num_queries,
            adapter=adapter,
            overrides=[*self._common(gpus), *clock, *overrides],
        )
        return Job(
            name=name,
            command=tuple(command),
            gpus=gpus,
            run=run,
            time_limit_s=self.scale.time_limit_s,
            num_queries=num_queries,
            ends_when=run.with_name(CLOCK),
            grace_s=4,
        )

    def _trained(
        self, name: str, strategy: str, *, gpus: tuple[int, ...] = (0, 1), is_killed: bool = False
    ) -> Job:
        scale, run = self.scale, self.run_of(name)
        is_full = strategy == "zero3"
        command = training_command(
            model=self.model(scale.small if is_full else scale.large),
            texts=self.texts,
            run=run,
            num_queries=4,
            benchmark="folder",
            adapter="none" if is_full else "lora",
            overrides=[
                *self._common(gpus),
                *(FULL if is_full else [f"strategy={strategy}"]),
                f"benchmark.path={self.texts / 'beir'}", "baseline=none",
                f"evaluation.every_n_steps={scale.num_updates_per_save}",
                "evaluation.max_tokens_per_batch=4096", "data.num_hard_negatives=3",
                f"trainer.max_steps={scale.num_updates}", "recipe.num_warmup_steps=2",
                "trainer.log_every_n_steps=1", "+trainer.deterministic=warn", "model.compile=false",
                f"callbacks.last_checkpoint.every_n_steps={scale.num_updates_per_save}",
            ],
        )  # fmt: skip
        return Job(
            name=name,
            command=tuple(command),
            gpus=gpus,
            run=run,
            time_limit_s=scale.time_limit_s,
            num_queries=4,
            ends_when=run / "checkpoints" / "last.ckpt" if is_killed else None,
        )

    def _killed(self, strategy: str) -> Job:
        return self._trained(f"{strategy}_killed", strategy, is_killed=True)

    def _resumed(self, strategy: str) -> Job:
        run = self.result_of(f"{strategy}_resumed")
        command = (sys.executable, str(ROOT / "train.py"), "task=resume", f"run={run}")
        return Job(
            name=f"{strategy}_resumed",
            command=(*command, "logger=none"),
            gpus=(0, 1),
            run=run,
            time_limit_s=self.scale.time_limit_s,
            num_queries=4,
        )

    def _common(self, gpus: tuple[int, ...]) -> list[str]:
        return [f"trainer.devices={len(gpus)}", f"data.num_workers={self.scale.num_workers}"]

    def result_of(self, name: str) -> Path:
        """The run directory that holds the result of a job, which may go on in an earlier one's."""
        return self.run_of(name.replace("_resumed", "_killed"))

    def run_of(self, name: str) -> Path:
        """The run directory that a job begins."""
        return self.work / name / "run"

    @property
    def texts(self) -> Path:
        return self.work / "texts"

    def model(self, size: str) -> Path:
        return self.work / f"model_{size}"
