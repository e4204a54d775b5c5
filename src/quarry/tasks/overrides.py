"""Tasks that take everything from what was stored: what else the command line says is refused."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.config.contract import explicit_keys
from quarry.config.sweep import OWN_KEYS
from quarry.errors import UserError


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
