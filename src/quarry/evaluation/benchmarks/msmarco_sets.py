"""List MS MARCO dev and TREC Deep Learning 2019 and 2020 on the passages that RepLLaMA searches.

The corpus is Tevatron's, whose passages have titles; all three sets share it. The commits of
Tevatron's repositories are those that their pages show; the others, and all counts, are those of
mteb 2.26.24. Query and passage ids are unrelated, so equal ids are no self matches.
"""

from __future__ import annotations

from dataclasses import replace

from quarry.data.hub_set import mteb_tables
from quarry.data.hub_tables import HubTable
from quarry.evaluation.benchmarks.catalogue import PublicSet

NUM_PASSAGES = 8841823
LICENCE = "msr-la-nc"

PASSAGES = HubTable(
    repo="Tevatron/msmarco-passage-corpus",
    revision="5b250efbb2149162100c58f2394e990651b47beb",
    splits=("train",),  # one file, corpus.jsonl.gz, whose name tells no split
)

DEV_QUERIES = HubTable(
    repo="Tevatron/msmarco-passage",
    revision="a8eec567e64d42528a140fbe218dbb22b6719139",
    splits=("validation",),  # dev.jsonl.gz
    skips=("train*",),  # 1.7 GB of training examples
)


MTEB_TABLES = mteb_tables(
    "mteb/msmarco", revision="c5a29a104738b98a9e76336939199e264163d4a0", split="dev"
)


def _deep_learning(
    year: int, revision: str, *, num_queries: int, num_positives: int, note: str
) -> PublicSet:
    tables = mteb_tables(f"whybe-choi/trec-dl-{year}", revision=revision, split="test")
    return PublicSet(
        name=f"trec-dl-{year}",
        tables=replace(tables, corpus=PASSAGES),
        split="test",
        num_queries=num_queries,
        num_documents=NUM_PASSAGES,
        num_positives=num_positives,
        licence=LICENCE,
        relevance_level=2,
        ids_may_collide=True,
        note=note,
    )


MSMARCO_SETS = (
    PublicSet(
        name="msmarco-dev",
        tables=replace(MTEB_TABLES, corpus=PASSAGES, queries=DEV_QUERIES),
        split="dev",
        num_queries=6980,
        num_documents=NUM_PASSAGES,
        num_positives=7437,
        licence=LICENCE,
        main_measure="MRR@10",
        ids_may_collide=True,
        note="dev small",
    ),
    _deep_learning(
        2019,
        "cbb055c2528c544edf84db8ec6aef1885ec8cfda",
        num_queries=43,
        num_positives=4102,
        note="9,260 judgements, grades 0 to 3",
    ),
    _deep_learning(
        2020,
        "83d7d3532f3fa653f132da188bbaa852d959d6f9",
        num_queries=54,
        num_positives=3606,
        note="grades 0 to 3",
    ),
)
