"""Porter's stemmer with its author's later rules (-bli, -logi, short words): the one in Lucene."""

from __future__ import annotations

_SUFFIXES_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_SUFFIXES_3 = {
    "icate": "ic",
    "ative": "",
    "alize": "al",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
}
_SUFFIXES_4 = {
    **dict.fromkeys(["al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment"], ""),
    **dict.fromkeys(["ent", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"], ""),
}


def stem(word: str) -> str:
    """Return the stem of a lower-cased word (Porter 1980, "An algorithm for suffix stripping").

    Lengths are in UTF-16 code units, as in Lucene: a letter beyond U+FFFF counts as two.
    """
    if word.isascii() or max(word) <= "\uffff":
        return word if len(word) <= 2 else _stem(word)
    units = word.encode("utf-16-le", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    split = "".join(chr(low + (high << 8)) for low, high in pairs)
    return _stem(split).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _stem(word: str) -> str:
    word = _without_plural(word)
    word = _without_ed_and_ing(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = f"{word[:-1]}i"
    word = _replaced(word, _SUFFIXES_2, min_measure=1)
    word = _replaced(word, _SUFFIXES_3, min_measure=1)
    word = _replaced(word, _SUFFIXES_4, min_measure=2)
    return _without_e_and_double_l(word)


def _without_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_ed_and_ing(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    rest = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if rest == word or "v" not in _shape(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return f"{rest}e"
    if _ends_in_double_consonant(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    return f"{rest}e" if _measure(rest) == 1 and _ends_in_short_syllable(rest) else rest


def _replaced(word: str, suffixes: dict[str, str], *, min_measure: int) -> str:
    """Replace the longest suffix found, if enough precedes it; no other one is tried."""
    for length in range(7, 1, -1):
        suffix = word[-length:]
        if suffix in suffixes:
            rest = word[:-length]
            if suffix == "ion" and not rest.endswith(("s", "t")):
                return word
            return rest + suffixes[suffix] if _measure(rest) >= min_measure else word
    return word


def _without_e_and_double_l(word: str) -> str:
    if not word.endswith(("e", "ll")):
        return word
    measure = _measure(word)
    is_short = measure == 1 and _ends_in_short_syllable(word[:-1])
    if word.endswith("e") and measure > 0 and not is_short:
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and measure > 1 else word


def _shape(word: str) -> str:
    """Write c for each consonant and v for each vowel; y is a vowel after a consonant."""
    shape, last = "", "v"
    for letter in word:
        last = "v" if letter in "aeiou" or (letter == "y" and last == "c") else "c"
        shape += last
    return shape


def _measure(word: str) -> int:
    """Count the sequences of vowels that consonants follow: Porter's m."""
    return _shape(word).count("vc")


def _ends_in_double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _ends_in_short_syllable(word: str) -> bool:
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"
