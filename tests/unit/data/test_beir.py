from __future__ import annotations

import gzip
import json
import logging
import pickle
from pathlib import Path

import pytest

from quarry.data.beir import read_beir, read_corpus
from quarry.data.beir_folder import list_splits
from quarry.errors import MissingPathError, UserError
from quarry.types import Document, Query

SHARED = Path(__file__).resolve().parents[3].parent / "shared"

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": 2, "text": "second"},
    {"_id": "d3", "title": None, "text": "third", "metadata": {"url": "x"}},
]
QUERIES = [
    {"_id": "q2", "text": "two?"},
    {"_id": "unjudged", "text": ""},
    {"_id": 1, "text": "one?"},
]
QRELS = "query-id\tcorpus-id\tscore\n1\td1\t2\n1\t2\t0\nq2\t2\t1\n"


def lines_of(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write_set(
    path: Path,
    *,
    corpus: list[dict] = CORPUS,
    queries: list[dict] = QUERIES,
    qrels: str = QRELS,
    split: str = "test",
) -> Path:
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    (path / "corpus.jsonl").write_text(lines_of(corpus))
    (path / "queries.jsonl").write_text(lines_of(queries))
    (path / "qrels" / f"{split}.tsv").write_text(qrels)
    return path


def read(path: Path, split: str = "test"):
    return read_beir(path=path, split=split, cache_dir=path.parent / "cache")


def test_reads_a_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    retrieval_set = read(write_set(tmp_path / "tiny"))
    assert retrieval_set.name == "tiny"
    assert retrieval_set.queries == [
        Query(query_id="q2", text="two?"),
        Query(query_id="1", text="one?"),
    ]
    assert list(retrieval_set.corpus) == [
        Document(document_id="d1", title="One", text="first"),
        Document(document_id="2", text="second"),
        Document(document_id="d3", text="third"),
    ]
    assert retrieval_set.qrels == {"1": {"d1": 2, "2": 0}, "q2": {"2": 1}}
    assert not caplog.records


def test_gzipped_files_read_the_same(tmp_path: Path) -> None:
    plain = write_set(tmp_path / "tiny")
    zipped = write_set(tmp_path / "zipped")
    for file in [*zipped.glob("*.jsonl"), *zipped.glob("qrels/*.tsv")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert list_splits(zipped) == ["test"]
    a, b = read(plain), read(zipped)
    assert (a.queries, list(a.corpus), a.qrels) == (b.queries, list(b.corpus), b.qrels)


def test_the_corpus_is_a_sequence_that_pickles(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(lines_of([{"_id": f"d{i}", "text": f"text {i}"} for i in range(3000)]))
    corpus = read_corpus(path=path, cache_dir=tmp_path / "cache")
    expected = [Document(document_id=f"d{i}", text=f"text {i}") for i in range(3000)]
    assert len(corpus) == 3000
    assert list(corpus) == expected
    assert corpus[2049] == expected[2049]
    assert corpus[-1] == expected[-1]
    for part in (slice(1000, 1100), slice(None, None, 700), slice(-3, None), slice(9, 2, -3)):
        assert corpus[part] == expected[part]
    assert expected[17] in corpus
    assert corpus.rows_of(["d2999", "d3000"]).tolist() == [2999, -1]
    assert pickle.loads(pickle.dumps(corpus))[1234] == expected[1234]
    with pytest.raises(IndexError):
        corpus[3000]


def test_a_changed_corpus_is_read_anew(tmp_path: Path) -> None:
    path = write_set(tmp_path / "tiny")
    assert len(read(path).corpus) == 3
    write_set(path, corpus=[*CORPUS, {"_id": "d4", "text": "fourth"}])
    assert len(read(path).corpus) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": [*CORPUS, {"text": "x"}]}, r"corpus\.jsonl:4: lacks '_id'"),
        ({"corpus": [*CORPUS, {"_id": "x"}]}, r"corpus\.jsonl:4: 'text' is missing"),
        ({"corpus": [*CORPUS, {"_id": "x", "text": None}]}, r"corpus\.jsonl:4: 'text' is NoneType"),
        ({"corpus": [*CORPUS, {"_id": 1.5, "text": "x"}]}, r"corpus\.jsonl:4: '_id' is 1\.5"),
        ({"corpus": [*CORPUS, {"_id": "", "text": "x"}]}, r"corpus\.jsonl:4: '_id' is ''"),
        (
            {"corpus": [*CORPUS, {"_id": "2", "text": "x"}]},
            r"corpus\.jsonl:4: the id '2' stands on line 2 already",
        ),
        (
            {"queries": [*QUERIES, {"_id": "1", "text": "x"}]},
            r"queries\.jsonl:4: the id '1' stands on line 3 already",
        ),
        (
            {"queries": [{"_id": "q2", "text": " "}, {"_id": "1", "text": "x"}]},
            r"queries\.jsonl:1: query 'q2' is empty",
        ),
        ({"queries": QUERIES[:2]}, r"queries\.jsonl: 1 of 2 judged queries .* first is '1'"),
        ({"qrels": "1\tx\t1\n"}, r"test\.tsv: none of its 1 judged documents .* 'x'"),
        ({"qrels": "1\td1\t0\n"}, r"test\.tsv: no judgement is positive"),
    ],
)
def test_bad_sets_are_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write_set(tmp_path / "tiny", **change))


