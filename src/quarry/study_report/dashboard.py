"""Build a workspace and a report of Weights & Biases from panels, with wandb-workspaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quarry.study_report.dashboard_keys import LoggedKeys
from quarry.study_report.dashboard_panels import (
    MODEL_OPTION,
    STEP,
    PanelSpec,
    quality_bars,
    sections,
)

WIDTH = 24
"""Columns of W&B's grid."""


def workspace(keys: LoggedKeys, *, entity: str, project: str, study: str | None) -> Any:
    """Return a `Workspace` with all panels; nothing is sent.

    Args:
        study: the group whose runs are shown; None: all of the project.
    """
    import wandb_workspaces.workspaces as ws

    filters = [] if study is None else [ws.Metric("Group") == study]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=_title(study),
        sections=[
            ws.Section(name=name, panels=[_panel(spec) for spec in specs], is_open=True)
            for name, specs in sections(keys).items()
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(filters=filters),
    )


def report(
    keys: LoggedKeys,
    *,
    entity: str,
    project: str,
    study: str | None,
    specialisations: Mapping[str, Sequence[str]],
) -> Any:
    """Return a `Report` with all panels, and bars with a run set for each specialization."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.H1(text=_title(study)), wr.TableOfContents()]
    group = "" if study is None else f"Metric('Group') == {study!r}"
    for name, specs in sections(keys).items():
        # without entity and project a run set is the report's project, and needs no account
        runs = wr.Runset(name="runs", filters=group)
        panels = [_panel(spec, width=_width(spec)) for spec in specs]
        blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=panels)]
    if bars := [_panel(spec, width=WIDTH) for spec in quality_bars(keys)]:
        runsets = [
            wr.Runset(name=name, filters=_filters(group, models))
            for name, models in specialisations.items()
        ]
        blocks += [wr.H2(text="Specializations"), wr.PanelGrid(runsets=runsets, panels=bars)]
    return wr.Report(project=project, entity=entity, title=_title(study), blocks=blocks)


def as_json(made: Any) -> dict[str, Any]:
    """Return what would be sent of a workspace or a report."""
    content: dict[str, Any] = made._to_model().model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    return content


def _title(study: str | None) -> str:
    return "Retrieval runs" if study is None else f"Study {study}"


def _filters(group: str, models: Sequence[str]) -> str:
    own = f"Config({MODEL_OPTION!r}) in {list(models)!r}"
    return f"{group} and {own}" if group else own


def _width(spec: PanelSpec) -> int:
    return WIDTH if spec.kind in ("table", "parallel") else WIDTH // 2


def _panel(spec: PanelSpec, *, width: int = WIDTH // 3) -> Any:
    import wandb_workspaces.reports.v2 as wr

    layout = wr.Layout(w=width, h=8)
    summary = [wr.SummaryMetric(key) for key in spec.summary]
    if spec.kind == "lines":
        return wr.LinePlot(title=spec.title, x=STEP, y=list(spec.history), layout=layout)
    if spec.kind == "bars":
        by = None if spec.group_by is None else wr.Config(spec.group_by)
        return wr.BarPlot(title=spec.title, metrics=summary, groupby=by, layout=layout)
    if spec.kind == "scatter":
        return wr.ScatterPlot(title=spec.title, x=summary[0], y=summary[1], layout=layout)
    if spec.kind == "parallel":
        axes = [*(wr.Config(key) for key in spec.config), *summary]
        columns = [wr.ParallelCoordinatesPlotColumn(axis) for axis in axes]
        return wr.ParallelCoordinatesPlot(title=spec.title, columns=columns, layout=layout)
    return wr.WeavePanelSummaryTable(table_name=str(spec.table), layout=layout)
