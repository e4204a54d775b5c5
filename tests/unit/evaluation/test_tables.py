"""Text as it may stand in a terminal or in Markdown."""

from __future__ import annotations

from quarry.evaluation.tables import number, printable


def test_unprintable_names_have_a_form() -> None:
    assert [printable(name) for name in ("", "\n", "a\tb", "\ud800x")] == [
        "(unnamed)",
        "(unnamed)",
        "a b",
        "x",
    ]


def test_a_number_or_why_there_is_none() -> None:
    assert number(0.12345) == "0.1235"
    assert number(None) == "-"
    assert number(None, has_failed=True) == "failed"
