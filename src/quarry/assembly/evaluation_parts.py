"""Build the evaluator and the baseline that a configuration names."""

from __future__ import annotations

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.retriever import Retriever


def build_evaluator(config: DictConfig) -> Evaluator | None:
    """Return the configured evaluator; None for benchmark=none."""
    benchmark = build(config.benchmark)
    if benchmark is None:
        return None
    evaluation = config.evaluation
    return Evaluator(
        benchmark=benchmark,
        measures=list(evaluation.measures),
        top_k=evaluation.top_k,
        convention=build(config.convention),
        corpus_dtype=evaluation.store_dtype if evaluation.store else evaluation.corpus_dtype,
    )


def build_baseline(config: DictConfig, *, beside: str) -> Retriever | None:
    """Return the retriever that results are compared with; None for baseline=none.

    Args:
        beside: name of the retriever that is compared with it.

    Raises:
        UserError: the baseline needs a model, or is the retriever itself.
    """
    baseline: Retriever | None = build(config.baseline)
    if baseline is None:
        return None
    if baseline.uses_encoder:
        raise UserError(
            f"baseline={baseline.name} needs a model, and the model is what it is compared with: "
            "choose baseline=bm25, or baseline=none."
        )
    if baseline.name == beside:
        raise UserError(
            f"baseline={baseline.name} would compare {beside} with itself: leave it out."
        )
    return baseline
