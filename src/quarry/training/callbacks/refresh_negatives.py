"""Mine hard negatives again during training, with the current weights."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from quarry.data.datamodule import RetrievalDataModule
from quarry.data.refreshed_negatives import RefreshedNegatives
from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.mining.dense_candidates import DenseCandidates
from quarry.mining.mining_job import MiningJob, csr_lists
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import REASONS, NegativeChoice, Sampling
from quarry.mining.negative_filter import NegativeFilter
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.runtime.files import write_json
from quarry.training.state import preserved_training_state

logger = logging.getLogger(__name__)

KEY = "callbacks.refresh_negatives"
FOLDER = "negatives"
HISTORY_FILE = "refreshed_negatives.json"
"""File in the run directory with the counts of each mining."""


@dataclass(frozen=True, kw_only=True)
class Refreshing:
    """What `RefreshNegatives` needs of a run.

    Attributes:
        datamodule: its data set and sampler use what is mined.
        texts: queries and passages.
        build_encoder: bi-encoder -> encoder with the tokenizer and budgets of this run.
        run_dir: for the lists, and a file with their counts.
        times: receives the time of encoding and searching.
    """

    datamodule: RetrievalDataModule
    texts: MiningTexts
    build_encoder: Callable[[BiEncoder], TextEncoder]
    run_dir: Path
    times: RetrievalTimes


class RefreshNegatives(pl.Callback):
    """Mine the hard negatives of all training examples every few optimizer steps.

    The passages are encoded with the weights as they are then, and searched exactly. From the next
    batch on examples have what was found; one for which nothing was found has those of the data.
    Batches that workers have prepared ahead are dropped, so the next batch is the same with any
    number of workers. Training does not notice the encoding (`preserved_training_state`). Ranks
    encode and search a share each, and all receive the same lists, which are those of one rank.

    The lists are in every checkpoint, so a resumed run continues with them.

    Args:
        every_n_steps: optimizer steps between two minings; none after the last step.
        before_training: mine at the start, too, before the first step.
        corpus: passages to search, see `assembly.refreshing`; None: all of the training data.
        top_k, rank_range, num_negatives, sampling, filter, seed: see `NegativeChoice`.

    Raises:
        UserError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        every_n_steps: int,
        top_k: int,
        num_negatives: int,
        filter: NegativeFilter,
        rank_range: Sequence[int] | None = None,
        sampling: Sampling = "top",
        before_training: bool = False,
        corpus: str | None = None,
        seed: int = 0,
    ) -> None:
        if every_n_steps < 1:
            raise UserError(
                f"{KEY}.every_n_steps={every_n_steps}: must be at least 1 (optimizer steps). Fix: "
                f"{KEY}.every_n_steps=500"
            )
        if rank_range is not None and len(rank_range) != 2:
            raise UserError(
                f"{KEY}.rank_range={list(rank_range)}: must be the first and the last rank, from "
                f"1. Fix: {KEY}.rank_range=[10,50]"
            )
        self.every_n_steps = every_n_steps
        self.before_training = before_training
        self.corpus = corpus
        self.choice = NegativeChoice(
            top_k=top_k,
            rank_range=None if rank_range is None else (rank_range[0], rank_range[1]),
            num_negatives=num_negatives,
            sampling=sampling,
            filter=filter,
            seed=seed,
            key=KEY,
        )
        self._parts: Refreshing | None = None
        self._step: int | None = None
        self._starts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._places: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._history: list[dict[str, Any]] = []
        self._restored: dict[str, Any] | None = None

    def prepare(self, parts: Refreshing) -> None:
        """Receive the parts of the run; call it once, before training."""
        self._parts = parts
        parts.datamodule.dataset.refreshed = RefreshedNegatives(
            folder=parts.run_dir / FOLDER, passages=parts.texts.passages
        )

    @property
    def parts(self) -> Refreshing:
        assert self._parts is not None, "prepare() comes before training"
        return self._parts

    def state_dict(self) -> dict[str, Any]:
        """Return the lists in use, with their step and the texts that they refer to."""
        if self._step is None:
            return {}
        return {
            "step": self._step,
            "texts": self.parts.texts.digest,
            "starts": torch.from_numpy(self._starts),
            "places": torch.from_numpy(self._places),
            "history": self._history,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict or None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        refreshed = self.parts.datamodule.dataset.refreshed
        assert refreshed is not None
        # each rank for itself: hosts need not share a disk. Workers start after this
        refreshed.folder = self.parts.run_dir / FOLDER / f"rank_{world.rank()}"
        restored, self._restored = self._restored, None
        if restored is None:
            if self.before_training and trainer.global_step == 0:
                self._mine(trainer, pl_module)
            return
        self._history = list(restored["history"])
        if restored["texts"] != self.parts.texts.digest:
            logger.warning(
                "%s: the passages are others than when hard negatives were mined at step %d; they "
                "are mined again", KEY, restored["step"],
            )  # fmt: skip
            self._mine(trainer, pl_module)
            return
        starts, places = restored["starts"].numpy(), restored["places"].numpy()
        self._use(int(restored["step"]), starts, places)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        is_last = step >= trainer.estimated_stepping_batches or trainer.should_stop
        is_due = step > 0 and step % self.every_n_steps == 0 and not is_last
        if is_due and self._step != step:  # once for all batches of a step
            self._mine(trainer, pl_module)

    def _mine(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mine with the current weights; a collective operation."""
        parts, step = self.parts, trainer.global_step
        encoder = parts.build_encoder(cast(BiEncoder, pl_module.model))
        with (
            preserved_training_state(pl_module),
            trainer.precision_plugin.forward_context(),  # as in training steps
        ):
            starts, places, counts = parts.times.measure(self._found, encoder)
        self._note(step, counts)
        self._use(step, starts, places)

    def _found(
        self, encoder: TextEncoder | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Counter[str]]:
        assert encoder is not None
        texts = self.parts.texts
        source = DenseCandidates(
            texts=texts, encoder=encoder, index=ExactIndex(), label="refreshing"
        )
        job = MiningJob(texts=texts, source=source, choice=self.choice)
        found = job.chosen(percentile_score=job.percentile_score())
        return csr_lists(found, num_examples=len(texts), wanted=self.choice.num_negatives)

    def _note(self, step: int, counts: Counter[str]) -> None:
        """Log the counts, and write those of all minings so far."""
        left_out = {reason: counts[f"left_out_{reason}"] for reason in REASONS}
        logger.info(
            "Step %d: %d hard negatives mined for %d of %d queries (%d with fewer than %d)",
            step, counts["negatives"], counts["queries_out"], counts["queries_in"],
            counts["queries_with_fewer"], self.choice.num_negatives,
        )  # fmt: skip
        if not counts["queries_out"]:
            logger.warning(
                "%s: no query has a hard negative at step %d (%s), and those of the data are used. "
                "Fix: a wider %s.filter or rank_range",
                KEY, step, self.choice.filter.settings(key=f"{KEY}.filter") or "no filter", KEY,
            )  # fmt: skip
        names = ("queries_in", "queries_out", "queries_with_fewer", "negatives")
        entry = {"step": step, **{name: counts[name] for name in names}, "left_out": left_out}
        self._history = [each for each in self._history if each["step"] < step] + [entry]
        if world.rank() == 0:
            write_json(self.parts.run_dir / HISTORY_FILE, {"minings": self._history})

    def _use(self, step: int, starts: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Give the lists to the data set, for all batches after this one."""
        refreshed = self.parts.datamodule.dataset.refreshed
        assert refreshed is not None
        refreshed.write(step, starts, places)
        self._step, self._starts, self._places = step, starts, places
        self.parts.datamodule.sampler.refreshed_at = step
