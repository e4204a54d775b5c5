"""Unit tests lie where what they test lies in src, and the other folders are those of README."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
UNIT = TESTS / "unit"
SOURCE = ROOT / "src" / "quarry"
FILES = sorted(UNIT.rglob("test_*.py"))
NO_TESTS = {"assets", "helpers"}
"""Folders of what tests use."""


IMPORT = re.compile(r"^\s*(?:from|import) ((?:quarry|helpers)\.[\w.]+)", re.MULTILINE)
"""In strings as well: programs that a test gives to processes of their own."""


def imported(path: Path) -> set[str]:
    """Return the modules of ours that a test imports, itself or through a helper."""
    found = set(IMPORT.findall(path.read_text(encoding="utf-8")))
    for helper in [module for module in found if module.startswith("helpers.")]:
        found |= imported(TESTS / f"{helper.replace('.', '/')}.py")
    return found


def test_every_folder_of_unit_tests_is_a_package_of_ours() -> None:
    folders = {path.parent.relative_to(UNIT) for path in FILES}
    assert len(folders) >= 20
    assert [str(one) for one in folders if not (SOURCE / one / "__init__.py").is_file()] == []


def test_a_unit_test_imports_what_lies_in_its_package() -> None:
    wrong = []
    for path in FILES:
        package = ".".join(["quarry", *path.parent.relative_to(UNIT).parts])
        if not any(f"{module}.".startswith(f"{package}.") for module in imported(path)):
            wrong.append(f"{path.relative_to(UNIT)} imports nothing of {package}")
    assert wrong == []


def test_a_unit_test_named_as_a_module_lies_in_the_folder_of_its_package() -> None:
    wrong = []
    for path in FILES:
        modules = list(SOURCE.rglob(f"{path.stem.removeprefix('test_')}.py"))
        folders = {str(module.parent.relative_to(SOURCE)) for module in modules}
        if folders and str(path.parent.relative_to(UNIT)) not in folders:
            wrong.append(f"{path.relative_to(UNIT)} belongs to {folders}")
    assert wrong == []


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by their names alone."""
    counts = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, number in counts.items() if number > 1] == []


def test_readme_names_the_folders_of_tests() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.finditer(r"^tests/ .*(?:\n +.*)*", page, re.MULTILINE)
    line = " ".join(found[0].split())
    text = re.sub(r"\(.*?\)", "", line.removeprefix("tests/"))
    named = {name.strip() for name in text.split(",")}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0].isalpha()}
    assert named == folders - NO_TESTS
    assert "unit (mirrors src)" in line
