"""The Python interface: load a retriever, search an index, evaluate, train.

`quarry.load`, `quarry.open_index`, `quarry.evaluate` and `quarry.train` are these functions. They
compose the same configuration as the commands, so that a number from a notebook is that of the
command line.
"""

from quarry.api.jobs import EvaluationResult, TrainingResult, evaluate, train
from quarry.api.retriever import Retriever, load
from quarry.api.searching import open_index
from quarry.search.searcher import Hit, Searcher
from quarry.types import Document

__all__ = [
    "Document",
    "EvaluationResult",
    "Hit",
    "Retriever",
    "Searcher",
    "TrainingResult",
    "evaluate",
    "load",
    "open_index",
    "train",
]
