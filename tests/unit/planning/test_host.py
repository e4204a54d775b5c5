"""Memory of the host: what is counted, when it is refused, and that what is proposed fits."""

from __future__ import annotations

from typing import Any

import pytest

from quarry.planning.host import (
    BYTES_PER_DOCUMENT,
    CorpusPlace,
    HostNeed,
    host_need,
    host_reason,
    host_remedies,
)

GIB = 2**30
PASSAGES = 8_841_823


def need(**more: Any) -> HostNeed:
    """A 7B that searches MS MARCO on one GPU."""
    settings: dict[str, Any] = {
        "loading": 13 * GIB, "resident": 0, "num_documents": PASSAGES, "dim": 3584,
        "ranks_per_node": 1, "num_nodes": 1, "place": CorpusPlace(), "host_bytes": None,
    }  # fmt: skip
    return host_need(**(settings | more))


def test_the_passages_of_ms_marco() -> None:
    found = need()
    assert found.corpus == PASSAGES * 3584 * 4
    assert found.corpus / GIB == pytest.approx(118, abs=0.1)
    assert found.ids == PASSAGES * BYTES_PER_DOCUMENT
    assert found.total == found.corpus + found.ids
    assert need(num_documents=0).total == 13 * GIB


def test_ranks_share_embeddings_and_each_has_the_ids() -> None:
    eight, two_nodes = need(ranks_per_node=8), need(ranks_per_node=8, num_nodes=2)
    assert eight.corpus == need().corpus
    assert eight.ids == 8 * need().ids
    assert two_nodes.corpus == need().corpus // 2


def test_what_stays_is_there_beside_the_embeddings() -> None:
    assert need(resident=50 * GIB).total == need().total + 50 * GIB
    assert need(loading=400 * GIB).total == 400 * GIB


def test_embeddings_in_files_and_in_half_the_size() -> None:
    on_disk = need(place=CorpusPlace(is_on_disk=True))
    assert (on_disk.corpus, on_disk.corpus_on_disk) == (0, need().corpus)
    half = need(place=CorpusPlace(itemsize=2))
    assert half.corpus == need().corpus // 2
    auto = CorpusPlace(is_on_disk=None)
    assert need(place=auto, host_bytes=400 * GIB).corpus == 0, "more than a quarter of it"
    assert need(place=auto, host_bytes=500 * GIB).corpus == need().corpus
    assert need(place=auto, host_bytes=500 * GIB, num_jobs=2).corpus == 0
    assert need(place=auto).corpus == need().corpus, "nobody knows that machine"


def test_where_the_configuration_puts_a_corpus() -> None:
    assert CorpusPlace.of({}) == CorpusPlace(is_on_disk=False, itemsize=4)
    asked = {"corpus_on_disk": "auto", "corpus_dtype": "float16"}
    assert CorpusPlace.of(asked) == CorpusPlace(
        is_on_disk=None, itemsize=2, has_disk_key=True, dtype="float16"
    )
    assert CorpusPlace.of({"corpus_on_disk": True}).is_on_disk is True
    stored = CorpusPlace.of({"store_dtype": "float16"}, is_stored=True)
    assert (stored.is_on_disk, stored.itemsize, stored.is_stored) == (True, 2, True)


EVERY_KEY = CorpusPlace.of({"corpus_on_disk": "auto", "corpus_dtype": "float32"})


def remedies(host_gib: int, *, num_jobs: int, **more: Any) -> list[str]:
    settings: dict[str, Any] = {"is_training": True} | more
    found = host_remedies(
        need(), EVERY_KEY, host_bytes=host_gib * GIB, num_jobs=num_jobs, **settings
    )
    return list(found)


def test_jobs_at_once_are_added_up() -> None:
    assert host_reason(need(), host_bytes=119 * GIB, num_jobs=1) is None
    reason = host_reason(need(), host_bytes=500 * GIB, num_jobs=8)
    assert reason == (
        "8 jobs at once would take 951.0 GiB of host memory (118.9 GiB each, 118.1 GiB of it "
        "embeddings of the corpus), and 500.0 GiB are available."
    )
    alone = host_reason(need(), host_bytes=64 * GIB, num_jobs=1)
    assert alone is not None
    assert alone.startswith("The run would take 118.9 GiB of host memory, 118.1 GiB of it")


def test_only_what_fits_is_proposed() -> None:
    assert remedies(500, num_jobs=8) == [
        "evaluation.corpus_on_disk=true",
        "evaluation.corpus_dtype=float16",
        "benchmark=none",
        "task.num_jobs_at_once=4",
    ]
    assert remedies(64, num_jobs=1) == [
        "evaluation.corpus_on_disk=true",
        "evaluation.corpus_dtype=float16",
        "benchmark=none",
    ]
    assert remedies(20, num_jobs=1) == ["evaluation.corpus_on_disk=true", "benchmark=none"]
    assert remedies(2, num_jobs=1) == []
    assert remedies(64, num_jobs=1, is_training=False)[-1] == "evaluation.store=true"
    assert remedies(500, num_jobs=8, jobs_key="hydra.launcher.n_jobs")[-1] == (
        "hydra.launcher.n_jobs=4"
    )


def test_keys_that_the_configuration_lacks_are_not_proposed() -> None:
    found = host_remedies(
        need(), CorpusPlace.of({}), host_bytes=64 * GIB, num_jobs=1, is_training=True
    )
    assert list(found) == ["benchmark=none"]
