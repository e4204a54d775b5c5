"""Instantiate objects from configuration nodes."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from quarry.errors import UserError


def build(node: DictConfig, **kwargs: Any) -> Any:
    """Instantiate the node's `_target_`, with `kwargs` added; nested lists and dicts are plain.

    Raises:
        UserError: the target's own error, without Hydra's wrapping.
    """
    try:
        return instantiate(node, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__
        raise


def build_named(node: DictConfig) -> list[Any]:
    """Instantiate the members of a group of named nodes, such as callbacks, in order."""
    return [build(member) for member in node.values() if member is not None]
