from __future__ import annotations

import gzip
import json
import logging
import pickle
from pathlib import Path

import pytest

from quarry.data.train_examples import BeirExamples, TableExamples
from quarry.data.train_files import read_train_files
from quarry.errors import MissingPathError, UserError
from quarry.types import Document, Query, TrainExample

SHARED = Path(__file__).resolve().parents[3].parent / "shared"


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(tmp_path: Path, records: list[dict], corpus: list[dict] | None = None) -> TableExamples:
    path = write(tmp_path / "train.jsonl", records)
    corpus_path = None if corpus is None else write(tmp_path / "corpus.jsonl", corpus)
    return read_train_files(path=path, corpus_path=corpus_path, cache_dir=tmp_path / "cache")


def passage(name: str, title: str = "") -> dict:
    return {"docid": name, "title": title, "text": f"text of {name}"}


def document(name: str, title: str = "") -> Document:
    return Document(document_id=name, title=title, text=f"text of {name}")


INLINE = [
    {
        "query_id": 7,
        "query": "one?",
        "positive_passages": [passage("p1", "T"), passage("p2")],
        "negative_passages": [passage("n1"), passage("n2"), passage("n3")],
    },
    {
        "query_id": "8",
        "query": "two?",
        "positive_passages": [passage("p3")],
        "negative_passages": [],
    },
]
EXPECTED = [
    TrainExample(
        query=Query(query_id="7", text="one?"),
        positives=(document("p1", "T"), document("p2")),
        hard_negatives=(document("n1"), document("n2"), document("n3")),
    ),
    TrainExample(query=Query(query_id="8", text="two?"), positives=(document("p3"),)),
]

IDS = [
    {
        "query_id": 7,
        "query_text": "one?",
        "positive_document_ids": ["p1", "p2"],
        "negative_document_ids": ["n1", "n2", "n3"],
        "query_image": None,
    },
    {
        "query_id": "8",
        "query": "two?",
        "positive_document_ids": ["p3"],
        "negative_document_ids": None,
    },
]
CORPUS = [passage("n3"), passage("p1", "T"), *map(passage, ("p2", "n1", "n2", "unused", "p3"))]


def test_reads_texts_inline(tmp_path: Path) -> None:
    examples = read(tmp_path, INLINE)
    assert list(examples) == EXPECTED
    assert examples[-1] == EXPECTED[-1]
    assert examples[0:2] == EXPECTED
    with pytest.raises(IndexError):
        examples[2]


def test_ids_with_a_corpus_read_the_same_as_texts_inline(tmp_path: Path) -> None:
    assert list(read(tmp_path, IDS, CORPUS)) == EXPECTED


def test_a_corpus_may_have_the_keys_of_beir(tmp_path: Path) -> None:
    corpus = [{"_id": p["docid"], "title": p["title"], "text": p["text"]} for p in CORPUS]
    assert list(read(tmp_path, IDS, corpus)) == EXPECTED


def test_reads_pairs_and_triples(tmp_path: Path) -> None:
    examples = read(
        tmp_path,
        [
            {"query": "one?", "positive": "a"},
            {"query": "two?", "positive": ["b", "c"], "negative": "a"},
            {"query": "one?", "positive": ["c"], "negatives": ["d", "a"]},
        ],
    )
    texts = [
        (
            example.query.text,
            [positive.text for positive in example.positives],
            [negative.text for negative in example.hard_negatives],
        )
        for example in examples
    ]
    assert texts == [
        ("one?", ["a"], []),
        ("two?", ["b", "c"], ["a"]),
        ("one?", ["c"], ["d", "a"]),
    ]
    first, second, third = examples
    # The same text has the same id wherever it stands, and only then.
    assert first.positives == second.hard_negatives == third.hard_negatives[1:]
    assert second.positives[1] == third.positives[0]
    assert first.query == third.query
    assert first.query.query_id != second.query.query_id
    all_documents = {*first.positives, *second.positives, *third.hard_negatives}
    assert len({document.document_id for document in all_documents}) == 4


def test_counts_and_locations_need_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(["", json.dumps(INLINE[1]), "", json.dumps(INLINE[0])]))
    examples = read_train_files(path=path, cache_dir=tmp_path / "cache")
    assert examples.hard_negative_counts().tolist() == [0, 3]
    assert [examples.location(i) for i in range(2)] == [f"{path}:2", f"{path}:4"]


