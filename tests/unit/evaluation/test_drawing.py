"""Legends are read as the table is: line by line."""

from __future__ import annotations

from quarry.evaluation.drawing import figure_of, legend_below


def test_a_legend_of_several_lines_is_in_the_order_of_the_bars() -> None:
    figure = figure_of(4.0, 4.0)
    axes = figure.subplots()
    names = [f"retriever {i}" for i in range(5)]
    for name in names:
        axes.plot([0, 1], label=name)
    legend_below(figure, axes)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    boxes = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    assert len({round(box.y0) for box in boxes.values()}) > 1
    by_place = sorted(boxes, key=lambda name: (-round(boxes[name].y0), boxes[name].x0))
    assert by_place == names
