"""Describe the panels of a dashboard as plain data; each names keys that the runs have logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quarry.study_report.dashboard_keys import OF_A_GPU, LoggedKeys
from quarry.tasks.summary import SETS_TABLE
from quarry.training.evaluation_log import EXAMPLES_TABLE, MEAN

Kind = Literal["lines", "bars", "scatter", "parallel", "table"]

STEP = "trainer/global_step"
"""Optimizer steps, which Lightning's logger adds to what it logs."""

MODEL_OPTION = "options.model"
"""Key of the configuration that W&B gets: the option of the group `model`."""

COST = "cost/device_hours"
TRAINING = (
    ("train/loss",), ("train/learning_rate",), ("train/gradient_norm",), ("perf/tokens_per_s",),
    *((key,) for key in OF_A_GPU),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """What a panel shows.

    Attributes:
        history, summary, config: the keys that it names, by where W&B has them; of a scatter plot
            cost and quality, in this order.
        table: the table that it shows.
        group_by: key of the configuration whose values bars are means over.
    """

    kind: Kind
    title: str
    history: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    table: str | None = None
    group_by: str | None = None


def sections(keys: LoggedKeys) -> dict[str, tuple[PanelSpec, ...]]:
    """Return section -> panels; panels without a logged key, and empty sections, are left out."""
    cost = COST if COST in keys.summary else None
    found = {
        "Quality": _quality(keys),
        "Sweep": _sweep(keys, cost),
        "Cost and quality": _cost(keys, cost),
        "Training": [
            PanelSpec(kind="lines", title=names[0], history=names)
            for names in TRAINING
            if set(names) <= keys.history
        ],
        "Tables": [
            PanelSpec(kind="table", title=name, table=name)
            for name in (SETS_TABLE, EXAMPLES_TABLE)
            if name in keys.tables
        ],
    }
    return {name: tuple(panels) for name, panels in found.items() if panels}


def quality_bars(keys: LoggedKeys) -> list[PanelSpec]:
    """Return bars of the mean over all sets by the option of `model`, where there is one."""
    if keys.mean not in keys.summary:
        return []
    title = f"{MEAN} {keys.measure} by model"
    return [PanelSpec(kind="bars", title=title, summary=(keys.mean,), group_by=MODEL_OPTION)]


def _quality(keys: LoggedKeys) -> list[PanelSpec]:
    names = [name for name in (MEAN, *keys.sets) if f"val/{name}/{keys.measure}" in keys.history]
    return [
        PanelSpec(
            kind="lines", title=f"{name} {keys.measure}", history=(f"val/{name}/{keys.measure}",)
        )
        for name in names
    ]


def _sweep(keys: LoggedKeys, cost: str | None) -> Sequence[PanelSpec]:
    panels = quality_bars(keys)
    if keys.swept and keys.mean in keys.summary:
        summary = (keys.mean,) if cost is None else (keys.mean, cost)
        title = "settings, quality and cost"
        panels.append(PanelSpec(kind="parallel", title=title, config=keys.swept, summary=summary))
    return panels


def _cost(keys: LoggedKeys, cost: str | None) -> list[PanelSpec]:
    if cost is None or keys.mean not in keys.summary:
        return []
    title = f"{MEAN} {keys.measure} against {cost}"
    return [PanelSpec(kind="scatter", title=title, summary=(cost, keys.mean))]
