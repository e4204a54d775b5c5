"""List the public sets of BEIR (Thakur et al. 2021, arXiv 2104.08663) as mteb distributes them.

Commits, splits, licences and counts are those of mteb 2.26.24 (its task definitions and descriptive
statistics). So is the choice of sets whose self matches are removed if a convention leaves it to
the set (`ignore_identical_ids`). Touché is version 2, which BEIR ships; version 3 is another set.
"""

from __future__ import annotations

from typing import Any

from quarry.data.hub_set import mteb_tables
from quarry.evaluation.benchmarks.catalogue import PublicSet


def _mteb(
    name: str,
    repo: str,
    revision: str,
    counts: tuple[int, int, int],
    *,
    licence: str | None,
    split: str = "test",
    **more: Any,
) -> PublicSet:
    """Return a set of an mteb repository; `counts`: queries, documents, positive judgements."""
    num_queries, num_documents, num_positives = counts
    return PublicSet(
        name=name,
        tables=mteb_tables(repo, revision=revision, split=split),
        split=split,
        num_queries=num_queries,
        num_documents=num_documents,
        num_positives=num_positives,
        licence=licence,
        **more,
    )


def _forum(
    forum: str, revision: str, counts: tuple[int, int, int], repo: str | None = None
) -> PublicSet:
    name = f"cqadupstack-{forum}"
    return _mteb(
        name,
        repo or f"mteb/{name}",
        revision,
        counts,
        licence="apache-2.0",
        group="cqadupstack",
    )


CQADUPSTACK = (
    _forum(
        "android",
        "9be4c0e46342e8e3aff577a89b9a1ec9bc6b4af3",
        (699, 22998, 1696),
        repo="mteb/CQADupstackAndroidRetrieval",
    ),
    _forum("english", "ad9991cb51e31e31e430383c75ffb2885547b5f0", (1570, 40221, 3765)),
    _forum("gaming", "4885aa143210c98657558c04aaf3dc47cfb54340", (1595, 45301, 2263)),
    _forum("gis", "5003b3064772da1887988e05400cf3806fe491f2", (885, 37637, 1114)),
    _forum("mathematica", "90fceea13679c63fe563ded68f3b6f06e50061de", (804, 16705, 1358)),
    _forum("physics", "79531abbd1fb92d06c6d6315a0cbbbf5bb247ea4", (1039, 38316, 1933)),
    _forum("programmers", "6184bc1440d2dbc7612be22b50686b8826d22b32", (876, 32176, 1675)),
    _forum("stats", "65ac3a16b8e91f9cee4c9828cc7c335575432a2a", (652, 42269, 913)),
    _forum("tex", "46989137a86843e03a6195de44b09deda022eec7", (2906, 68184, 5154)),
    _forum("unix", "6c6430d3a6d36f8d2a829195bc5dc94d7e063e53", (1072, 47382, 1693)),
    _forum("webmasters", "160c094312a0e1facb97e55eeddb698c0abe3571", (506, 17405, 1395)),
    _forum("wordpress", "4ffe81d471b1924886b33c7567bfb200e9eec5c4", (541, 48605, 744)),
)

BEIR_SETS = (
    _mteb(
        "trec-covid",
        "mteb/trec-covid",
        "bb9466bac8153a0349341eb1b22e06409e78ef4e",
        (50, 171332, 24675),
        licence=None,
        note="grades 0 to 2; Recall@100 is small by construction (493 positives a query)",
    ),
    _mteb(
        "nfcorpus",
        "mteb/nfcorpus",
        "ec0fa4fe99da2ff19ca1214b7966684033a58814",
        (323, 3633, 12334),
        licence=None,
    ),
    _mteb(
        "nq",
        "mteb/nq",
        "b774495ed302d8c44a3a7ea25c90dbce03968f31",
        (3452, 2681468, 4201),
        licence="cc-by-nc-sa-3.0",
        note="2,670,337 distinct documents",
    ),
    _mteb(
        "hotpotqa",
        "mteb/hotpotqa",
        "ab518f4d6fcca38d87c25209f94beba119d02014",
        (7405, 5233329, 14810),
        licence="cc-by-sa-4.0",
    ),
    _mteb(
        "fiqa",
        "mteb/fiqa",
        "27a168819829fe9bcd655c2df245fb19452e8e06",
        (648, 57638, 1706),
        licence=None,
        remove_self_match=True,
        note="no titles",
    ),
    _mteb(
        "arguana",
        "mteb/arguana",
        "c22ab2a51041ffd869aaddef7af8d8215647e41a",
        (1406, 8674, 1406),
        licence="cc-by-sa-4.0",
        remove_self_match=True,
        note="queries are documents; 1,298 distinct queries, 8,626 distinct documents",
    ),
    _mteb(
        "webis-touche2020",
        "mteb/touche2020",
        "a34f9a33db75fa0cbb21bb5cfc3dae8dc8bec93f",
        (49, 382545, 932),
        licence="cc-by-sa-4.0",
        note="version 2, never to be mixed with 3; 379,559 distinct documents",
    ),
    *CQADUPSTACK,
    _mteb(
        "quora",
        "mteb/quora",
        "e4e08e0b7dbe3c8700f0daef558ff32256715259",
        (10000, 522931, 15675),
        licence=None,
        remove_self_match=True,
        note="queries are documents; no titles",
    ),
    _mteb(
        "dbpedia-entity",
        "mteb/dbpedia",
        "c0f706b76e590d620bd6618b3ca8efdd34e2d659",
        (400, 4635922, 15286),
        licence="mit",
    ),
    _mteb(
        "scidocs",
        "mteb/scidocs",
        "f8c2fcf00f625baaa80f62ec5bd9e1fff3b8ae88",
        (1000, 25657, 4928),
        licence="cc-by-sa-4.0",
    ),
    _mteb(
        "fever",
        "mteb/fever",
        "bea83ef9e8fb933d90a2f1d5515737465d613e12",
        (6666, 5416568, 7937),
        licence="cc-by-nc-sa-3.0",
        remove_self_match=True,
        pages="fever",
    ),
    _mteb(
        "climate-fever",
        "mteb/climate-fever",
        "47f2ac6acb640fc46020b02a5b59fdda04d39380",
        (1535, 5416593, 4681),
        licence="cc-by-sa-4.0",
        pages="fever",
        note="nearly, not exactly, the corpus of fever",
    ),
    _mteb(
        "scifact",
        "mteb/scifact",
        "d56462d0e63a25450459c4f213e49ffdb866f7f9",
        (300, 5183, 339),
        licence="cc-by-nc-4.0",
    ),
    _mteb(
        "msmarco",
        "mteb/msmarco",
        "c5a29a104738b98a9e76336939199e264163d4a0",
        (6980, 8841823, 7437),
        licence="msr-la-nc",
        remove_self_match=True,
        split="dev",
        note="dev small, as BEIR distributes it",
    ),
)
