"""The search page in a real browser: results, marked words, keys, and nothing that is not text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.served import InMemorySearch, Served, served
from quarry.serving.page import page, page_headers
from quarry.types import Document

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & a cat"
LONG = "Nothing of interest stands here. " * 40 + "Then a small cat sleeps on the mat."
DOCUMENTS = [
    Document(document_id="a/1", title="Cats", text="A cat is a small animal that people keep."),
    Document(document_id="<b>evil</b>", title="<i>Evil</i>", text=EVIL),
    Document(document_id="long", text=LONG),
    Document(document_id="code", text="def cat(path):\n    return open(path).read()\n"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(searchable=InMemorySearch(DOCUMENTS, has_hybrid=True)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as run:
        found = run.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any, server: Served) -> Iterator[Any]:
    """A page that records what it asks for, and its errors."""
    found = browser.new_page(viewport={"width": 900, "height": 760})
    found.set_default_timeout(20_000)
    found.asked, found.errors = [], []
    found.on("request", lambda request: found.asked.append(request.url))
    found.on("pageerror", lambda error: found.errors.append(str(error)))
    found.on(
        "console", lambda line: found.errors.append(line.text) if line.type == "error" else None
    )
    yield found
    assert found.errors == []
    assert all(url.startswith(server.url) or url == "data:," for url in found.asked)
    found.close()


def search(tab: Any, server: Served, text: str) -> Any:
    tab.goto(server.url)
    tab.locator("#query:focus").wait_for()  # by itself, but not at once on a busy machine
    tab.keyboard.type(text)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#results li")
    return tab.locator("#results li")


def test_a_query_has_ranked_results_with_marked_words(tab: Any, server: Served) -> None:
    results = search(tab, server, "small cats")
    assert results.count() == 4
    assert tab.locator("#about").inner_text() == "tiny, 4 documents"
    assert "4 documents in" in tab.locator("#status").inner_text()
    first = results.nth(0)
    assert first.locator(".rank").inner_text() == "1"
    assert re.fullmatch(r"\d\.\d{4}", first.locator(".score").inner_text())
    found = {
        entry.locator(".title").inner_text(): entry.locator("mark").all_inner_texts()
        for entry in results.all()
    }
    assert found["Cats"] == ["Cats", "cat", "small"]
    assert found["long"] == ["small", "cat"]  # from the middle of the text
    assert found["code"] == ["cat"]


def test_texts_are_shown_and_never_run(tab: Any, server: Served) -> None:
    results = search(tab, server, "<script>window.hacked = 1</script> cat")
    evil = results.filter(has=tab.locator(".title", has_text="<i>Evil</i>"))
    assert evil.locator(".text").inner_text() == EVIL
    evil.locator(".title").click()  # the full text
    assert evil.locator(".text").inner_text() == EVIL
    assert evil.locator(".id").inner_text() == "<b>evil</b>"
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("#results img, #results script, #results b").count() == 0


def test_keys_lead_through_the_page(tab: Any, server: Served) -> None:
    search(tab, server, "cat")

    def focused() -> str:
        found: str = tab.evaluate("document.activeElement.id || document.activeElement.tagName")
        return found

    assert focused() == "query"
    tab.keyboard.press("ArrowDown")
    assert focused() == "LI"
    tab.keyboard.press("Enter")
    assert tab.locator("li[aria-expanded=true]").count() == 1
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowUp")
    assert focused() == "query"
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("/")
    assert focused() == "query"
    tab.keyboard.type("dog")  # replaces the query, which is selected
    assert tab.locator("#query").input_value() == "dog"


def test_a_link_brings_its_query_and_the_full_text_opens(tab: Any, server: Served) -> None:
    tab.goto(f"{server.url}/?q=mat")
    tab.wait_for_selector("#results li")
    entry = tab.locator("#results li").filter(has=tab.locator(".title", has_text="long"))
    assert len(entry.locator(".text").inner_text()) < 400
    entry.click()
    assert entry.locator(".text").inner_text() == LONG
    tab.locator("#hybrid").check()
    assert server.url in tab.url


def test_an_error_is_shown(tab: Any, server: Served) -> None:
    tab.goto(server.url)
    tab.fill("#query", "a" * 2001)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#status.bad")
    assert "2,001 characters" in tab.locator("#status").inner_text()
    tab.errors.clear()  # the browser logs the status


def test_a_server_with_a_token_asks_for_it(browser: Any) -> None:
    with served(searchable=InMemorySearch(DOCUMENTS), token="a-secret-of-tests") as server:
        tab = browser.new_page()
        tab.set_default_timeout(20_000)
        tab.goto(f"{server.url}/?q=cat")
        tab.fill("#secret", "a-secret-of-tests")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#results li")
        assert tab.locator("#token").is_hidden()
        tab.close()


def test_it_fits_a_narrow_screen(browser: Any, server: Served) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 640})
    tab.goto(f"{server.url}/?q=cat")
    tab.wait_for_selector("#results li")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.close()


def test_nothing_else_loads(server: Served) -> None:
    answer = server.client.get("/")
    assert answer.text == page()
    policy = answer.headers["content-security-policy"]
    assert policy == page_headers()["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"https?://", page()) == []
    assert re.findall(r"\son\w+=|style=|innerHTML|insertAdjacent|document\.write", page()) == []
