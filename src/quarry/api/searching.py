"""Open an index with its model, as `quarry-search` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarry.config.composing import overrides_of
from quarry.search.searcher import Searcher
from quarry.tasks.search import open_searcher

if TYPE_CHECKING:
    import torch


def open_index(
    *folders: str | Path,
    overrides: tuple[str, ...] = (),
    device: str | torch.device | None = None,
    **settings: Any,
) -> Searcher:
    """Open an index of task=index, or several of one model as one, with the model of the index.

    Args:
        overrides: of the configuration, as `quarry-search --set` takes them.
        device: None: a GPU where there is one.
        settings: overrides as keywords, two underscores for a dot: `model__path="moved"`.

    Raises:
        UserError: as `quarry-search` would end with.
    """
    return open_searcher(
        [str(folder) for folder in folders],
        overrides=[*overrides_of(settings), *overrides],
        device=device,
    )
