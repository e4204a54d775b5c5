"""`quarry-search`: the command line, which leaves the text as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarry.cli import search
from quarry.errors import UserError
from quarry.search.searcher import Hit
from quarry.types import Document

TEXT = "any text (a, b), \"c\"? {x: 1} [y] = ${z} \\ 'd'"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is searched; each query finds one document."""
    seen: list[Any] = []

    def found(request: Any) -> list[list[Hit]]:
        seen.append(request)
        hit = Hit(document=Document(document_id="d", text="t"), score=0.5)
        return [[hit] for _ in request.queries]

    monkeypatch.setattr("quarry.tasks.search.found", found)
    return seen


def test_the_text_is_searched_as_it_is(
    requests: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    search.run(["index", TEXT])
    (request,) = requests
    assert [query.text for query in request.queries] == [TEXT]
    assert (request.folders, request.top_k, request.hybrid) == (["index"], 10, False)
    assert json.loads(capsys.readouterr().out)["query"] == TEXT


def test_a_text_that_begins_with_a_dash(requests: list[Any]) -> None:
    search.run(["index", "--", "-k 5"])
    assert requests[0].queries[0].text == "-k 5"


def test_options(requests: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    search.run(
        ["a", "x", "-k", "3", "--hybrid", "--with", "b", "--with", "c", "--model", "my model",
         "--set", "prompt=short", "--check", "--table"]
    )  # fmt: skip
    (request,) = requests
    assert request.folders == ["a", "b", "c"]
    assert (request.top_k, request.hybrid, request.check) == (3, True, True)
    assert request.overrides == ['model.path="my model"', "prompt=short"]
    assert "0.5000" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["index"], ["index", "text", "-q", "file"]])
def test_one_text_or_one_file(requests: list[Any], arguments: list[str]) -> None:
    with pytest.raises(UserError, match="one of the two is needed"):
        search.run(arguments)


def test_help_imports_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        search.run(["--help"])
    assert "--hybrid" in capsys.readouterr().out
