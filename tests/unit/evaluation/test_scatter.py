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


def colors(path: Path) -> np.ndarray:
    """[height, width, 3]: red, green and blue."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def points(path: Path) -> np.ndarray:
    """[height, width], where there is a point of a query for which the model is better."""
    array = colors(path)
    return array[:, :, 2] - array[:, :, 0] > BLUE_ENOUGH


def draw(path: Path, baseline: list[float], model: list[float]) -> None:
    """Draw a set between two others of the same queries, so that there is no histogram."""
    reports = [
        a_report(name, before=[0.5], s=values, after=[0.5])
        for name, values in (("a", baseline), ("b", model))
    ]
    assert plot_scatter(*reports, path, measure="m") == ["before", "s", "after"]


def test_counts() -> None:
    pairs = np.array([[0, 1], [1, 0], [0.5, 0.5], [0.5, 0.5 + 1e-12], [0.2, 0.3]])
    assert counts(pairs) == (2, 2, 1)


def test_a_point_is_where_its_values_are(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scatter.png"
    both = [(0.1, 0.9), (0.8, 0.9), (0.1, 0.2)]
    masks = {}
    for x, y in both:  # so many queries that the cross of the means hides a part of the point only
        draw(path, [x] * 99, [y] * 99)
        masks[x, y] = points(path)
    legend = np.logical_and.reduce(list(masks.values()))
    assert legend.sum() > 50  # the color is explained
    drawn = {place: [i.mean() for i in (mask & ~legend).nonzero()] for place, mask in masks.items()}
    assert drawn[0.1, 0.9][0] == pytest.approx(drawn[0.8, 0.9][0], abs=4)  # as high
    assert drawn[0.1, 0.9][1] == pytest.approx(drawn[0.1, 0.2][1], abs=4)  # as far to the left
    assert drawn[0.8, 0.9][1] - drawn[0.1, 0.9][1] > 150
    assert drawn[0.1, 0.2][0] - drawn[0.1, 0.9][0] > 150  # rows count from the top


def test_nothing_is_written_over_a_point(tmp_path: Path) -> None:
    areas = []
    for x, y in ((0.3, 0.5), (0.0, 1.0), (0.1, 0.93)):
        draw(tmp_path / "scatter.png", [x] * 99, [y] * 99)
        areas.append(int(points(tmp_path / "scatter.png").sum()))
    assert min(areas) == pytest.approx(max(areas), rel=0.05)  # but for pixels of the edge


def test_more_queries_make_a_larger_point(tmp_path: Path) -> None:
    areas = []
    for number in (1, 8, 200):
        draw(tmp_path / "scatter.png", [0.4] * number, [0.6] * number)
        areas.append(int(points(tmp_path / "scatter.png").sum()))
    one, eight, many = areas
    assert many - one > 4 * (eight - one) > 100


def test_queries_have_the_color_of_the_better_retriever(tmp_path: Path) -> None:
    path = tmp_path / "scatter.png"
    blue, orange = [], []
    for baseline, model in ((0.2, 0.8), (0.8, 0.2), (0.5, 0.5)):
        draw(path, [baseline] * 99, [model] * 99)
        array = colors(path)
        blue.append(int(points(path).sum()))
        is_orange = (array[:, :, 0] - array[:, :, 2] > BLUE_ENOUGH) & (array[:, :, 1] > 150)
        orange.append(int(is_orange.sum()))
    legend = blue[2], orange[2]  # equal queries have neither color
    assert blue[0] > legend[0] + 500
    assert orange[1] > legend[1] + 500
    assert (blue[1], orange[0]) == pytest.approx(legend, abs=60)


def test_a_single_set_has_a_histogram_of_the_differences(tmp_path: Path) -> None:
    baseline, model = [0.5] * 30, [0.9] * 12 + [0.1] * 5 + [0.5] * 13
    plot_scatter(a_report("a", s=baseline), a_report("b", s=model), tmp_path / "s.png", measure="m")
    draw(tmp_path / "three.png", baseline, model)
    right = {}
    for name, panel in (("s", slice(-600, None)), ("three", slice(-400, None))):
        right[name] = points(tmp_path / f"{name}.png")[:-150, panel]
    assert right["s"].sum() > 2000  # a bar of twelve
    assert right["three"].sum() == 0


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
