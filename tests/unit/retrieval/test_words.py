"""Words as Lucene's standard tokenizer cuts them; expected values are its own (9.9)."""

from __future__ import annotations

import pytest

from quarry.retrieval.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't 'a''b 3.14 1,000; a.1", ["don't", "a", "b", "3.14", "1,000", "a", "1"]),
        ("foo_bar __init__ _ __", ["foo_bar", "__init__"]),
        ("® © x² H₂O", ["®", "©", "x", "H", "O"]),  # no sub- or superscript is part of a word
        ("a\u00adb e\u0301a \u0301a", ["a\u00adb", "e\u0301a", "a"]),
        ("a\u202fb", ["a\u202fb"]),  # a narrow no-break space joins, as an underscore does
        ("中文 ひら カタカナ 한국어", ["中", "文", "ひ", "ら", "カタカナ", "한국어"]),
        ("aア ア1 ア_1", ["a", "ア", "ア", "1", "ア_1"]),
        ("ภาษาไทย aัก", ["ภาษาไทย", "aั", "ก"]),
        ('א\'1 א"א א"1 א"א"א', ["א'1", 'א"א', "א", "1", 'א"א', "א"]),
        ("😀 👨\u200d👩\u200d👧 ☝🏽 🏽", ["😀", "👨\u200d👩\u200d👧", "☝🏽", "🏽"]),
        ("☎\ufe0f ☎\ufe0e ☎\ufe0f\ufe0f", ["☎\ufe0f", "☎", "☎\ufe0f"]),
        ("1\ufe0f\u20e3 #\ufe0f\u20e3 #", ["1\ufe0f\u20e3", "#\ufe0f\u20e3"]),
        ("🇦🇧🇨 🇦", ["🇦🇧"]),
        ("ℹ aℹb", ["ℹ", "aℹb"]),
        ("a" * 254 + "'b", ["a" * 254, "b"]),  # the apostrophe is the last that is looked at
        ("a" * 254 + "𐐀𐐀b", ["a" * 254, "𐐀𐐀b"]),  # no pair of surrogates is cut
        ("a" * 600, ["a" * 255, "a" * 255, "a" * 90]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
