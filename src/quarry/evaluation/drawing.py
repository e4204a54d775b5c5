"""What the pictures of a run directory have in common: colours, labels, legends, files.

matplotlib is slow to import and only needed to draw, so the functions import it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quarry.evaluation.tables import printable
from quarry.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design", without yellow, which is faint on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
GREY = "#555555"
DARK = "#222222"

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""With `COLOURS` these tell apart as many things as there are colours times markers."""

_DPI = 150
_NAME_WIDTH = 34  # characters a line in labels


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    # Without pyplot: no window system, no global state, and nothing to close.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Writes the PNG; its folder may be new."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def save_with_pdf(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Writes the PNG `path`, and a PDF beside it for print; returns both paths."""
    save(figure, path)
    pdf = path.with_suffix(".pdf")
    with replacing(pdf) as partial:
        # no date: the same numbers make the same file
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None})
    return path, pdf


def wrapped(text: str, width: int) -> str:
    """`text` on at most three lines; to matplotlib, a bare dollar sign begins mathematics."""
    lines = textwrap.wrap(printable(text), width, max_lines=3, placeholder="…")
    return "\n".join(lines).replace("$", r"\$")


def label(name: str) -> str:
    """`name` as matplotlib shows it in a legend or at a tick."""
    lines = wrapped(name, _NAME_WIDTH)
    # A legend leaves out labels that begin with an underscore; a zero-width space keeps them in.
    return f"\u200b{lines}" if lines.startswith("_") else lines


def legend_below(figure: Figure, axes: Axes) -> None:
    """What is in `axes`, in as many columns as fit under the figure, to be read line by line."""
    entries_below(figure, *axes.get_legend_handles_labels())


def entries_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """These entries of a legend, in as many columns as fit under the figure, line by line."""
    num_columns = _num_legend_columns(figure.get_figwidth(), labels)
    # matplotlib fills column after column
    order = [i for column in range(num_columns) for i in range(column, len(labels), num_columns)]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=num_columns,
        frameon=False,
        fontsize=9,
    )


def legend_height(width: float, labels: Sequence[str]) -> float:
    """Inches that `entries_below` takes of a figure `width` inches wide."""
    num_rows = -(-len(labels) // _num_legend_columns(width, labels))
    return 0.2 + 0.18 * num_rows * max(1 + label.count("\n") for label in labels)


def _num_legend_columns(width: float, labels: Sequence[str]) -> int:
    longest = max(len(line) for label in labels for line in label.splitlines())
    return max(1, min(int(width / (0.7 + 0.075 * longest)), len(labels)))


def legend_beside(axes: Axes) -> None:
    """What is in `axes`, to the right of it."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
