"""From a run and its judgements to one number per query and measure."""

from quarry.metrics.mrr import reciprocal_rank
from quarry.metrics.ranking import Ties, rank
from quarry.metrics.recall import capped_recall
from quarry.metrics.run_files import read_qrels, read_run, write_run
from quarry.metrics.trec import Measure, MissingQueries, evaluate_run, mean_scores, parse_measure

__all__ = [
    "Measure",
    "MissingQueries",
    "Ties",
    "capped_recall",
    "evaluate_run",
    "mean_scores",
    "parse_measure",
    "rank",
    "read_qrels",
    "read_run",
    "reciprocal_rank",
    "write_run",
]
