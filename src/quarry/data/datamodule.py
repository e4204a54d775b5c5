"""Connect training examples, tokenizer and sampler to the data loaders that Lightning needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from quarry.data.collation import RetrievalCollator
from quarry.data.sampler import ResumableLoader, TrainBatchSampler
from quarry.data.tokenization import TextTokenizer
from quarry.data.train_dataset import TrainDataset
from quarry.data.workers import follow_training_process, start_worker_server, worker_context
from quarry.distributed import world
from quarry.errors import UserError
from quarry.types import RetrievalBatch, TrainExample

logger = logging.getLogger(__name__)


class RetrievalDataModule(pl.LightningDataModule):
    """LightningDataModule that serves the training data in contrastive batches.

    Args:
        examples: the training set.
        tokenizer: renders prompts and tokenizes queries and passages.
        num_hard_negatives: hard negatives per query; None: all that each example has.
        global_batch_size: queries per optimizer step, over all ranks.
        contrastive_batch_size: queries of a contrastive batch over all ranks, scored against all
            its passages; divides `global_batch_size`.
        num_workers: worker processes a rank that tokenize ahead; 0: the training process does it.
        seed: seed of the order and of the choice of passages.
        num_mined: the most hard negatives that an example has once they are mined in training.

    Raises:
        UserError: too few examples, or no contrastive batch has two passages.
    """

    def __init__(
        self,
        *,
        examples: Sequence[TrainExample],
        tokenizer: TextTokenizer,
        num_hard_negatives: int | None,
        global_batch_size: int,
        contrastive_batch_size: int,
        num_workers: int,
        seed: int,
        num_mined: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = TrainDataset(
            examples=examples,
            num_hard_negatives=num_hard_negatives,
            seed=seed,
            num_mined=num_mined,
        )
        self.num_batches_per_step = global_batch_size // contrastive_batch_size
        self.sampler = TrainBatchSampler(
            num_examples=len(examples),
            batch_size=contrastive_batch_size,
            num_batches_per_step=self.num_batches_per_step,
            seed=seed,
        )
        self.dataset.log_hard_negatives()
        if contrastive_batch_size == 1:
            _check_single_queries(self.dataset)
        self.tokenizer = tokenizer
        self.num_workers = num_workers
        if num_workers:
            start_worker_server()  # it imports while the model is read

    def num_training_steps(self, *, max_epochs: int | None, max_steps: int) -> int:
        """Return the optimizer steps until one of the limits is reached (-1 or None: no limit)."""
        num_per_epoch = len(self.sampler) // self.num_batches_per_step
        return num_optimizer_steps(num_per_epoch, max_epochs=max_epochs, max_steps=max_steps)

    @property
    def num_texts_per_step(self) -> float:
        """Return the average number of queries and passages of an optimizer step over all ranks."""
        num_queries = self.sampler.batch_size * self.num_batches_per_step
        return num_queries * (1 + float(self.dataset.group_sizes.mean()))

    def transfer_batch_to_device(
        self, batch: RetrievalBatch, device: torch.device, dataloader_idx: int
    ) -> RetrievalBatch:
        return batch.to(device, non_blocking=True)  # from pinned memory: the CPU need not wait

    def train_dataloader(self) -> ResumableLoader:
        return ResumableLoader(
            dataset=self.dataset,
            batch_sampler=self.sampler,
            collate_fn=RetrievalCollator(
                self.tokenizer, rank=world.rank(), num_shares=world.size()
            ),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=worker_context() if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=follow_training_process if self.num_workers else None,
        )


def _check_single_queries(dataset: TrainDataset) -> None:
    """Raise or warn about queries that are alone with their positive: their loss is always 0."""
    num_alone = int((dataset.group_sizes == 1).sum())
    if num_alone == len(dataset):
        raise UserError(
            "loss.contrastive_batch_size=1: no example has a hard negative, so that every "
            "contrastive batch is one query with its positive, whose loss is always 0. Fix: raise "
            "data.global_batch_size or loss.contrastive_batch_size"
        )
    if num_alone:
        logger.warning(
            "loss.contrastive_batch_size=1: %d of %d examples have no hard negative, and the loss "
            "of a query alone with its positive is always 0. Fix: raise data.global_batch_size "
            "or loss.contrastive_batch_size",
            num_alone,
            len(dataset),
        )


def num_optimizer_steps(num_per_epoch: int, *, max_epochs: int | None, max_steps: int) -> int:
    """Return the optimizer steps until a limit is reached (-1 or None: none; one is required)."""
    by_epochs = None if max_epochs in (None, -1) else max_epochs * num_per_epoch
    limits = [limit for limit in (by_epochs, max_steps) if limit not in (None, -1)]
    return min(limits)


def one_empty_batch() -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader for `Trainer.test`, whose work the evaluation callback does."""
    return DataLoader(TensorDataset(torch.zeros(1)))
