"""The plots are pictures of the numbers: right size, drawn on, and no name breaks them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quarry.errors import UserError
from quarry.evaluation.plots import plot_bars, plot_learning_curve, running_median
from quarry.types import Report, SetResult

BLUE = (0x00, 0x72, 0xB2)
ORANGE = (0xE6, 0x9F, 0x00)
GREEN = (0x00, 0x9E, 0x73)


def a_report(retriever: str, **values: float) -> Report:
    results = tuple(
        SetResult(
            name=name,
            metrics={"nDCG@10": value, "MRR@10": value / 2},
            per_query={},
            run={},
            num_queries=1,
            num_documents=1,
        )
        for name, value in values.items()
    )
    return Report(retriever=retriever, results=results)


def pixels(path: Path) -> np.ndarray:
    """[height, width, 3] of a PNG, which must be of 150 dpi and not of one color."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        array = np.asarray(image.convert("RGB"))
    assert min(array.shape[:2]) >= 400
    assert len(np.unique(array @ np.array([1 << 16, 1 << 8, 1]))) > 20
    return array


def area(array: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((array == color).all(axis=2).sum())


def test_bars_of_one_set_are_as_high_as_their_values(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bars.png"
    plot_bars([a_report("bm25", s=0.8), a_report("dense", s=0.4)], path, measures=["nDCG@10"])
    drawn = pixels(path)
    # 5 %: edges, and the patches of the legend, which are of one size.
    assert area(drawn, BLUE) == pytest.approx(2 * area(drawn, ORANGE), rel=0.05)
    assert list(path.parent.iterdir()) == [path]


def test_bars_of_several_sets_grow_with_the_sets(tmp_path: Path) -> None:
    heights = []
    for num_sets in (2, 14):
        values = {f"set-{i}": 0.5 for i in range(num_sets)}
        path = tmp_path / f"{num_sets}.png"
        plot_bars([a_report(r, **values) for r in ("bm25", "untrained", "trained")], path)
        heights.append(pixels(path).shape[0])
    assert heights[1] > 2 * heights[0]


def test_what_was_not_measured_has_no_bar(tmp_path: Path) -> None:
    both, one = tmp_path / "both.png", tmp_path / "one.png"
    bm25 = a_report("bm25", a=0.5, b=0.5)
    plot_bars([bm25, a_report("dense", a=0.5, b=0.5)], both)
    plot_bars([bm25, a_report("dense", a=0.5)], one)
    # Of the three bars for a, b and the mean, the first is left.
    assert area(pixels(one), ORANGE) < 0.5 * area(pixels(both), ORANGE)
    assert area(pixels(one), BLUE) == pytest.approx(area(pixels(both), BLUE), rel=0.02)


def dark_in_the_middle_of_the_bar(path: Path) -> int:
    """Rows of the picture, down to the foot of the bar, that are dark at the bar's middle."""
    drawn = pixels(path)
    rows, columns = (drawn == BLUE).all(axis=2).nonzero()
    middle = drawn[: rows.max(), (columns.min() + columns.max()) // 2 - 1 :][:, :3]
    return int((middle.max(axis=2).min(axis=1) < 100).sum())


def test_whiskers_reach_as_far_as_the_interval(tmp_path: Path) -> None:
    report = a_report("bm25", s=0.5)
    rows = []
    for low, high in ((0.5, 0.5), (0.4, 0.6), (0.2, 0.8)):
        result = replace(report.results[0], intervals={"nDCG@10": (low, high)})
        wide = Report(retriever="bm25", results=(result,))
        plot_bars([wide], tmp_path / "bars.png", measures=["nDCG@10"])
        rows.append(dark_in_the_middle_of_the_bar(tmp_path / "bars.png"))
    # 0.2 and 0.6 of axes that end at 0.66 and 0.88
    assert rows[2] - rows[0] == pytest.approx((rows[1] - rows[0]) * 2.25, rel=0.15)
    assert rows[1] - rows[0] > 100
    plot_bars([report], tmp_path / "plain.png", measures=["nDCG@10"])
    assert dark_in_the_middle_of_the_bar(tmp_path / "plain.png") <= rows[0]


def test_a_group_is_one_bar_and_what_failed_has_none(tmp_path: Path) -> None:
    names = list("abcdefg")
    report = a_report("bm25", **dict.fromkeys(names, 0.5))
    first = tuple(replace(result, group="g") for result in report.results[:4])
    grouped = Report(retriever="bm25", results=first + report.results[4:])
    failed = Report(
        retriever="bm25", results=report.results[3:], failures=dict.fromkeys("abc", "no network")
    )
    numbers = []
    for each in (report, grouped, failed):
        plot_bars([each], tmp_path / "bars.png")
        is_blue = (pixels(tmp_path / "bars.png") == BLUE).all(axis=2)
        near_the_axis = is_blue[:, np.flatnonzero(is_blue.any(axis=0))[0] + 10]
        numbers.append(int((np.diff(near_the_axis.astype(int)) == 1).sum()))
    # seven sets and the mean; a group, three sets and the mean; four that did not fail and the mean
    assert numbers == [8, 5, 5]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    ["$x$", "a$b", "_hidden", "$\\frac{$", "%s {0}", "", "a\nb", "long name " * 30, "x" * 300],
)
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    plot_bars([a_report(name, s=0.5)], tmp_path / "one.png")
    plot_bars([a_report(name, **{name: 0.5, "t": 0.5})], tmp_path / "several.png")
    plot_learning_curve([(0, 0), (1, 0.5)], tmp_path / "curve.png", baselines={name: 0.25})
    for file in ("one.png", "several.png", "curve.png"):
        assert max(pixels(tmp_path / file).shape) < 2500


def test_more_retrievers_than_colors(tmp_path: Path) -> None:
    plot_bars([a_report(f"model-{i}", s=0.5) for i in range(9)], tmp_path / "bars.png")
    pixels(tmp_path / "bars.png")


def test_all_zero_results_can_be_drawn(tmp_path: Path) -> None:
    plot_bars([a_report("bm25", s=0.0)], tmp_path / "bars.png")
    pixels(tmp_path / "bars.png")


def test_bars_need_a_measure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="None of the measures MAP"):
        plot_bars([a_report("bm25", s=0.5)], tmp_path / "bars.png", measures=["MAP"])


def test_learning_curve_draws_baselines_and_a_loss_panel(tmp_path: Path) -> None:
    points = [(100, 0.5), (0, 0.1), (50, 0.4)]
    losses = [(step, 1 / (1 + step)) for step in range(100)]
    baselines = {"bm25": 0.45, "untrained": 0.1}
    plot_learning_curve(points, tmp_path / "curve.png", baselines=baselines)
    plot_learning_curve(points, tmp_path / "both.png", baselines=baselines, losses=losses)
    curve, both = pixels(tmp_path / "curve.png"), pixels(tmp_path / "both.png")
    assert both.shape[0] > 1.4 * curve.shape[0]
    for drawn in (curve, both):
        assert area(drawn, BLUE) > 500  # the dashed line of bm25
        assert area(drawn, ORANGE) > 500
    assert area(both, GREEN) > 1.4 * area(curve, GREEN)  # the median of the losses


def test_the_order_of_the_points_does_not_matter(tmp_path: Path) -> None:
    points = [(0, 0.1), (50, 0.4), (100, 0.5)]
    plot_learning_curve(points, tmp_path / "sorted.png", baselines={})
    plot_learning_curve(points[::-1], tmp_path / "reversed.png", baselines={})
    assert (pixels(tmp_path / "sorted.png") == pixels(tmp_path / "reversed.png")).all()


def test_a_diverged_loss_can_be_drawn(tmp_path: Path) -> None:
    losses = [(0, 1.0), (1, float("inf")), (2, float("nan")), (3, 1.0)]
    plot_learning_curve([(3, 0.5)], tmp_path / "curve.png", baselines={}, losses=losses)
    pixels(tmp_path / "curve.png")


@pytest.mark.parametrize("points", [[], [(3, 0.5)]])
def test_a_single_point_is_no_curve(points: list[tuple[int, float]], tmp_path: Path) -> None:
    path = tmp_path / "new" / "curve.png"
    plot_learning_curve(points, path, baselines={"bm25": 0.5}, losses=[(1, 0.5)])
    assert not path.parent.exists()
    plot_learning_curve(points, path, baselines={"bm25": 0.5}, losses=[(1, 0.5), (2, 0.3)])
    drawn = pixels(path)
    assert area(drawn, ORANGE) > 500  # the losses, in the color after bm25's
    assert area(drawn, BLUE) == 0


def test_running_median() -> None:
    # Windows: [9] [9 1 5] [9 1 5 7 3] [5 7 3] [3]
    assert running_median([9, 1, 5, 7, 3], window=5).tolist() == [9, 5, 5, 5, 3]
    assert running_median([4.0], window=3).tolist() == [4.0]


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, quarry.evaluation.plots, quarry.evaluation.scatter; "
    code += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
