"""Compare the embeddings of a model with those of the same model in a wider dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.evaluation.evaluator import Evaluator
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.types import Report

NUM_COMPARED = 1000
"""Number of queries, and of documents, of each set that are compared: the first ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Cosines between the two embeddings of the same texts of one set."""

    name: str
    num_texts: int
    mean: float
    smallest: float


class EmbeddingSample(pl.Callback):
    """Encode the first texts of every set at the end of a test and collect the embeddings.

    Args:
        evaluator: of the benchmark whose sets are encoded.
        build_encoder: bi-encoder -> encoder.
        reports: of the evaluation, the newest last; a set that failed there is left out.

    Attributes:
        embeddings: set name -> [num_texts, dim], queries first.
    """

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        build_encoder: Callable[[BiEncoder], TextEncoder],
        reports: Sequence[Report],
    ) -> None:
        self.evaluator = evaluator
        self.reports = reports
        self.build_encoder = build_encoder
        self.embeddings: dict[str, Tensor] = {}

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        encoder = self.build_encoder(cast(BiEncoder, pl_module.model))
        for benchmark_set in self.evaluator.benchmark.sets:
            if benchmark_set.name in self.reports[-1].failures:
                continue
            data = self.evaluator.collection(benchmark_set)
            queries = list(islice(data.queries, NUM_COMPARED))
            documents = list(islice(data.corpus, NUM_COMPARED))
            self.embeddings[benchmark_set.name] = torch.cat(
                [encoder.encode(queries, "query")[:], encoder.encode(documents, "document")[:]]
            )


def agreements(
    embeddings: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> list[Agreement]:
    """Return the agreement of the embeddings of each set with the reference's."""
    found = []
    for name, reference in references.items():
        if name not in embeddings:
            continue  # the set failed
        cosines = cosine_similarity(embeddings[name].double(), reference.double(), dim=-1)
        found.append(
            Agreement(
                name=name,
                num_texts=len(cosines),
                mean=float(cosines.mean()),
                smallest=float(cosines.min()),
            )
        )
    return found


def agreement_lines(found: Sequence[Agreement], dtype: str) -> str:
    """Return one line for each set, for the terminal."""
    return "\n".join(
        f"{entry.name}: cosine to {dtype} mean {entry.mean:.5f}, smallest {entry.smallest:.5f} "
        f"({entry.num_texts} texts)"
        for entry in found
    )


def as_document(found: Sequence[Agreement], dtype: str) -> dict[str, object]:
    """Return the content of the run directory's dtype_comparison.json."""
    return {"dtype": dtype, "sets": [asdict(entry) for entry in found]}
