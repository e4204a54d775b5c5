"""Build the evaluator of a configuration, and the baseline that results are compared with."""

from __future__ import annotations

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.retriever import Retriever


def build_evaluator(config: DictConfig) -> Evaluator | None:
    """None where there is no benchmark."""
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
    """What results are compared with; None for baseline=none.

    Args:
        beside: the name of what is compared.

    Raises:
        UserError: it needs a model, or is what it is compared with.
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
