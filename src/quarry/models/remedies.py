"""A model that cannot be had or does not fit, and what would run instead."""

from __future__ import annotations

import math
from collections.abc import Mapping

from quarry.errors import UserError

TINY = "tiny"
"""The size that means the family's replica."""


class CannotLoadError(UserError):
    """A model that cannot be had here, or would not fit; found before anything is loaded.

    Attributes:
        remedies: what would run instead: overrides, such as "model.size=3B", and what they mean.
    """

    def __init__(self, message: str, *, remedies: Mapping[str, str]) -> None:
        super().__init__(message)
        self.remedies = dict(remedies)


def remedies(
    *,
    size: str | None,
    hub_id: str | None,
    hub_ids: Mapping[str, str],
    has_replica: bool,
    share: float | None,
) -> dict[str, str]:
    """Overrides that would run, and what they mean.

    Args:
        size, hub_id: those that cannot be had.
        hub_ids: the sizes of the family.
        has_replica: there is a small random one.
        share: of the memory that is needed, so much is there; None: memory is not the matter.
    """
    found = {}
    if hub_id is not None and share is None:
        found["model.path=DIR"] = "with the files of that model in a folder"
    if hub_id is not None and share is not None:
        limit = _num_billions(size or "") * share
        fitting = [name for name in hub_ids if _num_billions(name) <= limit]
        if fitting:
            largest = max(fitting, key=_num_billions)
            found[f"model.size={largest}"] = "the largest of the family that fits"
    if has_replica and hub_id is not None:
        found[f"model.size={TINY}"] = "a small random replica, to try the command"
    return found


def _num_billions(size: str) -> float:
    """Return the billions that a size such as 7B names; nan for a name such as base."""
    try:
        return float(size.removesuffix("B"))
    except ValueError:
        return math.nan
