"""Mean lengths are those of mteb's descriptive statistics, one for each public set."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from quarry.evaluation.benchmarks.catalogue import PublicSet
from quarry.evaluation.benchmarks.mean_characters import MEAN_CHARACTERS, SOURCE
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS

FILES = {
    "trec-covid": "TRECCOVID", "nfcorpus": "NFCorpus", "nq": "NQ", "hotpotqa": "HotpotQA",
    "fiqa": "FiQA2018", "arguana": "ArguAna", "webis-touche2020": "Touche2020",
    "quora": "QuoraRetrieval", "dbpedia-entity": "DBPedia", "scidocs": "SCIDOCS", "fever": "FEVER",
    "climate-fever": "ClimateFEVER", "scifact": "SciFact", "msmarco": "MSMARCO",
    "msmarco-dev": "MSMARCO", "trec-dl-2019": "TRECDL2019", "trec-dl-2020": "TRECDL2020",
    "apps": "AppsRetrieval", "cosqa": "CosQA", "synthetic-text2sql": "SyntheticText2SQL",
    "codesearchnet": "COIRCodeSearchNetRetrieval", "codesearchnet-ccr": "CodeSearchNetCCRetrieval",
    "codetrans-dl": "CodeTransOceanDL", "codetrans-contest": "CodeTransOceanContest",
    "stackoverflow-qa": "StackOverflowQA", "codefeedback-st": "CodeFeedbackST",
    "codefeedback-mt": "CodeFeedbackMT",
}  # fmt: skip
"""Set or group -> its task in mteb; CQADupStack's forums have tasks of their own."""


def test_every_public_set_has_lengths() -> None:
    assert set(MEAN_CHARACTERS) == {one.name for one in PUBLIC_SETS}
    assert all(1 < length < 10_000 for pair in MEAN_CHARACTERS.values() for length in pair)


@pytest.fixture(scope="module")
def statistics() -> Path:
    """Of the installed package; it is not imported."""
    try:
        mteb = distribution("mteb")
    except PackageNotFoundError:
        pytest.skip("mteb is not installed")
    if f"mteb {mteb.version}" != SOURCE:
        pytest.skip(f"the numbers are those of {SOURCE}")
    return Path(str(mteb.locate_file("mteb/descriptive_stats/Retrieval")))


def stated(one: PublicSet, folder: Path) -> dict[str, Any]:
    part = "" if one.group is None else one.name.removeprefix(f"{one.group}-")
    if one.group == "cqadupstack":
        name = f"CQADupstack{part.capitalize()}Retrieval"
    else:
        name = FILES[one.group or one.name]
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))[one.split]
    subsets = content.get("hf_subset_descriptive_stats", {})
    found: dict[str, Any] = subsets.get(part, content)
    return found


@pytest.mark.parametrize("one", PUBLIC_SETS, ids=lambda one: one.name)
def test_lengths_are_those_of_mteb(one: PublicSet, statistics: Path) -> None:
    found = stated(one, statistics)
    means = [
        found[f"{which}_text_statistics"]["average_text_length"]
        for which in ("queries", "documents")
    ]
    assert list(MEAN_CHARACTERS[one.name]) == pytest.approx(means, abs=0.051)  # one digit
