"""Collections to be searched by any number of processes, and what each process saw of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from helpers.rerankers import language_model_folder
from helpers.stores import documents, stored, texts, tiny_encoder
from quarry.distributed import world
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.corpus_embeddings import CorpusStorage
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.fusion import HybridRetriever, reciprocal_rank_fusion
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.reranked import RerankedRetriever
from quarry.retrieval.rerankers import pair_scorer
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec
from quarry.retrieval.retriever import Retriever
from quarry.retrieval.terms import CodeAnalyzer
from quarry.retrieval.unique_encoder import UniqueEncoder
from quarry.types import Query, RetrievalSet, Run

KINDS = ("unique", "stored", "in step", "on disk")


class InStep(Encoder):
    """As with weights in shards: all processes run as many forward passes."""

    has_equal_steps = True


def collections() -> dict[str, RetrievalSet]:
    """Many texts, of which some are equal and tie; fewer than there are processes; a single one."""
    many = texts(300)
    corpora = {"many": many + many[:90] + many[:20], "two": texts(2, seed=1), "one": ["a"]}
    queries = [Query(query_id=f"q{i}", text=text) for i, text in enumerate(texts(30, seed=2))]
    return {
        name: RetrievalSet(
            name=name,
            queries=queries,
            corpus=documents(corpus),
            qrels={query.query_id: {"d0": 1} for query in queries},
        )
        for name, corpus in corpora.items()
    }


def retrievers() -> dict[str, Retriever]:
    # chunks of 32 documents: shares have other chunks than the whole
    dense = DenseRetriever(index=ExactIndex(num_documents_per_chunk=32, num_queries_per_chunk=8))
    bm25 = BM25Retriever(tokenizers={"text": CodeAnalyzer()})
    hybrid = HybridRetriever(
        retrievers={"bm25": bm25, "dense": dense}, fusion=reciprocal_rank_fusion
    )
    return {"dense": dense, "hybrid": hybrid}


def reranked(folder: Path) -> dict[str, Run]:
    """Rankings of two stages, with so few pairs in a block that every process has some."""
    made = world.first_does(lambda: language_model_folder(folder / "reranker"))
    retriever = RerankedRetriever(
        first_stage=retrievers()["dense"], reranker=RerankerSpec(path=str(made)), depth=12
    )
    encoder = UniqueEncoder(encoder=tiny_encoder(), storage=CorpusStorage(folder=folder))
    with mock.patch.object(pair_scorer, "NUM_PAIRS_PER_BLOCK", 32):
        return {
            f"reranked {name}": retriever.retrieve(collection, top_k=20, encoder=encoder)
            for name, collection in collections().items()
        }


def evaluate(store: Path) -> dict[str, Any]:
    """`runs` by retriever, kind of encoder and collection; `passes` and `tokens` of this process
    by kind, dense retrieval alone."""
    found: dict[str, Any] = {"runs": reranked(store.parent), "passes": {}, "tokens": {}}
    for kind in KINDS:
        for retriever_name, retriever in retrievers().items():
            if kind == "on disk" and retriever_name != "dense":  # as "in step" but for the place
                continue
            encoder = tiny_encoder(made=InStep if kind in ("in step", "on disk") else Encoder)
            passes: list[int] = []
            encoder.model.register_forward_pre_hook(
                lambda _, args, passes=passes: passes.append(args[0].num_tokens)
            )
            assert isinstance(encoder.model, BiEncoder)
            storage = CorpusStorage(folder=store.parent, on_disk=kind == "on disk")
            text_encoder = (
                stored(store, encoder=encoder)
                if kind == "stored"
                else UniqueEncoder(encoder=encoder, storage=storage)
            )
            for name, collection in collections().items():
                run = retriever.retrieve(collection, top_k=10, encoder=text_encoder)
                found["runs"][f"{retriever_name} {kind} {name}"] = run
            if retriever_name == "dense":
                found["passes"][kind], found["tokens"][kind] = len(passes), sum(passes)
    return found
