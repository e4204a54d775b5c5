"""The site of the docs: where its links lead, and that no page is left out of its navigation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "uri", "link", "expected"),
    [
        ("README.md", "index.md", "docs/data.md", "data.md"),
        ("README.md", "index.md", "docs/api/README.md", "api/README.md"),
        ("README.md", "index.md", "CITATION.cff", "files/CITATION.cff"),
        ("README.md", "index.md", "#speed", "#speed"),
        ("docs/data.md", "data.md", "evaluation.md#groups", "evaluation.md#groups"),
        ("docs/data.md", "data.md", "../README.md", "index.md"),
        ("docs/notes/hub.md", "notes/hub.md", "../data.md", "../data.md"),
        ("docs/notes/hub.md", "notes/hub.md", "../../CHANGELOG.md", "../CHANGELOG.md"),
        ("docs/studies.md", "studies.md", "../src/a/b.yaml", "files/src/a/b.yaml"),
        ("docs/data.md", "data.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_links_of_files_become_links_of_the_site(
    hooks: ModuleType, source: str, uri: str, link: str, expected: str
) -> None:
    found = hooks.with_site_links(f"a [b]({link}) c", source=PurePosixPath(source), uri=uri)
    assert found == f"a [b]({expected}) c"


def test_files_that_a_page_links(hooks: ModuleType) -> None:
    found = set(hooks.linked_files(ROOT / "README.md"))
    assert {"docs/data.md", "CITATION.cff", "CONTRIBUTING.md"} <= found
    assert all((ROOT / each).is_file() for each in found)


def test_every_page_is_in_the_navigation(hooks: ModuleType) -> None:
    shown = set(re.findall(r"[\w/]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    # (exclude_docs names the template: a page that the site leaves out on purpose)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= set(hooks.ROOT_PAGES.values())
    assert shown == pages


def test_what_the_api_pages_name_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    names = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(names) > 20
    for name in names:
        path = ROOT / "src" / name.replace(".", "/")
        is_module = path.with_suffix(".py").is_file()
        assert is_module or path.parent.is_dir() or path.parent.with_suffix(".py").is_file(), name


def test_versions_agree() -> None:
    from quarry import __version__

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    (date,) = re.findall(r'^date-released: "(.+)"$', citation, re.MULTILINE)
    assert f"## [{__version__}] - {date}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
