"""`quarry.load`: the vectors and rankings of a notebook are those of the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import quarry
from helpers.embedding import embedded
from helpers.models import tiny_folder
from quarry.api.retriever import Retriever
from quarry.errors import MissingPathError, UserError

TEXTS = ["read a file", "", "close the socket", "read a file"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    return quarry.load(folder, prompt__query="q: {text}", prompt__document="d: {title} {text}")


def test_embeddings_are_float32_and_of_each_role(retriever: Retriever) -> None:
    queries, documents = retriever.encode_queries(TEXTS), retriever.encode_documents(TEXTS)
    assert (queries.dtype, queries.shape) == (np.float32, (4, retriever.dim))
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-5)
    assert np.array_equal(queries[0], queries[3])
    assert not np.allclose(queries[0], documents[0], atol=1e-3), "other prompts"
    assert retriever.encode_queries([]).shape == (0, retriever.dim)


def test_a_title_is_a_part_of_a_document(retriever: Retriever) -> None:
    bare = quarry.Document(document_id="a", text="read a file")
    titled = quarry.Document(document_id="a", text="read a file", title="files")
    embeddings = retriever.encode_documents([bare, titled, "read a file"])
    assert np.array_equal(embeddings[0], embeddings[2])
    assert not np.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_search_is_that_of_the_inner_products(retriever: Retriever) -> None:
    corpus = ["read a file", "open a door", "write a book", "sort a list"]
    found = retriever.search(["read a file", "sort"], corpus, top_k=3)
    scores = retriever.encode_queries(["read a file", "sort"]) @ (
        retriever.encode_documents(corpus).T
    )
    for hits, row in zip(found, scores, strict=True):
        best = np.argsort(-row)[:3]
        assert [hit.document.document_id for hit in hits] == [str(index) for index in best]
        assert [hit.score for hit in hits] == pytest.approx(row[best].tolist(), abs=1e-5)
        assert hits[0].document.text == corpus[best[0]]
    assert len(retriever.search(["read"], corpus, top_k=100)[0]) == 4
    assert retriever.search(["read"], []) == [[]]
    assert retriever.search([], corpus) == []


def test_the_contract_says_how_texts_are_fed_and_from_where(retriever: Retriever) -> None:
    part = retriever.contract["prompt.query"]
    assert (part["value"], part["source"]) == ("q: {text}", "command line")


def test_vectors_are_those_of_the_commands(folder: Path) -> None:
    documents = [quarry.Document(document_id=str(i), text=text) for i, text in enumerate(TEXTS)]
    (_, theirs), _ = embedded(folder, [], documents)
    assert np.array_equal(quarry.load(folder).encode_documents(TEXTS), theirs.numpy())


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda r: r.search(["a"], ["b"], top_k=0), "top_k=0"),
        (lambda r: r.encode_queries("a text"), "a list of texts"),
        (lambda r: r.encode_documents("a text"), "a list of them"),
        (
            lambda r: r.search(["a"], [quarry.Document(document_id="x", text=t) for t in "ab"]),
            "the id of another one",
        ),
    ],
)
def test_mistakes_are_named(call: Any, expected: str, retriever: Retriever) -> None:
    with pytest.raises(UserError, match=expected):
        call(retriever)


def test_a_folder_that_is_no_model_and_a_key_that_there_is_not(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingPathError, match=rf"model\.path={tmp_path}.*config\.json"):
        quarry.load(tmp_path)
    with pytest.raises(UserError, match="dtyp"):
        quarry.load(folder, model__dtyp="float16")
    with pytest.raises(UserError, match=r"now model\.normalize"):
        quarry.load(folder, model__is_normalized=True)


def test_hydra_is_left_as_it_was(folder: Path) -> None:
    quarry.load(folder)
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, quarry; assert not {'torch', 'hydra'} & set(sys.modules); quarry.Document"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
