"""The golden texts as a table: their lengths, and how near their embeddings are to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quarry.retrieval.golden import GOLDEN, name_of, role_of


def golden_table(num_tokens: Sequence[int], cosines: Mapping[str, Sequence[float]]) -> str:
    """Aligned plain text, a row for each golden text.

    Args:
        num_tokens: of each golden text.
        cosines: title of a column -> a value for each golden text.
    """
    header = ["text", "role", "tokens", *cosines]
    rows = [
        [name_of(item), role_of(item), str(length), *(f"{value:.6f}" for value in values)]
        for item, length, *values in zip(GOLDEN, num_tokens, *cosines.values(), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
