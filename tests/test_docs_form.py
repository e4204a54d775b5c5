"""Prose of the docs: 100 columns, paragraphs of five lines, links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
MAX_COLUMNS = 100
MAX_LINES = 5
BANNED = ("contrast set", "trunk", "goes on", "going on", "hangs on", "hang on")
"""The field says contrastive batch, backbone, continues, depends on."""

ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

Line = tuple[int, str]


def prose(text: str) -> Iterator[Line]:
    """Yield the numbered lines outside fences and tables, each break between them as empty."""
    is_fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("```"):
            is_fenced = not is_fenced
        is_prose = not is_fenced and not stripped.startswith(("```", "|", "<!--"))
        yield number, line if is_prose else ""


def paragraphs(text: str) -> Iterator[list[Line]]:
    """Yield the paragraphs, items of lists and blocks of indented code."""
    found: list[Line] = []
    for number, line in prose(text):
        is_end = not line.strip() or line.startswith("#")
        if found and (is_end or ITEM.match(line)):
            yield found
            found = []
        if not is_end:
            found.append((number, line))
    if found:
        yield found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = [line for _, line in prose(page.read_text(encoding="utf-8")) if line[:1] == "#"]
    words = (re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words}


def is_url(line: str) -> bool:
    return any(len(word) > MAX_COLUMNS // 2 for word in line.split() if "://" in word)


@pytest.fixture(params=PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_lines_of_prose_have_at_most_100_columns(page: Path) -> None:
    lines = prose(page.read_text(encoding="utf-8"))
    long = [number for number, line in lines if len(line) > MAX_COLUMNS and not is_url(line)]
    assert long == []


def test_commands_have_at_most_100_columns(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"^ *```sh\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in commands for line in block.splitlines()]
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


def test_paragraphs_have_at_most_five_lines(page: Path) -> None:
    found = list(paragraphs(page.read_text(encoding="utf-8")))
    long = [
        lines[0]
        for lines in found
        if len(lines) > MAX_LINES and not all(line.startswith("    ") for _, line in lines)
    ]
    assert long == []


def test_lists_begin_after_an_empty_line(page: Path) -> None:
    """GitHub sees a list without it, the site does not."""
    found = []
    begins_with_item: bool | None = None  # of the lines since the last empty one
    for number, line in prose(page.read_text(encoding="utf-8")):
        if not line.strip() or line.startswith("#"):
            begins_with_item = None
        elif begins_with_item is None:
            begins_with_item = ITEM.match(line) is not None
        elif ITEM.match(line) and not begins_with_item:
            found.append(number)
    assert found == []


def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = "\n".join(page.read_text(encoding="utf-8").splitlines())
    broken = []
    for target in LINK.findall(text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_no_word_of_an_earlier_dialect(page: Path) -> None:
    found = [
        (number, word)
        for number, line in prose(page.read_text(encoding="utf-8"))
        for word in BANNED
        if re.search(rf"\b{word}s?\b", line, flags=re.IGNORECASE)
    ]
    assert found == []


def test_speeds_in_the_readme_are_those_of_its_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, mark, table = text.partition("<!-- speed:")
    factor = re.compile(r"\b(\d+\.\d\d)\s+times")
    assert mark
    assert len(factor.findall(before)) >= 3
    assert set(factor.findall(before)) <= set(factor.findall(table))


def test_a_note_names_files_that_exist() -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "conf", "bench", "tests")
        for path in (ROOT / folder).rglob("*.*")
    }
    named = {
        (page.name, file)
        for page in (ROOT / "docs" / "notes").glob("*.md")
        for file in re.findall(r"`([\w/]+/\w+\.(?:py|yaml))`", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 40
    missing = {each for each in named if not {each[1], f"src/quarry/{each[1]}"} & sources}
    assert missing == set()


def test_long_prose_is_found() -> None:
    assert [number for number, _ in prose("a\n```\nb\n```\n| c |\nd\n")] == [1, 2, 3, 4, 5, 6]
    assert [line for _, line in prose("a\n```\nb\n```\n| c |\nd") if line] == ["a", "d"]
    found = [len(lines) for lines in paragraphs("# a\none\ntwo\n\n- three\n  four\n- five\n")]
    assert found == [2, 2, 1]
