"""The scatter shows the sets that both retrievers have, and counts who wins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quarry.evaluation.scatter import MAX_PANELS, counts, plot_scatter
from quarry.types import Report, SetResult

BLUE_ENOUGH = 60  # how much more blue than red a pixel of a point has


def a_report(name: str, **sets: list[float]) -> Report:
    results = tuple(
        SetResult(
            name=set_name,
            metrics={"m": sum(values) / len(values)},
            per_query={"m": {f"q{i}": value for i, value in enumerate(values)}},
            run={},
            num_queries=len(values),
            num_documents=1,
        )
        for set_name, values in sets.items()
    )
    return Report(retriever=name, results=results)


def points(path: Path) -> np.ndarray:
    """[height, width], where there is a point."""
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB")).astype(int)
    return array[:, :, 2] - array[:, :, 0] > BLUE_ENOUGH


def test_counts() -> None:
    pairs = np.array([[0, 1], [1, 0], [0.5, 0.5], [0.5, 0.5 + 1e-12], [0.2, 0.3]])
    assert counts(pairs) == (2, 2, 1)


def test_a_point_is_where_its_values_are(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scatter.png"
    both = [(0.1, 0.9), (0.9, 0.9), (0.1, 0.1)]
    drawn = {}
    for x, y in both:  # so many queries that the cross of the means hides a part of the point only
        reports = a_report("a", s=[x] * 99), a_report("b", s=[y] * 99)
        assert plot_scatter(*reports, path, measure="m") == ["s"]
        rows, columns = points(path).nonzero()
        drawn[x, y] = rows.mean(), columns.mean()
    assert drawn[0.1, 0.9][0] == pytest.approx(drawn[0.9, 0.9][0], abs=4)  # as high
    assert drawn[0.1, 0.9][1] == pytest.approx(drawn[0.1, 0.1][1], abs=4)  # as far to the left
    assert drawn[0.9, 0.9][1] - drawn[0.1, 0.9][1] > 200
    assert drawn[0.1, 0.1][0] - drawn[0.1, 0.9][0] > 200  # rows count from the top


def test_nothing_is_written_over_a_point(tmp_path: Path) -> None:
    areas = []
    for x, y in ((0.5, 0.3), (0.9, 0.07), (0.1, 0.93)):
        reports = a_report("a", s=[x] * 99), a_report("b", s=[y] * 99)
        plot_scatter(*reports, tmp_path / "scatter.png", measure="m")
        areas.append(int(points(tmp_path / "scatter.png").sum()))
    assert min(areas) == pytest.approx(max(areas), rel=0.05)  # but for pixels of the edge


def test_more_queries_make_a_larger_point(tmp_path: Path) -> None:
    areas = []
    for number in (8, 200):
        report = a_report("a", s=[0.5] * number)
        plot_scatter(report, report, tmp_path / "scatter.png", measure="m")
        areas.append(int(points(tmp_path / "scatter.png").sum()))
    assert areas[1] > 4 * areas[0] > 100


def test_sets_and_queries_that_both_have(tmp_path: Path) -> None:
    baseline = a_report("a", x=[0.1, 0.2], only_a=[0.5])
    model = a_report("b", only_b=[0.5], x=[0.1, 0.2, 0.3])
    assert plot_scatter(baseline, model, tmp_path / "s.png", measure="m") == ["x"]


def test_nothing_in_common_draws_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.png"
    assert plot_scatter(a_report("a", x=[0.1]), a_report("b", y=[0.1]), path, measure="m") == []
    assert plot_scatter(a_report("a", x=[0.1]), a_report("b", x=[0.1]), path, measure="n") == []
    assert not path.exists()


def test_of_many_sets_those_that_differ_most_in_their_order(tmp_path: Path) -> None:
    values = {f"s{i}": i / 20 for i in range(MAX_PANELS + 3)}
    baseline = a_report("a", **{name: [0.0] for name in values})
    model = a_report("b", **{name: [value] for name, value in values.items()})
    shown = plot_scatter(baseline, model, tmp_path / "s.png", measure="m")
    assert shown == [f"s{i}" for i in range(3, MAX_PANELS + 3)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$x$", "_hidden", "long name " * 30, "a\nb"])
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    report = a_report(name, **{name: [0.5, 1.0]})
    assert plot_scatter(report, report, tmp_path / "s.png", measure="m") == [name]
