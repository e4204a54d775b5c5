"""Build the training set of a configuration."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.data.first_examples import FirstExamples
from quarry.types import TrainExample

logger = logging.getLogger(__name__)


def build_examples(data: DictConfig) -> Sequence[TrainExample]:
    """Build `data.examples`; of them the first `data.max_examples`.

    Args:
        data: `data` of the configuration.
    """
    examples: Sequence[TrainExample] = build(data.examples)
    limit = data.get("max_examples")  # earlier versions stored none
    if limit is None or limit >= len(examples):
        return examples
    logger.info("data.max_examples: the first %d of %d", limit, len(examples))
    return FirstExamples(examples, limit)
