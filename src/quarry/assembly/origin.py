"""Identify what a training run begins with, so that a resumed run continues with the same."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quarry.assembly.model_parts import ModelParts
from quarry.data.arrow_table import rows_digest
from quarry.data.train_examples import ExampleSource, TableExamples
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import affordable_digest

logger = logging.getLogger(__name__)

NUM_SAMPLED = 4096
"""Examples that are read of a sequence that is neither a table nor a list."""

NAMES = {
    "training_data": "training data",
    "tokenizer": "tokenizer",
    "base_weights": "base weights",
}
"""Keys of an origin, and what they are called."""


def origin_of(parts: ModelParts, examples: ExampleSource, *, memo: Path) -> dict[str, str]:
    """Return the digests of training data, tokenizer and base weights, by the keys of `NAMES`.

    - Training data: the rows of the tables that hold examples and passages, in their order; paths
      are no part of it. Lists are read completely, of other sequences evenly spaced examples.
    - Tokenizer: its vocabulary and rules.
    - Base weights: see `affordable_digest`.

    Args:
        memo: folder of cached hashes of files; need not be writable.
    """
    source = parts.spec.source
    weights = affordable_digest(source.base_location(), revision=source.base_revision(), memo=memo)
    return {
        "training_data": data_digest(examples),
        "tokenizer": parts.tokenizer.digest(),
        "base_weights": weights,
    }


def data_digest(examples: ExampleSource) -> str:
    """Return the digest of training examples, 64 hexadecimal digits; see `origin_of`."""
    if isinstance(examples, TableExamples):
        digests = [rows_digest(path) for path in examples.tables]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()
    number = len(examples)
    is_read = isinstance(examples, list | tuple) or number <= NUM_SAMPLED
    count = number if is_read else NUM_SAMPLED
    digest = hashlib.sha256(str(number).encode())
    for index in range(count):
        digest.update(repr(examples[index * number // count]).encode())
    return digest.hexdigest()


def check_origin(
    checkpoint: Mapping[str, Any], now: Mapping[str, str], *, run: Path, accepts: bool
) -> list[str]:
    """Refuse to resume with other data, tokenizer or base weights than the checkpoint's.

    A checkpoint of an earlier version does not say; one warning is logged.

    Args:
        checkpoint: its facts, with `step` and `origin`.
        now: the origin of the resumed run; empty: the run has no checkpoints.
        accepts: continue with what has changed.

    Returns:
        what has changed and was accepted, for the run's provenance.

    Raises:
        UserError: something has changed.
    """
    then = checkpoint.get("origin") or {}
    if not then:
        logger.warning(
            "%s: its checkpoint is of an earlier version, and does not say which training data, "
            "tokenizer and base weights it is of: changed ones are not noticed", run,
        )  # fmt: skip
        return []
    changed = [name for key, name in NAMES.items() if key in now and then.get(key) != now[key]]
    if changed and not accepts:
        raise UserError(
            f"run={run}: not what the run was trained with up to step {checkpoint.get('step')}: "
            f"{', '.join(changed)} (a resumed run continues with the same). Fix: restore what has "
            "changed, or continue with it: task.accepts_changed_data=true"
        )
    if changed:
        logger.warning("Continuing with changed %s (task.accepts_changed_data)", ", ".join(changed))
    return changed
