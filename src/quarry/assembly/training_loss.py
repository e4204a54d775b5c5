"""Build the loss of a configuration, and refuse data and models that lack what it needs."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping

import numpy as np
from omegaconf import DictConfig, OmegaConf

from quarry.config.instantiate import build
from quarry.data.rendering import Frame
from quarry.data.score_summary import score_summary
from quarry.data.train_dataset import TrainDataset
from quarry.errors import UserError
from quarry.losses.base import Loss, checked_loss
from quarry.losses.embedding_distillation import EmbeddingDistillation
from quarry.losses.teacher_vectors import TeacherVectors
from quarry.runtime.text_hash import text_hash
from quarry.types import Role


def build_loss(config: DictConfig) -> Loss:
    """Build the loss; its arguments are checked by it. Losses with a weight of 0 are not built.

    Raises:
        UserError: the loss is none of this version, or an argument is out of its range.
    """
    config = copy.deepcopy(config)  # with its parent: a loss takes values of other keys
    OmegaConf.set_struct(config, False)
    _remove_unweighted(config.loss)
    for path, node in _nodes_inside(config.loss, "loss"):
        size = node.get("contrastive_batch_size")
        if size is not None:
            raise UserError(
                f"{path}.contrastive_batch_size={size}: has no effect inside another loss. Fix: "
                f"loss.contrastive_batch_size={size}"
            )
    try:
        return checked_loss(build(config.loss))
    except UserError:
        _check_inside(config.loss)
        raise


def _remove_unweighted(node: DictConfig) -> None:
    """Remove the losses of sums, at any depth, that have a weight of 0."""
    losses, weights = node.get("losses"), node.get("weights")
    if isinstance(losses, DictConfig) and isinstance(weights, DictConfig) and any(weights.values()):
        for name in [name for name in losses if weights.get(name) == 0]:
            del losses[name], weights[name]
    for value in node.values():
        if isinstance(value, DictConfig):
            _remove_unweighted(value)


def _check_inside(loss: DictConfig) -> None:
    """Refuse the innermost loss that cannot be built, by its complete key, which it cannot know."""
    for path, node in _nodes_inside(loss, "loss"):
        try:
            build(node)
        except UserError as error:
            raise UserError(re.sub(r"(?<![\w.])loss\.", f"{path}.", str(error))) from None


def _nodes_inside(node: DictConfig, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Yield the losses inside a loss with their keys, innermost first."""
    for key, value in node.items():
        if isinstance(value, DictConfig):
            where = f"{path}.{key!s}"
            yield from _nodes_inside(value, where)
            if "_target_" in value:
                yield where, value


def check_loss(
    loss: Loss,
    *,
    dataset: TrainDataset,
    embedding_dim: int,
    frames: Mapping[Role, Frame] | None = None,
) -> None:
    """Refuse data without the scores and hard negatives that a loss needs, and a narrow model.

    Args:
        embedding_dim: width of the model's embeddings.
        frames: prompts, which say what the text of a passage with a title is; needed by
            `EmbeddingDistillation`.

    Raises:
        UserError: with the first line that lacks something, or with the key.
    """
    keys = {
        module: f"loss.{name}" if name else "loss"
        for name, module in loss.named_modules()
        if isinstance(module, Loss)
    }
    every = list(keys)
    for inner, key in keys.items():
        if inner.largest_dim > embedding_dim:
            raise UserError(
                f"{key}.dims: {inner.largest_dim} is above the width of the model's embeddings, "
                f"{embedding_dim}. Fix: {key}.dims with widths of up to {embedding_dim}"
            )
    unweighted = [inner for inner in every if not inner.takes_weights]
    if unweighted and len(dataset) and dataset.examples[0].weight is not None:
        raise UserError(
            f"data.columns.weight: {_name(unweighted[0])} compares pairs and cannot weigh queries. "
            "Fix: data.columns.weight=null"
        )
    for inner, key in keys.items():
        if isinstance(inner, EmbeddingDistillation):
            assert frames is not None, "texts are found by what is encoded of them"
            _check_vectors(inner.teacher, dataset, embedding_dim, frames, key=f"{key}.vectors")
    wanting = [inner for inner in every if inner.needs_hard_negatives]
    if wanting:
        _check_hard_negatives(_name(wanting[0]), dataset)
    wanting = [inner for inner in every if inner.needs_scores]
    if wanting:
        _check_scores(wanting, dataset)


def _check_hard_negatives(name: str, dataset: TrainDataset) -> None:
    if dataset.num_hard_negatives == 0:
        raise UserError(
            f"data.num_hard_negatives=0: {name} needs hard negatives. "
            "Fix: data.num_hard_negatives=null"
        )
    without = np.flatnonzero(dataset.hard_negative_counts == 0)
    if without.size:
        first = int(without[0])
        raise UserError(
            f"{dataset.location(first)}: query {dataset.examples[first].query.query_id!r} has no "
            f"hard negative ({without.size} of {len(dataset)} examples have none), and {name} "
            "needs one for each. Fix: loss=info_nce, or add hard negatives"
        )


def _check_vectors(
    teacher: TeacherVectors,
    dataset: TrainDataset,
    embedding_dim: int,
    frames: Mapping[Role, Frame],
    *,
    key: str,
) -> None:
    """Refuse vectors of another width, and texts without one; all texts are read."""
    if teacher.dim != embedding_dim:
        raise UserError(
            f"{key}: they are {teacher.dim} wide, and the model's embeddings "
            f"{embedding_dim}. Fix: reduce the vectors (PCA), or model.embedding_dim={teacher.dim}"
        )
    for index in range(len(dataset)):
        example = dataset.examples[index]
        others = example.hard_negatives if dataset.num_hard_negatives != 0 else ()
        texts = [frames["query"].text_of(example.query)]
        texts += [frames["document"].text_of(each) for each in (*example.positives, *others)]
        has_vector = teacher.has(np.array([text_hash(text) for text in texts], dtype=np.int64))
        if not has_vector.all():
            text = texts[int(np.flatnonzero(~has_vector)[0])]
            raise UserError(
                f"{dataset.location(index)}: {key} has no vector of the text {text[:60]!r}. "
                "Fix: write the vectors of all training texts, as the prompt's strip and title "
                "leave them"
            )


def _check_scores(losses: list[Loss], dataset: TrainDataset) -> None:
    has_negatives = dataset.num_hard_negatives != 0
    name = _name(losses[0])
    summary = score_summary(dataset.examples, has_negatives=has_negatives)
    if len(summary.lacking):
        first = int(summary.lacking[0])
        raise UserError(
            f"{dataset.location(first)}: query {dataset.examples[first].query.query_id!r} has "
            f"passages without a teacher's score ({len(summary.lacking)} of {len(dataset)} "
            f"examples), and {name} needs a score of every passage. Fix: loss=info_nce, or "
            "positive_scores and negative_scores for each line (docs/data.md)"
        )
    graded = [loss for loss in losses if loss.needs_grades]
    if graded and not summary.lowest < summary.highest:
        raise UserError(
            f"data.path: all scores are {summary.lowest:g}, and {_name(graded[0])} needs different "
            "grades. Fix: loss=info_nce, or grades in positive_scores and negative_scores"
        )


def _name(loss: Loss) -> str:
    return f"the loss {type(loss).__name__}"
