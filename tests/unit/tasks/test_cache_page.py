"""Ages and the table of the cache."""

from __future__ import annotations

import pytest

from quarry.tasks.cache_page import cache_table, readable_age


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (59, "now"), (60, "1 min"), (3 * 3600, "3 h"), (47 * 3600, "47 h"),
     (48 * 3600, "2 d"), (400 * 86_400, "400 d")],
)  # fmt: skip
def test_ages_for_people(seconds: float, text: str) -> None:
    assert readable_age(seconds) == text


def test_columns_are_aligned() -> None:
    table = cache_table(
        [("a", "corpus", "1.0 KiB", "now", "gone", "/x"), ("abc", "r", "10.0 KiB", "3 h", "-", "y")]
    )
    header, one, two = table.splitlines()
    assert header.index("kind") == one.index("corpus") == two.index("r")
    assert one.index("KiB") == two.index("KiB")
