"""Prepare the mining of hard negatives during training, where it is configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig

from quarry.assembly.evaluation_encoder import unique_encoder_builder
from quarry.assembly.mining_corpus import read_mining_corpus
from quarry.assembly.model_parts import ModelParts
from quarry.data.datamodule import RetrievalDataModule
from quarry.errors import UserError
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.losses.base import Loss
from quarry.losses.embedding_distillation import EmbeddingDistillation
from quarry.mining.mining_texts import read_mining_texts
from quarry.runtime.run_directory import RunDirectory
from quarry.training.callbacks.refresh_negatives import KEY, Refreshing, RefreshNegatives


def refreshing_of(callbacks: Sequence[pl.Callback]) -> RefreshNegatives | None:
    """Return the callback that mines during training; None: there is none.

    Raises:
        UserError: there are two.
    """
    found = [each for each in callbacks if isinstance(each, RefreshNegatives)]
    if len(found) > 1:
        raise UserError(f"callbacks: {len(found)} mine hard negatives (one may). Fix: leave one")
    return found[0] if found else None


def prepare_refreshing(
    callback: RefreshNegatives,
    config: DictConfig,
    parts: ModelParts,
    run: RunDirectory,
    *,
    datamodule: RetrievalDataModule,
    loss: Loss,
    times: RetrievalTimes,
) -> None:
    """Read the texts, and give the callback what it needs of the run.

    Raises:
        UserError: the loss needs of every passage what a mined one lacks, or there are no passages.
    """
    losses = [each for each in loss.modules() if isinstance(each, Loss)]
    for each in losses:
        if each.needs_scores:
            raise UserError(
                f"{KEY}: mined passages have no teacher's scores, which the loss "
                f"{type(each).__name__} needs. Fix: callbacks=default, or loss=info_nce"
            )
        if isinstance(each, EmbeddingDistillation) and callback.corpus is not None:
            raise UserError(
                f"{KEY}.corpus={callback.corpus}: its passages may lack a teacher's vector, which "
                f"the loss {type(each).__name__} needs. Fix: {KEY}.corpus=null"
            )
    corpus = None
    if callback.corpus is not None:
        corpus = read_mining_corpus(
            Path(callback.corpus), cache_dir=config.paths.cache_dir, key=f"{KEY}.corpus"
        )
    texts = read_mining_texts(datamodule.dataset.examples, corpus=corpus, key=f"{KEY}.corpus")
    callback.prepare(
        Refreshing(
            datamodule=datamodule,
            texts=texts,
            build_encoder=unique_encoder_builder(config, parts),
            run_dir=run.path,
            times=times,
        )
    )
