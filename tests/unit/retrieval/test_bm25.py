"""BM25 by hand on tiny corpora, at its borders, and against known values of real collections."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytrec_eval

from quarry.errors import UserError
from quarry.retrieval.bm25 import BM25Retriever, CodeTokenizer, TextTokenizer, Tokenizer
from quarry.types import Document, Query, RetrievalSet

SHARED = Path(__file__).resolve().parents[3].parent / "shared"


def tiny_set(texts: Sequence[str], queries: Sequence[str], title: str = "") -> RetrievalSet:
    return RetrievalSet(
        name="tiny",
        queries=[Query(query_id=f"q{i}", text=text) for i, text in enumerate(queries)],
        corpus=[
            Document(document_id=f"d{i}", text=text, title=title) for i, text in enumerate(texts)
        ],
        qrels={f"q{i}": {"d0": 1} for i in range(len(queries))},
    )


def bm25(tokenizer: Tokenizer, **parameters: float) -> BM25Retriever:
    """One tokenizer for whatever a collection holds."""
    return BM25Retriever(tokenizers={"text": tokenizer, "code": tokenizer}, **parameters)


def lucene_score(*, tf: int, df: int, num_documents: int, length: int, mean_length: float) -> float:
    idf = math.log(1 + (num_documents - df + 0.5) / (df + 0.5))
    return idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / mean_length))


def test_text_tokenizer() -> None:
    text = "The Runners were running to A house, x 2 times"
    assert TextTokenizer()(text) == ["runner", "were", "run", "hous", "time"]
    assert TextTokenizer(stemmer=None)(text) == ["runners", "were", "running", "house", "times"]
    assert TextTokenizer(stemmer=None, stop_words=["house"])("The house") == ["the"]


def test_unknown_stemmer_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"'klingon'.*english"):
        TextTokenizer(stemmer="klingon")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parseHTTPResponse_v2", ["parse", "http", "response", "v", "2"]),
        ("HTTPServer", ["http", "server"]),
        ("__init__(self, x1=0.5)", ["init", "self", "x", "1", "0", "5"]),
        ("MAX_SIZE", ["max", "size"]),
        ("getA", ["get", "a"]),
        ("naïve café", ["naïve", "café"]),
        ("the README's 3rd", ["the", "readme", "s", "3", "rd"]),
        ("+ - ()", []),
    ],
)
def test_code_tokenizer(text: str, expected: list[str]) -> None:
    assert CodeTokenizer()(text) == expected


def test_hand_computed_scores() -> None:
    dataset = tiny_set(["red red fish", "blue fish", "one"], ["red fish"])
    run = bm25(CodeTokenizer()).retrieve(dataset, top_k=10)
    # Lengths 3, 2, 1 (mean 2); red is in one document (twice), fish in two.
    red = lucene_score(tf=2, df=1, num_documents=3, length=3, mean_length=2)
    fish_in_d0 = lucene_score(tf=1, df=2, num_documents=3, length=3, mean_length=2)
    fish_in_d1 = lucene_score(tf=1, df=2, num_documents=3, length=2, mean_length=2)
    assert list(run["q0"]) == ["d0", "d1"]
    # bm25s sums in fp32.
    assert run["q0"] == pytest.approx({"d0": red + fish_in_d0, "d1": fish_in_d1}, rel=1e-6)


def test_a_repeated_query_term_counts_twice() -> None:
    dataset = tiny_set(["fish", "bird"], ["fish", "fish fish"])
    run = bm25(CodeTokenizer()).retrieve(dataset, top_k=1)
    assert run["q1"]["d0"] == pytest.approx(2 * run["q0"]["d0"], rel=1e-6)


def test_the_title_is_part_of_the_document() -> None:
    retriever = bm25(CodeTokenizer())
    titled = retriever.retrieve(tiny_set(["fish", "bird"], ["ocean"], title="ocean"), top_k=5)
    in_text = retriever.retrieve(tiny_set(["ocean fish", "ocean bird"], ["ocean"]), top_k=5)
    assert titled == in_text
    assert set(titled["q0"]) == {"d0", "d1"}


def test_ties_at_the_border_go_to_the_greater_id() -> None:
    dataset = tiny_set(["fish"] * 12 + ["bird"], ["fish"])
    run = bm25(CodeTokenizer()).retrieve(dataset, top_k=3)
    assert list(run["q0"]) == ["d9", "d8", "d7"]  # as text, d9 > d11


@pytest.mark.parametrize("tokenizer", [TextTokenizer(), CodeTokenizer()])
def test_empty_documents_and_unknown_queries(tokenizer: Tokenizer) -> None:
    dataset = tiny_set(["", "fish swim", "  "], ["fish", "unheard", "", "the ?!", "fish unheard"])
    run = bm25(tokenizer).retrieve(dataset, top_k=5)
    assert {query_id: list(found) for query_id, found in run.items()} == {
        "q0": ["d1"],
        "q1": [],
        "q2": [],
        "q3": [],
        "q4": ["d1"],
    }
    assert run["q4"] == run["q0"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("texts", [[], ["", "..."]])
def test_a_corpus_without_terms_finds_nothing(texts: list[str]) -> None:
    run = bm25(CodeTokenizer()).retrieve(tiny_set(texts, ["fish"]), top_k=5)
    assert run == {"q0": {}}


def test_the_content_of_the_collection_chooses_the_tokenizer() -> None:
    retriever = BM25Retriever(tokenizers={"text": TextTokenizer(), "code": CodeTokenizer()})
    prose = tiny_set(["readLine", "reads lines"], ["read line"])
    code = replace(prose, content="code")
    assert list(retriever.retrieve(prose, top_k=5)["q0"]) == ["d1"]  # stemmed, not cut
    assert list(retriever.retrieve(code, top_k=5)["q0"]) == ["d0"]  # cut, not stemmed


@pytest.mark.parametrize("parameters", [{"k1": -0.1}, {"b": 1.1}, {"b": -0.1}])
def test_impossible_parameters_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(UserError, match="k1 >= 0 and 0 <= b <= 1"):
        bm25(CodeTokenizer(), **parameters)


def real_set(name: str) -> RetrievalSet:
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the test collection {name} is not beside the repository")
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = [json.loads(line) for line in lines]
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        texts = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        for query_id, document_id, grade in list(csv.reader(lines, delimiter="\t"))[1:]:
            qrels.setdefault(query_id, {})[document_id] = int(grade)
    return RetrievalSet(
        name=name,
        queries=[Query(query_id=query_id, text=texts[query_id]) for query_id in qrels],
        corpus=[
            Document(document_id=row["_id"], text=row["text"], title=row["title"]) for row in corpus
        ],
        qrels=qrels,
    )


# Expected values were made elsewhere with the same formula and published tokenisation; the
# tolerance for code allows for other rules of cutting identifiers.
@pytest.mark.parametrize(
    ("name", "tokenizer", "expected", "tolerance"),
    [
        ("scifact", TextTokenizer(), 0.676, 0.005),
        ("cranfield", TextTokenizer(), 0.358, 0.005),
        ("cosqa", CodeTokenizer(), 0.347, 0.01),
        ("conala", CodeTokenizer(), 0.520, 0.01),
    ],
)
def test_known_values(name: str, tokenizer: Tokenizer, expected: float, tolerance: float) -> None:
    dataset = real_set(name)
    run = bm25(tokenizer).retrieve(dataset, top_k=100)
    qrels = {query_id: dict(grades) for query_id, grades in dataset.qrels.items()}
    values = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    mean = sum(value["ndcg_cut_10"] for value in values.values()) / len(qrels)
    assert mean == pytest.approx(expected, abs=tolerance)
