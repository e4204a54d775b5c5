"""One of several processes that stop, diverge and go on; what each found is written down."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from peft.tuners.lora import Linear as LoraLinear

from helpers.joint_training import Case, build, counted, datamodule_of, strategy_of
from helpers.training import quiet_trainer
from quarry.distributed import world
from quarry.errors import Interrupted, SharedError
from quarry.losses.info_nce import InfoNCE
from quarry.models.adapters import fast_lora
from quarry.training.callbacks.divergence import StopOnDivergence, TrainingDivergedError
from quarry.training.callbacks.last_checkpoint import LastCheckpoint
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.checkpoint_files import facts
from quarry.training.module import RetrievalModule
from quarry.training.optim import constant_schedule
from quarry.training.trained_state import full_state, read_trained

NUM_STEPS = 3


class AtEnd(pl.Callback):
    """Keeps the trained weights."""

    weights: dict[str, torch.Tensor]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights = full_state(pl_module, is_trained_only=True)


class InterruptOne(pl.Callback):
    """Sends SIGTERM to the last process alone, after an update."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and world.rank() == world.size() - 1:
            signal.raise_signal(signal.SIGTERM)


class SpoilOne(pl.Callback):
    """Makes a number of the last process's loss infinite, in the third contrastive batch."""

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: torch.Tensor) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == 2 and world.rank() == world.size() - 1:
            with torch.no_grad():
                loss.fill_(torch.inf)


class SpoilGradient(pl.Callback):
    """Spoils a gradient of one process on its way, in the third contrastive batch."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, _: Any, index: int) -> None:
        if index == 2 and world.rank() == 0:
            norm = module.model.backbone.norm
            norm.register_full_backward_hook(lambda m, gi, go: (gi[0] * torch.nan,))


def broadcasts(case: Case, folder: Path) -> int:
    """Tensors that a whole training sends from the first process to the others, one by one."""
    with mock.patch.object(
        torch.distributed, "broadcast", wraps=torch.distributed.broadcast
    ) as broadcast:
        fit(case, folder / "counted.ckpt")
    return broadcast.call_count


def fit(
    case: Case,
    path: Path,
    *callbacks: pl.Callback,
    resumes: bool = False,
    every_n_steps: int = 2,
) -> AtEnd:
    """Trains a case with a checkpoint after every second update."""
    datamodule = datamodule_of(case)
    module = RetrievalModule(
        build_model=partial(build, case=case), loss=InfoNCE(temperature=0.02),
        optimizer=partial(torch.optim.AdamW, lr=1e-3), num_training_steps=NUM_STEPS,
        scheduler=partial(constant_schedule, num_warmup_steps=2),
        grad_cache_chunk_tokens=case.budget,
    )  # fmt: skip
    end = AtEnd()
    pl.seed_everything(5, verbose=False)
    trainer = quiet_trainer(
        *callbacks, end, RNGState(), LastCheckpoint(path=path, every_n_steps=every_n_steps),
        devices=world_size(), strategy=strategy_of(case.strategy), max_steps=NUM_STEPS,
        max_epochs=-1, gradient_clip_val=1.0, enable_checkpointing=True,
        accumulate_grad_batches=datamodule.num_batches_per_step,
    )  # fmt: skip
    trainer.fit(module, datamodule, ckpt_path=path if resumes else None)
    return end


def world_size() -> int:
    return int(os.environ["WORLD_SIZE"])


def stops_and_goes_on(case: Case, folder: Path) -> dict[str, Any]:
    """A run that one process was asked to stop, its continuation, and one that never stopped."""
    with counted(fast_lora, "lora_product") as fast, counted(LoraLinear, "forward") as plain:
        whole = fit(case, folder / "whole.ckpt")
    path = folder / "stopped.ckpt"
    message = ""
    try:
        fit(case, path, InterruptOne(step=1))
    except Interrupted as interruption:
        message = str(interruption)
    stored = read_trained(path) if world.rank() == 0 else {}
    resumed = fit(case, path, resumes=True)
    return {
        "calls": {"fast": fast.call_count, "peft": plain.call_count},
        "message": message,
        "whole": whole.weights,
        "resumed": resumed.weights,
        "stored": {name: tuple(tensor.shape) for name, tensor in stored.items()},
        "files": sorted(file.name for file in folder.iterdir()),
    }


def diverges(case: Case, folder: Path, spoil: pl.Callback) -> tuple[str, dict[str, Any]]:
    """What a run says that one process would spoil, and what the state is that it leaves."""
    path = folder / f"{case.strategy} {type(spoil).__name__}" / "last.ckpt"
    try:
        fit(case, path, spoil, StopOnDivergence(checkpoint=path), every_n_steps=1)
    except TrainingDivergedError as error:
        world.barrier()
        names = [file.name for file in path.parent.iterdir()]
        return str(error), {"step": facts(path)["step"], "num_files": len(names)}
    return "nothing", {}


def shared_failures() -> list[str]:
    """What every process raises when the first one fails."""
    found = []
    for error in (SharedError("users"), OSError("disk full")):

        def fails(error: Exception = error) -> None:
            raise error

        try:
            world.first_does(fails)
        except (SharedError, OSError, RuntimeError) as raised:
            found.append(f"{type(raised).__name__}: {raised}")
    return found


def main(folder: Path) -> None:
    result: dict[str, Any] = {}
    for strategy in ("ddp", "zero1", "zero2", "zero3"):
        case = Case(
            strategy=strategy, is_lora=True, dropout=0.2, budget=40, num_contrastive_batches=2,
            has_projections=True,
        )  # fmt: skip
        (folder / strategy).mkdir(exist_ok=True)
        result[strategy] = stops_and_goes_on(case, folder / strategy)
        plain = Case(strategy=strategy)
        if strategy in ("ddp", "zero3"):
            result[f"{strategy} loss"] = diverges(plain, folder, SpoilOne())
        if strategy != "zero1":
            result[f"{strategy} gradient"] = diverges(plain, folder, SpoilGradient())
    result["broadcasts"] = broadcasts(Case(strategy="ddp"), folder)
    result["failures"] = shared_failures()
    torch.save(result, folder / f"result.{world.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    world.leave()
