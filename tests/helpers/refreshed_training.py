"""A small training whose hard negatives are mined again, with all that can be compared."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from helpers.joint_training import TOKENIZER, AtEnd, Case, build, examples, strategy_of
from helpers.training import quiet_trainer
from quarry.data.datamodule import RetrievalDataModule
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.losses.info_nce import InfoNCE
from quarry.mining.mining_texts import read_mining_texts
from quarry.mining.negative_filter import NegativeFilter
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.unique_encoder import UniqueEncoder
from quarry.training.callbacks.refresh_negatives import Refreshing, RefreshNegatives
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.module import RetrievalModule
from quarry.training.optim import constant_schedule


class Watch(pl.Callback):
    """Notes of every step the ids of its texts and the loss, and the lists at each mining."""

    def __init__(self, refreshing: RefreshNegatives, *, save_at: int, to: Path) -> None:
        self.refreshing = refreshing
        self.save_at, self.to = save_at, to
        self.batches: dict[int, list[int]] = {}
        self.lists: dict[int, list[list[int]]] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        step = trainer.global_step
        self.batches[step] = batch.tokens.input_ids.tolist()
        state = self.refreshing.state_dict()
        if state:
            starts, places = state["starts"].tolist(), state["places"].tolist()
            self.lists[int(state["step"])] = [
                places[start:stop] for start, stop in pairwise(starts)
            ]
        if step == self.save_at:  # last of the callbacks, as checkpoints are
            trainer.save_checkpoint(self.to)


def encoder_of(model: BiEncoder) -> UniqueEncoder:
    return UniqueEncoder(
        encoder=Encoder(model=model, tokenizer=TOKENIZER, max_tokens_per_batch=256)
    )


def refresh_callback(**settings: Any) -> RefreshNegatives:
    return RefreshNegatives(
        **{
            "every_n_steps": 3, "top_k": 10, "num_negatives": 2, "sampling": "random",
            "filter": NegativeFilter(absolute_margin=-1.0, percentile=99),
        } | settings
    )  # fmt: skip


def train(
    folder: Path,
    *,
    num_processes: int = 1,
    num_workers: int = 0,
    num_steps: int = 8,
    save_at: int = 0,
    checkpoint: Path | None = None,
    budget: int | None = None,
    dropout: float = 0.2,
    **settings: Any,
) -> dict[str, Any]:
    """Train with LoRA and dropout, 5 steps an epoch; return what can be compared."""
    case = Case(strategy="ddp", is_lora=True, dropout=dropout)
    datamodule = RetrievalDataModule(
        examples=examples(), tokenizer=TOKENIZER, num_hard_negatives=None, global_batch_size=8,
        contrastive_batch_size=8, num_workers=num_workers, seed=3, num_mined=2,
    )  # fmt: skip
    refreshing = refresh_callback(**settings)
    refreshing.prepare(
        Refreshing(
            datamodule=datamodule,
            texts=read_mining_texts(datamodule.dataset.examples),
            build_encoder=encoder_of,
            run_dir=folder,
            times=RetrievalTimes(),
        )
    )
    module = RetrievalModule(
        build_model=partial(build, case=case), loss=InfoNCE(temperature=0.05),
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        scheduler=partial(constant_schedule, num_warmup_steps=0),
        num_training_steps=num_steps, grad_cache_chunk_tokens=budget,
    )  # fmt: skip
    end = AtEnd()
    watch = Watch(refreshing, save_at=save_at, to=folder / "saved.ckpt")
    trainer = quiet_trainer(
        RNGState(), refreshing, end, watch, devices=num_processes,
        strategy=strategy_of("ddp") if num_processes > 1 else "auto", max_steps=num_steps,
        max_epochs=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    return {"batches": watch.batches, "lists": watch.lists, "weights": end.weights}
