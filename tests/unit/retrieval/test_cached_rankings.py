"""A kept ranking comes back as it was made, for the same texts and facts and for no others."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from quarry.retrieval.cached_rankings import CachedRankings, texts_digest
from quarry.types import Document, Query, RetrievalSet, Run

DATASET = RetrievalSet(
    name="tiny",
    queries=[Query(query_id="q", text="red")],
    corpus=[
        Document(document_id="d", text="red fish", title="fish"),
        Document(document_id="e", text=""),
    ],
    qrels={"q": {"d": 1}},
)
RUN: Run = {"q 1": {"d": 0.1 + 0.2, "a b": 1 / 3}, "q2": {}}


def never() -> Run:
    raise AssertionError("it was kept")


def test_scores_order_empty_rankings_and_odd_ids_come_back(tmp_path: Path) -> None:
    kept = CachedRankings(tmp_path / "new")
    assert kept.get(lambda: RUN, dataset=DATASET, method="m", k=1) == RUN
    back = kept.get(never, dataset=DATASET, method="m", k=1)
    assert back == RUN
    assert list(back["q 1"]) == ["d", "a b"]
    assert sorted(p.suffix for p in (tmp_path / "new").iterdir()) == [".about", ".json", ".lock"]


def test_the_name_and_the_judgements_have_no_part_in_it(tmp_path: Path) -> None:
    kept = CachedRankings(tmp_path)
    kept.get(lambda: RUN, dataset=DATASET, method="m")
    assert kept.get(never, dataset=replace(DATASET, name="x", qrels={}), method="m") == RUN


@pytest.mark.parametrize(
    "other",
    [
        replace(DATASET, content="code"),
        replace(DATASET, queries=[Query(query_id="q", text="Red")]),
        replace(DATASET, queries=[Query(query_id="p", text="red")]),
        replace(DATASET, queries=[*DATASET.queries, *DATASET.queries]),
        replace(DATASET, corpus=DATASET.corpus[::-1]),
        replace(DATASET, corpus=DATASET.corpus[:1]),
        # the same characters in other places
        replace(DATASET, corpus=[replace(DATASET.corpus[0], title="fis", text="hred fish")]),
        replace(DATASET, corpus=[replace(DATASET.corpus[0], document_id="df", title="ish")]),
    ],
    ids=range(8),
)
def test_other_texts_have_another_digest(other: RetrievalSet) -> None:
    assert texts_digest(other) != texts_digest(DATASET)
    assert texts_digest(replace(DATASET)) == texts_digest(DATASET)


def test_other_facts_and_methods_are_kept_apart(tmp_path: Path) -> None:
    kept = CachedRankings(tmp_path)
    runs: list[Run] = [{"q": {"d": float(i)}} for i in range(3)]
    asked = [("m", {"k": 1}), ("m", {"k": 2}), ("n", {"k": 1})]
    for run, (method, facts) in zip(runs, asked, strict=True):
        assert kept.get(lambda run=run: run, dataset=DATASET, method=method, **facts) == run
    assert [kept.get(never, dataset=DATASET, method=m, **f) for m, f in asked] == runs


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"q": 1}', "\xff"])
def test_a_damaged_file_is_made_anew(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = CachedRankings(tmp_path)
    kept.get(lambda: RUN, dataset=DATASET, method="m")
    (file,) = tmp_path.glob("*.json")
    file.write_text(content, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        assert kept.get(lambda: RUN, dataset=DATASET, method="m") == RUN
    assert "is damaged" in caplog.text
    assert kept.get(never, dataset=DATASET, method="m") == RUN


@pytest.mark.timeout(60)
def test_of_several_at_once_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    num_made = 0

    def make() -> Run:
        nonlocal num_made
        num_made += 1
        time.sleep(0.2)
        return RUN

    def get(_: int) -> Run:
        return CachedRankings(tmp_path).get(make, dataset=DATASET, method="m")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(get, range(4))) == [RUN] * 4
    assert num_made == 1


def test_a_failed_attempt_keeps_nothing(tmp_path: Path) -> None:
    kept = CachedRankings(tmp_path / "new")
    with pytest.raises(AssertionError, match="it was kept"):
        kept.get(never, dataset=DATASET, method="m")
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_what_is_kept_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = CachedRankings(tmp_path)
    kept.get(lambda: RUN, dataset=DATASET, method="m")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("quarry.retrieval.cached_rankings.locked", refused)
    assert kept.get(never, dataset=DATASET, method="m") == RUN


def test_text_that_is_no_valid_unicode_has_a_digest() -> None:
    odd = replace(DATASET, queries=[Query(query_id="q", text="\ud800")])
    assert texts_digest(odd) != texts_digest(DATASET)
