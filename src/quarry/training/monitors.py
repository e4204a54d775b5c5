"""Check the metrics that callbacks monitor: they exist, are logged, and improve upwards."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytorch_lightning as pl

from quarry.errors import UserError

OF_STEPS = ("train/", "perf/")
"""Prefixes of the metrics of training steps, whose names depend on loss and callbacks."""


def check_monitors(
    callbacks: Sequence[pl.Callback], *, names: Sequence[str], every_n_steps: int
) -> None:
    """Refuse, before training, callbacks that would never act or act in the wrong direction.

    Args:
        callbacks: those with an attribute `monitor` are checked.
        names: metrics that evaluations log, all of them better when higher.
        every_n_steps: optimizer steps between evaluations; 0: none within training.

    Raises:
        UserError: nothing logs the metric (the message lists those that exist), it is not logged
            within training, or mode is "min" for a metric that is better when higher.
    """
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is None or monitor.startswith(OF_STEPS):
            continue
        who = f"callbacks: {type(callback).__name__} monitors {monitor}"
        if monitor not in names:
            raise UserError(f"{who}, which nothing logs. {_what_there_is(monitor, names)}")
        if every_n_steps == 0:
            raise UserError(
                f"{who}, and with evaluation.every_n_steps=0 nothing is evaluated within training. "
                "Fix: set it to a number of optimizer steps, or leave the callback out."
            )
        if getattr(callback, "mode", "max") == "min":
            raise UserError(f"{who} with mode=min, and it is better when higher. Fix: mode=max.")


def _what_there_is(monitor: str, names: Sequence[str]) -> str:
    if not names:
        return "With benchmark=none there is no evaluation to wait for."
    close = difflib.get_close_matches(monitor, names, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}There is {', '.join(names)}."