def test_passages_are_kept_once_and_no_negative_is_a_positive(tmp_path: Path) -> None:
    p, n = passage("p"), passage("n")
    inline = {"query_id": "1", "query": "?", "positive_passages": [p, p]}
    ids = {"query_id": "1", "query": "?", "positive_document_ids": ["p", "p"]}
    for examples in (
        read(tmp_path, [inline | {"negative_passages": [n, p, n]}]),
        read(tmp_path, [ids | {"negative_document_ids": ["n", "p", "n"]}], [n, p]),
    ):
        assert examples[0].positives == (document("p"),)
        assert examples[0].hard_negatives == (document("n"),)
        assert examples.hard_negative_counts().tolist() == [1]


def test_survives_pickling_without_reading_again(tmp_path: Path) -> None:
    examples = pickle.loads(pickle.dumps(read(tmp_path, IDS, CORPUS)))
    assert list(examples) == EXPECTED
    assert examples.location(1).endswith("train.jsonl:2")


def test_reads_gzip(tmp_path: Path) -> None:
    content = "".join(json.dumps(record) + "\n" for record in INLINE).encode()
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(content))
    examples = read_train_files(path=str(tmp_path / "train.jsonl"), cache_dir=str(tmp_path / "c"))
    assert list(examples) == EXPECTED
    assert examples.location(0).endswith("train.jsonl.gz:1")


def test_missing_and_empty_passages_are_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = {
        "query_id": "1",
        "query": "?",
        "positive_document_ids": ["gone", "p"],
        "negative_document_ids": ["gone too", "blank", "n", "gone"],
    }
    corpus = [passage("p"), passage("n"), {"docid": "blank", "title": " ", "text": ""}]
    for _ in range(2):  # from the cache as well
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            examples = read(tmp_path, [record], corpus)
        assert examples[0].positives == (document("p"),)
        assert examples[0].hard_negatives == (document("n"),)
        (warning,) = caplog.records
        sentences = (
            "1 passages are empty and left out",
            "3 passages are not in the corpus and left out",
        )
        assert examples.caveats == sentences
        assert warning.getMessage().endswith("; ".join(sentences))


def test_a_corpus_that_is_not_needed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        examples = read_train_files(
            path=write(tmp_path / "train.jsonl", INLINE),
            corpus_path=tmp_path / "absent.jsonl",
            cache_dir=tmp_path,
        )
    assert list(examples) == EXPECTED
    assert "absent.jsonl is not read" in caplog.text


PAIR = {"query": "?", "positive": "a"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"query": "?", "reply": "a"}], r":1: no training example: .*\(query, reply\)"),
        ([], r"train\.jsonl: holds no records"),
        (IDS, r"'positive_document_ids'\) but corpus_path is not set"),
        ([*INLINE, PAIR], r":3: lacks 'positive_passages', which records before have"),
        ([PAIR] * 99 + [PAIR | {"query": 3}], r":100: 'query' is int"),
        ([{"query": "?", "positive": None}, {"query": "?"}], r"no line has a positive \(2 of 2"),
        ([PAIR, {"query": " ", "positive": "a"}], r":2: the query is empty"),
        ([PAIR, {"positive": "a"}], r":2: has no 'query' or"),
        ([PAIR, {"query": 3, "positive": "a"}], r":2: 'query' is int"),
        ([PAIR, {"query": "?", "positive": {"a": 1}}], r":2 \(positive\): 'text' is missing"),
        ([PAIR, PAIR | {"negatives": [1]}], r":2 \(negatives\): 1 is no passage"),
        ([INLINE[0] | {"positive_passages": [{"docid": 1.5, "text": "x"}]}], r"'docid' is 1.5"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, records: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, records)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive_document_ids": ["gone"]}, r": no line has a positive .*1 passages are not in"),
        ({"positive_document_ids": {"p": 1}}, r":1 \(positive_document_ids\): .* is {'p': 1}"),
        ({"negative_document_ids": [True]}, r":1 \(negative_document_ids\): .* is True"),
        ({"positive_document_ids": ["blank"]}, r": no line has a positive .*1 passages are empty"),
    ],
)
def test_bad_ids_are_named(tmp_path: Path, change: dict, message: str) -> None:
    corpus = [*CORPUS, {"docid": "blank", "text": ""}]
    with pytest.raises(UserError, match=rf"train\.jsonl{message}"):
        read(tmp_path, [IDS[0] | change], corpus)


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", IDS)
    with pytest.raises(MissingPathError, match=r"absent\.jsonl: no such file"):
        read_train_files(path=path, corpus_path=tmp_path / "absent.jsonl", cache_dir=tmp_path)


