"""The one place where configuration becomes objects."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from quarry.errors import UserError


def build(node: DictConfig, **kwargs: Any) -> Any:
    """What the node's `_target_` makes, lists and dicts in it plain; `kwargs` are added.

    Raises:
        UserError: as raised by the target itself, without Hydra's wrapping.
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
    """The members of a group of named nodes, such as callbacks or loggers, in order."""
    return [build(member) for member in node.values() if member is not None]
