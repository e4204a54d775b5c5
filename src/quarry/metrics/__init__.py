"""Evaluate runs against qrels: one value per query and measure."""

from quarry.metrics.mrr import reciprocal_rank
from quarry.metrics.ranking import Ties, rank_documents
from quarry.metrics.recall import capped_recall
from quarry.metrics.run_files import read_run, read_trec_qrels, write_run
from quarry.metrics.trec import Measure, MissingQueries, evaluate_run, mean_scores, parse_measure

__all__ = [
    "Measure",
    "MissingQueries",
    "Ties",
    "capped_recall",
    "evaluate_run",
    "mean_scores",
    "parse_measure",
    "rank_documents",
    "read_run",
    "read_trec_qrels",
    "reciprocal_rank",
    "write_run",
]
