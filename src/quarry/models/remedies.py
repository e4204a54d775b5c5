"""Define the error for a model that cannot be loaded, and suggest overrides that would run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from quarry.errors import UserError

TINY = "tiny"
"""Value of `model.size` that stands for the family's replica."""


class CannotLoadError(UserError):
    """Error for a model that is not available or would not fit, raised before anything is loaded.

    Attributes:
        remedies: override that would run, such as "model.size=3B" -> what it means.
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
    """Return overrides that would run, and what each means.

    Args:
        size, hub_id: the model that cannot be loaded.
        hub_ids: size -> hub id, of the model's family.
        has_replica: whether the family has a small random replica.
        share: available memory divided by the memory needed; None: memory is not the problem.
    """
    found = {}
    if hub_id is not None and share is None:
        found["model.path=DIR"] = "a folder with the files of that model"
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
    """Return the billions of parameters that a size such as 7B names; nan for one such as base."""
    try:
        return float(size.removesuffix("B"))
    except ValueError:
        return math.nan
