"""What the command line says in vain: refused by tasks that read all from a run, else told."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from quarry.config.contract import explicit_keys
from quarry.config.sweep_overrides import OWN_KEYS
from quarry.errors import UserError

logger = logging.getLogger(__name__)


def refuse_other_overrides(allowed: Sequence[str], *, why: str) -> None:
    """Refuses overrides of anything but the keys and groups `allowed` (and what is in them),
    and of those that a sweep tells its jobs.

    Args:
        why: how the message goes on after the keys, with the remedy.
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
    """Warn, in one line, of those of `keys` that stand on the command line.

    Args:
        reason: with what they have no effect, and why.
    """
    if given := [key for key in explicit_keys() if key in keys]:
        logger.warning("%s: no effect with %s. Leave it out.", ", ".join(given), reason)
