"""Quarry turns decoder language models into dense retrievers and measures how good each one is.

    import quarry

    retriever = quarry.load("runs/train/...")
    hits = retriever.search(["how to read a file"], corpus=["open(path).read()"], top_k=1)

See `quarry.api` for what can be called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quarry.api import (
        Document,
        EvaluationResult,
        Hit,
        Retriever,
        Searcher,
        TrainingResult,
        evaluate,
        load,
        open_index,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "Document",
    "EvaluationResult",
    "Hit",
    "Retriever",
    "Searcher",
    "TrainingResult",
    "__version__",
    "evaluate",
    "load",
    "open_index",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load the interface at its first use: `import quarry` alone is quick."""
    if name in __all__:
        from quarry import api

        return getattr(api, name)
    raise AttributeError(f"module 'quarry' has no attribute {name!r}")
