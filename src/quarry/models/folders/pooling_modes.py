"""Map names of poolings, in sentence-transformers and in model cards, to pooling classes."""

from __future__ import annotations

from typing import Any

from quarry.models.pooling.cls import Cls
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.max import Max
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.mean_sqrt_len import MeanSqrtLen
from quarry.models.pooling.weighted_mean import WeightedMean

POOLINGS = (Cls, Max, Mean, MeanSqrtLen, WeightedMean, LastToken)

BY_MODE: dict[str, type] = {pooling.sentence_transformers_mode: pooling for pooling in POOLINGS}
"""Name of the mode in sentence-transformers -> class."""

BY_OPTION: dict[str, type] = {p.__module__.rpartition(".")[2]: p for p in POOLINGS}
"""Option of the configuration group model/pooling -> class."""


def pooling_node(pooling: type, *, include_prompt: bool = True) -> dict[str, Any]:
    """Return the configuration node (`_target_` and arguments) of a pooling class."""
    node: dict[str, Any] = {"_target_": f"{pooling.__module__}.{pooling.__qualname__}"}
    return node if pooling is LastToken else node | {"include_prompt": include_prompt}
