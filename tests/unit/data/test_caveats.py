"""What is said of the data of a set, in words and numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from helpers.hub_repos import write_lines
from quarry.data.beir import read_corpus
from quarry.data.caveats import checked_caveats, dropped_queries, missing_share
from quarry.data.corpus import Corpus
from quarry.errors import UserError


def corpus_of(tmp_path: Path, *ids: str) -> Corpus:
    write_lines(tmp_path / "corpus.jsonl", [{"_id": each, "text": "x"} for each in ids])
    return read_corpus(path=tmp_path / "corpus.jsonl", cache_dir=tmp_path / "cache")


def test_ids_in_another_composition_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = corpus_of(tmp_path, "plain", "e\u0301", "\u00fc", "\ufb01ne")
    qrels = {"q": {"plain": 1, "\u00e9": 1, "u\u0308": 0, "fine": 1, "gone": 1}}
    (sentence,) = checked_caveats(name="s", qrels=qrels, where="f", corpus=corpus)
    assert sentence.startswith(
        "4 of 5 judged documents are not in the corpus; 2 would be after Unicode normalization"
    )
    assert caplog.messages == [f"s: {sentence}; kept as they are"]
    assert missing_share([sentence]) == 4 / 5
    with pytest.raises(UserError, match=r"none of its 1 .*; 1 would be after Unicode"):
        checked_caveats(name="s", qrels={"q": {"\u00e9": 1}}, where="f", corpus=corpus)


def test_queries_without_a_positive_are_counted(tmp_path: Path) -> None:
    qrels = {"a": {"d": 1}, "b": {"d": 0}, "c": {"d": -1}}
    assert checked_caveats(name="s", qrels=qrels, where="f", corpus=corpus_of(tmp_path, "d")) == (
        "2 of 3 judged queries have no judgement above 0 and count 0 (66.7 %)",
    )


def test_nothing_is_said_of_a_set_without_a_flaw(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = corpus_of(tmp_path, "d")
    assert checked_caveats(name="s", qrels={"a": {"d": 1}}, where="f", corpus=corpus) == ()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert missing_share([]) == 0


def test_dropped_queries_are_counted_and_the_first_are_named() -> None:
    judged = {name: {"d": 1} for name in "abcdef"}
    (sentence,) = dropped_queries(name="s", judged=judged, kept={"a": {}, "f": {}})
    assert sentence.startswith("4 of 6 judged queries were dropped")
    assert sentence.endswith("(66.7 %): 'b', 'c', 'd', ...")
    assert dropped_queries(name="s", judged=judged, kept=judged) == ()
