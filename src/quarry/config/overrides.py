"""Refuse or warn about command-line overrides that have no effect."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from quarry.config.contract import explicit_keys
from quarry.config.sweep_overrides import OWN_KEYS
from quarry.errors import UserError

logger = logging.getLogger(__name__)


def refuse_other_overrides(allowed: Sequence[str], *, why: str) -> None:
    """Refuse overrides of other keys and groups than `allowed`, with all below them.

    The keys that a sweep passes to its jobs are allowed, too.

    Args:
        why: the rest of the message after the keys, with the remedy.
    """
    refused = [
        key
        for key in explicit_keys()
        if key not in OWN_KEYS
        and not any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in allowed)
    ]
    if refused:
        raise UserError(f"{', '.join(refused)} {why}")


def warn_without_effect(keys: Sequence[str], *, reason: str) -> None:
    """Warn, in one line, about those of `keys` that the command line overrides.

    Args:
        reason: the setting with which they have no effect, and why.
    """
    if given := [key for key in explicit_keys() if key in keys]:
        logger.warning("%s: no effect with %s. Leave it out.", ", ".join(given), reason)
