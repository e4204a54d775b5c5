"""Create, label and save matplotlib figures in one style: colors, legends, file formats.

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
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
GRAY = "#555555"
DARK = "#222222"

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Combined with `COLORS` they distinguish up to colors times markers series."""

_DPI = 150
_NAME_WIDTH = 34  # characters a line in labels


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches."""
    # without pyplot: no window system, no global state, and nothing to close
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as the PNG `path`, whose folder may be new."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def save_with_pdf(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write the figure as the PNG `path` and a PDF beside it; return both paths."""
    save(figure, path)
    pdf = path.with_suffix(".pdf")
    with replacing(pdf) as partial:
        # no date: the same numbers make the same file
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None})
    return path, pdf


def wrapped(text: str, width: int) -> str:
    """Wrap `text` to at most three lines, with dollar signs escaped for matplotlib."""
    lines = textwrap.wrap(printable(text), width, max_lines=3, placeholder="…")
    return "\n".join(lines).replace("$", r"\$")


def label(name: str) -> str:
    """Return `name` as a label for a legend or a tick."""
    lines = wrapped(name, _NAME_WIDTH)
    # a legend omits labels that begin with an underscore, unless a zero-width space precedes it
    return f"\u200b{lines}" if lines.startswith("_") else lines


def legend_below(figure: Figure, axes: Axes) -> None:
    """Add a legend of `axes` below the figure, in as many columns as fit, row by row."""
    entries_below(figure, *axes.get_legend_handles_labels())


def entries_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Add a legend of these entries below the figure, in as many columns as fit, row by row."""
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
    """Return the height in inches of `entries_below` in a figure `width` inches wide."""
    num_rows = -(-len(labels) // _num_legend_columns(width, labels))
    return 0.2 + 0.18 * num_rows * max(1 + label.count("\n") for label in labels)


def _num_legend_columns(width: float, labels: Sequence[str]) -> int:
    longest = max(len(line) for label in labels for line in label.splitlines())
    return max(1, min(int(width / (0.7 + 0.075 * longest)), len(labels)))


def legend_beside(axes: Axes) -> None:
    """Add a legend to the right of `axes`."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
