"""Build the evaluator and the baseline that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.reranked import RerankedRetriever
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


def build_retriever(config: DictConfig) -> Retriever:
    """Return the configured retriever; a reranker is checked, and no weights are loaded.

    Raises:
        UserError: the reranker is none, or `evaluation.compare_dtype` compares two stages.
    """
    retriever: Retriever = build(config.retriever)
    if isinstance(retriever, RerankedRetriever):
        dtype = config.evaluation.compare_dtype
        if dtype is not None:
            raise UserError(
                f"evaluation.compare_dtype={dtype}: compares the embeddings of one model, and "
                "retriever=reranked has two stages. Fix: leave it out, or retriever=dense"
            )
        retriever.check()
    return retriever


def build_baseline(config: DictConfig, *, beside: Sequence[str]) -> Retriever | None:
    """Return the retriever that results are compared with; None for baseline=none.

    Args:
        beside: names of what is reported beside it.

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
    if baseline.name in beside:
        raise UserError(
            f"baseline={baseline.name} would compare {baseline.name} with itself: leave it out."
        )
    return baseline
