"""Every example of docs/data.md is written to a file as it stands on the page, and read."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from helpers.hub_repos import write_parquet
from quarry.data import judgements, record_files, records
from quarry.data.beir import read_beir
from quarry.data.train_files import read_train_files
from quarry.data.train_forms import FORMS, PASSAGE_IDS, QUERY_IDS, TrainColumns
from quarry.types import RetrievalSet

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```[a-z]+ (\S.*?)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
TRAINING = [(name, content) for name, content in FENCES if name.startswith("train")]
EXAMPLES = [fence for fence in FENCES if fence not in TRAINING]

DOCUMENTS = [("d1", "One\nfirst text"), ("007", "second text"), ("d3", "third text")]
QUERIES = [("q1", "which one is first?"), ("02", "which one is third?")]
QRELS = {"q1": {"d1": 2, "007": 0}, "02": {"d3": 1}}


PAIRS = [
    ("what is one?", ["one is first"]),
    ("what is two?", ["two is second"]),
    ("what is three?", ["three is third"]),
]
DPR_CAVEAT = ("keys that are not read: answers (3 of 3 lines: is for readers, not for retrievers)",)
HARD_NEGATIVES = [["zero", "two"], ["one"], []]


def read_with(tmp_path: Path, *examples: tuple[str, str]) -> RetrievalSet:
    """The set of these files, and of the page's first example for what they lack."""
    chosen: dict[str, tuple[str, str]] = {}
    for name, content in (*examples, *EXAMPLES):
        chosen.setdefault(re.split(r"[./]", name)[0], (name, content))
    assert set(chosen) == {"corpus", "queries", "qrels"}
    for name, content in chosen.values():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(content, encoding="utf-8")
    return read_beir(path=tmp_path / "set", split="test", cache_dir=tmp_path / "cache")


def check(found: RetrievalSet) -> None:
    documents = [(d.document_id, f"{d.title}\n{d.text}".strip()) for d in found.corpus]
    assert documents == DOCUMENTS
    assert [(query.query_id, query.text) for query in found.queries] == QUERIES
    assert found.qrels == QRELS
    assert found.caveats == ()


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[name for name, _ in EXAMPLES])
def test_every_example_is_the_same_set(tmp_path: Path, number: int) -> None:
    check(read_with(tmp_path, EXAMPLES[number]))


def test_parquet_has_the_same_columns(tmp_path: Path) -> None:
    read_with(tmp_path)
    folder = tmp_path / "set"
    for name in ("corpus", "queries", "qrels/test"):
        (old,) = folder.glob(f"{name}.*")
        form = record_files.form_of(old)
        columns = (*records.DOCUMENT_COLUMNS, *records.QUERY_COLUMNS)
        if name == "qrels/test":
            rows = [
                {"query_id": q, "doc_id": d, "relevance": g} for _, q, d, g in
                judgements.read_judgements([old])
            ]  # fmt: skip
        else:
            rows = [row for _, _, row in record_files.read_records([old], columns)]
        assert form in (".jsonl", ".tsv")
        old.unlink()
        write_parquet(folder / f"{name}.parquet", rows)
    check(read_beir(path=folder, split="test", cache_dir=tmp_path / "cache"))


def test_the_page_has_an_example_of_each_form_that_can_be_shown_and_every_name() -> None:
    shown = {record_files.form_of(Path(name)) for name, _ in EXAMPLES}
    assert shown == {".jsonl", ".json", ".tsv", ".txt", ".csv"}
    assert len(EXAMPLES) == 13
    forms = (*record_files.RECORD_FORMS, *judgements.JUDGEMENT_FORMS)
    keys = (*records.DOCUMENT_COLUMNS, *records.QUERY_COLUMNS, *judgements.QUERY_KEYS,
            *judgements.DOCUMENT_KEYS, *judgements.GRADE_KEYS)  # fmt: skip
    assert [word for word in (*forms, *keys) if f"`{word}`" not in PAGE] == []
    assert f"-{judgements.MAX_GRADE:,} to {judgements.MAX_GRADE:,}" in PAGE


@pytest.mark.parametrize("number", range(len(TRAINING)))
def test_every_training_example_is_the_same_set(tmp_path: Path, number: int) -> None:
    name, content = TRAINING[number]
    file, _, is_mapped = name.partition(" ")
    (tmp_path / file).write_text(content, encoding="utf-8")
    columns = TrainColumns(query="ask", positive="reply", negative=["bad", "worse"])
    examples = read_train_files(
        path=tmp_path / file, columns=columns if is_mapped else None, cache_dir=tmp_path / "cache"
    )
    assert [(e.query.text, [p.text for p in e.positives]) for e in examples] == PAIRS
    negatives = [[passage.text for passage in e.hard_negatives] for e in examples]
    assert negatives == (HARD_NEGATIVES if "zero" in content else [[]] * 3)
    assert examples.caveats == (DPR_CAVEAT if "positive_ctxs" in content else ())
    if "pos_scores" in content:
        scores = [(e.positive_scores, e.hard_negative_scores) for e in examples]
        assert scores == [((0.9,), (0.1, 0.2)), ((0.8,), (0.3,)), (None, None)]


def test_the_page_shows_each_form_and_names_each_key() -> None:
    records = [content for _, content in TRAINING]
    for form in FORMS:
        if not form.has_ids:
            assert any(form.positive[0] in each or form.positive[-1] in each for each in records)
    for key in (*QUERY_IDS, *PASSAGE_IDS, *record_files.RECORD_FORMS):
        assert f"`{key}`" in PAGE, key
    assert {column.name for column in fields(TrainColumns)} <= set(re.findall(r"`(\w+)`", PAGE))
