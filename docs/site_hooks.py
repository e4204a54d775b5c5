"""Bring what links of the docs reach outside docs/ into the site: hooks of mkdocs.yml.

Pages link one another as files of the repository, so that they also work where the repository is
browsed. The site has the pages of the root beside those of docs/ (README.md is its first page), and
a copy of each other file that a page links.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {  # SECURITY.md and docs/security.md would be one file on some disks
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "reporting.md",
}
COPIES = "files"
"""Folder of the site for linked files that are no pages."""

_LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^( *```)(\w+) ([^\s{`][^\n`]*)$", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and copies of the other files that pages link."""
    from mkdocs.structure.files import File

    pages = {ROOT / source for source in ROOT_PAGES} | {
        Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path
    }
    copies = {
        target: site_path(target)
        for page in pages
        for target in linked_files(page)
        if site_path(target).startswith(f"{COPIES}/")
    }
    for source, uri in (ROOT_PAGES | copies).items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point links to places of the site, and turn a fence's second word into its title."""
    uri = page.file.src_uri
    sources = {there: source for source, there in ROOT_PAGES.items()}
    source = PurePosixPath(sources.get(uri, f"docs/{uri}"))
    return _FENCE.sub(r'\1\2 title="\3"', with_site_links(markdown, source=source, uri=uri))


def with_site_links(markdown: str, *, source: PurePosixPath, uri: str) -> str:
    """Replace each link between files of the repository by that between places of the site.

    Args:
        markdown: text of the page.
        source: path of the page in the repository.
        uri: path of the page in the site's sources.
    """

    def replaced(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        there = site_path(normpath((source.parent / target).as_posix()))
        return f"{before}{relpath(there, PurePosixPath(uri).parent.as_posix())}{after}"

    return _LINK.sub(replaced, markdown)


def site_path(path: str) -> str:
    """Return where the repository's file `path` lies among the sources of the site."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}"


def linked_files(page: Path) -> Iterator[str]:
    """Yield the paths in the repository of the files that a page links."""
    folder = PurePosixPath(page.relative_to(ROOT).as_posix()).parent
    for _, target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
        path = normpath((folder / target).as_posix())
        if "://" not in target and (ROOT / path).is_file():
            yield path