def test_a_set_without_judged_documents_in_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong together"):
        read(write_set(tmp_path / "tiny", corpus=[{"_id": "other", "text": "x"}]))


def test_empty_and_missing_documents_are_kept_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_set(
        tmp_path / "tiny",
        corpus=[*CORPUS, {"_id": "blank", "title": "", "text": " "}, {"_id": "t", "text": ""}],
        qrels=QRELS + "1\tgone\t1\nq2\tgone\t0\nq2\tgone too\t1\n",
    )
    for _ in range(2):  # from the cache as well
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            retrieval_set = read(path)
        assert len(retrieval_set.corpus) == 5
        assert retrieval_set.qrels["1"]["gone"] == 1
        (record,) = caplog.records
        assert record.getMessage() == (
            "tiny: 2 of 4 judged documents are not in the corpus (50.0 % are missing); "
            "2 of 5 documents are empty (40.0 %); kept as they are"
        )
        assert retrieval_set.caveats == (
            "2 of 4 judged documents are not in the corpus (50.0 % are missing)",
            "2 of 5 documents are empty (40.0 %)",
        )


def test_missing_files_are_named(tmp_path: Path) -> None:
    path = write_set(tmp_path / "tiny")
    write_set(path, split="dev")
    assert list_splits(path) == ["dev", "test"]
    with pytest.raises(MissingPathError, match=r"no split 'train' .*choose one of: dev, test"):
        read(path, "train")
    with pytest.raises(MissingPathError, match="absent: no such folder"):
        read(tmp_path / "absent")
    (path / "corpus.jsonl").unlink()
    with pytest.raises(MissingPathError, match=r"corpus\.jsonl: no such file"):
        read(path)
    with pytest.raises(MissingPathError, match=r"it has no qrels/\*\.tsv"):
        read(tmp_path / "tiny" / "qrels")


@pytest.mark.parametrize("name", ["cranfield", "msmarco-dl21", "scifact"])
def test_real_sets_have_the_size_that_their_notes_state(tmp_path: Path, name: str) -> None:
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs the collection {name} beside the repository")
    meta = json.loads((folder / "meta.json").read_text())
    retrieval_set = read_beir(path=folder, split="test", cache_dir=tmp_path)
    assert len(retrieval_set.corpus) == meta["docs"]
    assert len(retrieval_set.queries) == meta["splits"]["test"]["queries"]
    num_judgements = sum(len(grades) for grades in retrieval_set.qrels.values())
    assert num_judgements == meta["splits"]["test"]["judgements"]
    assert {query.query_id for query in retrieval_set.queries} == set(retrieval_set.qrels)
    assert int(retrieval_set.corpus.is_empty().sum()) == meta["empty_docs"]
