"""BM25 from files equals BM25 in memory, scores and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quarry.retrieval.bm25 import BM25Retriever, CodeAnalyzer, TextAnalyzer
from quarry.retrieval.tie_breaking import tie_order
from quarry.search.lexical import FILES, LexicalIndex, write_lexical
from quarry.types import Content, Document, Query, RetrievalSet

TEXTS = [
    "def read_file(path): return open(path).read()",
    "The quick brown foxes; the readers' files.",
    "",
    "readFile reads files, reading files",
    "The quick brown foxes; the readers' files.",
]
QUERIES = ["read the file", "quick fox fox", "nothing of that", "the", "parseHTTP readFile", "É ü"]


@pytest.mark.parametrize("content", ["text", "code"])
def test_equals_the_retriever_of_evaluations(tmp_path: Path, content: Content) -> None:
    documents = [Document(document_id=f"{i}", text=text) for i, text in enumerate(TEXTS)]
    queries = [Query(query_id=str(i), text=text) for i, text in enumerate(QUERIES)]
    retriever = BM25Retriever(tokenizers={"text": TextAnalyzer(), "code": CodeAnalyzer()})
    wanted = retriever.retrieve(
        RetrievalSet(name="made", queries=queries, corpus=documents, qrels={}, content=content),
        top_k=3,
    )
    assert write_lexical(tmp_path, documents, content=content)
    assert {each.name for each in tmp_path.iterdir()} == set(FILES)
    index = LexicalIndex(tmp_path, content=content, num_documents=len(documents))
    places = tie_order([document.document_id for document in documents])
    for query in queries:
        rows, scores = index.search(query.text, places=places, top_k=3)
        found = {documents[row].document_id: score for row, score in zip(rows, scores, strict=True)}
        assert list(found.items()) == list(wanted[query.query_id].items())
    assert any(wanted.values())


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_lexical(tmp_path, [Document(document_id="a", text="a word")], content="code")
    np.save(tmp_path / "bm25_starts.npy", np.zeros(9, dtype=np.int32))
    with pytest.raises(ValueError, match="belong together"):
        LexicalIndex(tmp_path, content="code", num_documents=1)
