"""Load a model as a retriever: encode queries and documents, search a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.assembly.loaded_encoder import load_encoder
from quarry.config.composing import composed_job, overrides_of
from quarry.errors import UserError
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.search.searcher import Hit
from quarry.types import Document, Query, RetrievalSet


class Retriever:
    """A loaded model: texts in, embeddings or ranked documents out.

    Prompts, pooling, end token and lengths are those that the model was trained with.

    Args:
        encoder: the model with its tokenizer and prompts.
        contract: see the attribute.

    Attributes:
        contract: how texts are fed to the model: part ("prompt.query", "model.pooling", ...) ->
            its value and where that comes from.
    """

    def __init__(self, *, encoder: Encoder, contract: Mapping[str, Any]) -> None:
        self._encoder = encoder
        self.contract = contract

    @property
    def dim(self) -> int:
        """The width of the embeddings."""
        return self._encoder.model.embedding_dim

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of queries, float32 [num_texts, dim]."""
        return self._encoder.encode(_queries(texts), "query").numpy()

    def encode_documents(self, documents: Sequence[str | Document]) -> NDArray[np.float32]:
        """Return the embeddings of documents, float32 [num_documents, dim].

        Args:
            documents: texts, or `quarry.Document`s, whose title is a part of what is encoded.
        """
        return self._encoder.encode(_documents(documents), "document").numpy()

    def search(
        self, queries: Sequence[str], corpus: Sequence[str | Document], *, top_k: int = 10
    ) -> list[list[Hit]]:
        """Return the best documents of each query, best first; the search is exact.

        Args:
            corpus: texts, whose ids are their positions, or `quarry.Document`s.
            top_k: documents a query, or all of a smaller corpus.

        Raises:
            UserError: `top_k` is below 1, or two documents have one id.
        """
        if top_k < 1:
            raise UserError(f"top_k={top_k}: must be at least 1")
        documents, asked = _documents(corpus), _queries(queries)
        by_id = {document.document_id: document for document in documents}
        if len(by_id) < len(documents):
            raise UserError(
                f"corpus: {len(documents) - len(by_id)} documents have the id of another one "
                "(ids must be unique)"
            )
        if not documents or not asked:
            return [[] for _ in asked]
        data = RetrievalSet(name="search", queries=asked, corpus=documents, qrels={})
        found = DenseRetriever(index=ExactIndex()).retrieve(
            data, top_k=min(top_k, len(documents)), encoder=self._encoder
        )
        return [
            [
                Hit(document=by_id[document_id], score=float(score))
                for document_id, score in _ranked(found[query.query_id])
            ]
            for query in asked
        ]


def load(
    path: str | Path, *overrides: str, device: str | torch.device | None = None, **settings: Any
) -> Retriever:
    """Load a retriever: a run directory, a model folder, an exported folder, or a hub id.

    Of a run that was stopped before its end, this writes `model/` of the last checkpoint into the
    run directory, as the commands do, and warns.

    Args:
        path: folders are those that `eval.py model.path=...` takes: saved here or by peft,
            transformers or sentence-transformers.
        overrides: of the configuration, as on eval.py's command line: "model.dtype=float16".
        device: None: a GPU where there is one.
        settings: overrides as keywords, two underscores for a dot: `model__dtype="float16"`.

    Raises:
        UserError: the path is no model (the message lists what was looked for), does not fit, or an
            override cannot work.
    """
    given = overrides_of({"model.path": str(path), **settings})
    with composed_job("eval", [*given, *overrides]) as config:
        loaded = load_encoder(config, device=device)
    return Retriever(encoder=loaded.encoder, contract=loaded.contract.as_data()["parts"])


def _queries(texts: Sequence[str]) -> list[Query]:
    if isinstance(texts, str):
        raise UserError("queries: a text was given (a list of texts is needed). Fix: [text]")
    return [Query(query_id=str(index), text=text) for index, text in enumerate(texts)]


def _documents(documents: Sequence[str | Document]) -> list[Document]:
    if isinstance(documents, str):
        raise UserError("documents: a text was given (a list of them is needed). Fix: [text]")
    return [
        each if isinstance(each, Document) else Document(document_id=str(index), text=each)
        for index, each in enumerate(documents)
    ]


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the ranking of one query: by score, equal ones by descending id, as in trec_eval."""
    return sorted(scores.items(), key=lambda entry: (entry[1], entry[0]), reverse=True)
