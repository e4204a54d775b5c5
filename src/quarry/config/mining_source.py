"""Say where the candidates of task=mine come from."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig


@dataclass(frozen=True, kw_only=True)
class GivenSource:
    """Where candidates come from, see conf/task/mine.yaml.

    Attributes:
        corpus: passages to search; None: those of the training data.
        run_file: a ranking with scores; None: none is given.
        use_scores: candidates are each line's own hard negatives, by a teacher's scores.
        content: kind of the passages, for BM25.
    """

    corpus: str | None
    run_file: str | None
    use_scores: bool
    content: str

    @property
    def searches(self) -> bool:
        """Whether `retriever` finds the candidates."""
        return self.run_file is None and not self.use_scores

    def needs_model(self, config: DictConfig) -> bool:
        """Return whether embeddings find the candidates."""
        is_dense = str(config.retriever.get("_target_")).endswith(".DenseRetriever")
        return self.searches and is_dense
