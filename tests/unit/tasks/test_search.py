"""What a search request may be, before any model loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.indexes import made_index
from quarry.errors import UserError
from quarry.tasks.search import SearchRequest, folders_of, found, queries_of, search
from quarry.types import Query


def test_one_folder_or_several() -> None:
    assert folders_of("a b") == ["a b"]
    assert folders_of(["a", "b"]) == ["a", "b"]
    for nothing in (None, []):
        with pytest.raises(UserError, match=r"task\.index=null"):
            folders_of(nothing)


def test_a_query_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("one\ntwo\n")
    assert [query.text for query in queries_of("a=b", None)] == ["a=b"]
    assert [query.text for query in queries_of(None, str(tmp_path / "queries"))] == ["one", "two"]
    for query, file in ((None, None), ("a", "b")):
        with pytest.raises(UserError, match="one of the two is needed"):
            queries_of(query, file)


def test_the_task_returns_the_number_of_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queries.tsv").write_text("7\tone\n9\ttwo\n")
    monkeypatch.setattr("quarry.tasks.search.run_search", lambda _: None)
    result = search(
        OmegaConf.create({}), index="index", query=None, queries=str(tmp_path / "queries.tsv"),
        top_k=1, hybrid=False, json=None, check=False,
    )  # fmt: skip
    assert result == {"search/num_queries": 2}


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", {}, "query 1 of 1: is empty"),
        ("x", {"top_k": 0}, "top_k=0"),
        ("x", {"hybrid": True}, "has no BM25"),
        ("x", {}, "model"),
    ],
)
def test_wrong_requests_are_refused(tmp_path: Path, text: str, more: dict, message: str) -> None:
    made_index(tmp_path / "index", bm25=None)  # by no model that could be loaded
    request = SearchRequest(
        folders=[str(tmp_path / "index")], queries=[Query(query_id="1", text=text)], **more
    )
    with pytest.raises(UserError, match=message):
        found(request)
