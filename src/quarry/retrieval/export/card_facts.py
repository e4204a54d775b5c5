"""Define what a model card states of a run: data, results, base model and license."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class SetScores:
    """The results on one test collection.

    Attributes:
        name: of the collection.
        source: where its texts and judgements come from, or None.
        num_queries, num_documents: its size.
        values: retriever -> measure ("nDCG@10") -> value, 0..1.
    """

    name: str
    source: str | None
    num_queries: int
    num_documents: int
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What is known of a model; what is not known stays None or empty, and is stated as unknown.

    Attributes:
        base_model: hub id of the base model, or the name of its folder.
        base_is_on_hub: `base_model` is a hub id.
        base_revision: its revision or commit.
        base_license: as its own card states it.
        base_fingerprint: of its weights.
        data: what the model was trained on, for people.
        datasets: hub ids of the training data.
        num_examples: training examples.
        data_digest: SHA-256 of them.
        data_caveats: what a reader of results must know of the data.
        loss: class and settings of the training loss, for people.
        retriever: name of this model in `scores`.
        scores: results; empty: the model was not evaluated.
        quarry_version: of the run.
    """

    base_model: str | None = None
    base_is_on_hub: bool = False
    base_revision: str | None = None
    base_license: str | None = None
    base_fingerprint: str | None = None
    data: str | None = None
    datasets: tuple[str, ...] = ()
    num_examples: int | None = None
    data_digest: str | None = None
    data_caveats: tuple[str, ...] = ()
    loss: str | None = None
    retriever: str | None = None
    scores: tuple[SetScores, ...] = field(default_factory=tuple)
    quarry_version: str | None = None