def write_beir(path: Path, qrels: str) -> Path:
    (path / "qrels").mkdir(parents=True)
    write(path / "corpus.jsonl", [*CORPUS, {"docid": "blank", "text": ""}])
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in (3, 2, 1)]
    write(path / "queries.jsonl", queries)
    (path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return path


def test_beir_judgements_become_positives_and_hard_negatives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    qrels = (
        "q1\tp1\t2\nq1\tn1\t0\nq1\tn2\t-1\nq1\tp2\t1\n"  # two positives, two hard negatives
        "q2\tgone\t1\nq2\tblank\t1\nq2\tn3\t0\n"  # nothing to find: left out
        "q3\tp3\t1\nq3\tgone\t1\n"
    )
    path = write_beir(tmp_path / "set", qrels)
    for _ in range(2):  # from the cache as well
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            examples = BeirExamples(path=path, split="train", cache_dir=tmp_path / "cache")
        assert list(examples) == [
            TrainExample(query=Query(query_id="q3", text="query 3"), positives=(document("p3"),)),
            TrainExample(
                query=Query(query_id="q1", text="query 1"),
                positives=(document("p1", "T"), document("p2")),
                hard_negatives=(document("n1"), document("n2")),
            ),
        ]
        assert examples.hard_negative_counts().tolist() == [0, 2]
        assert [examples.location(i) for i in range(2)] == [
            f"{path}/queries.jsonl:1",
            f"{path}/queries.jsonl:3",
        ]
        (warning,) = caplog.records
        assert examples.caveats == (
            "1 of 3 lines have no positive and are skipped (33.3 %)",
            "1 passages are empty and left out",
            "2 passages are not in the corpus and left out",
        )
        assert warning.getMessage().endswith("; ".join(examples.caveats))
    caplog.clear()
    assert list(pickle.loads(pickle.dumps(examples))) == list(examples)
    assert not caplog.records


def test_beir_mistakes_are_named(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "set", "q1\tgone\t1\n")
    with pytest.raises(
        UserError, match=r"queries\.jsonl: no line has a positive.* corpus or qrels"
    ):
        BeirExamples(path=path, split="train", cache_dir=tmp_path / "cache")
    with pytest.raises(MissingPathError, match="no split 'test'"):
        BeirExamples(path=path, split="test", cache_dir=tmp_path / "cache")
    path = write_beir(tmp_path / "other", "q1\tp1\t1\nunknown\tp1\t1\n")
    with pytest.raises(UserError, match=r"1 of 2 judged queries .* 'unknown'"):
        BeirExamples(path=path, split="train", cache_dir=tmp_path / "cache")


def test_real_tevatron_rows(tmp_path: Path) -> None:
    path = SHARED / "data" / "msmarco-dl21" / "test.train.jsonl"
    if not path.is_file():
        pytest.skip("needs the training rows of msmarco-dl21 beside the repository")
    examples = read_train_files(path=path, cache_dir=tmp_path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(examples) == len(records) == 51
    for example, record in zip(examples, records, strict=True):
        assert example.query == Query(query_id=record["query_id"], text=record["query"])
        positives, negatives = record["positive_passages"], record["negative_passages"]
        answers = [passage["text"].strip() for passage in positives]
        true = [passage for passage in negatives if passage["text"].strip() not in answers]
        for documents, passages in ((example.positives, positives), (example.hard_negatives, true)):
            assert [(d.document_id, d.title, d.text) for d in documents] == [
                (p["docid"], p["title"], p["text"]) for p in passages
            ]
    # copies of a positive under other ids: MS MARCO's second passage collection has some
    assert "passages stand twice" in examples.caveats[0]


def test_real_beir_training_split(tmp_path: Path) -> None:
    path = SHARED / "data" / "scifact"
    if not path.is_dir():
        pytest.skip("needs the collection scifact beside the repository")
    examples = BeirExamples(path=path, split="train", cache_dir=tmp_path)
    # 809 training queries and 919 judgements, all of them positive: BEIR's SciFact.
    assert len(examples) == 809
    assert not examples.hard_negative_counts().any()
    assert sum(len(example.positives) for example in examples) == 919
