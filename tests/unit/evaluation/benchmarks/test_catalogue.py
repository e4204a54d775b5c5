"""The catalogue of public sets: whole, consistent, and what the suites in conf/ are made of."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from quarry.errors import UserError
from quarry.evaluation.benchmarks.catalogue import PublicSet, pick
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS
from quarry.metrics.trec import parse_measure

CONF = Path(__file__).resolve().parents[4] / "conf"
SUITES = ("beir", "beir13", "small", "coir", "msmarco", "trec_dl", "msmarco_dl")


def members(suite: str) -> list[PublicSet]:
    return pick(configuration(suite)["members"], PUBLIC_SETS, key="members")


def configuration(suite: str) -> dict[str, Any]:
    content = yaml.safe_load((CONF / "benchmark" / f"{suite}.yaml").read_text())
    return dict(content.get("benchmark", content))


def rows(sets: list[PublicSet]) -> set[str]:
    """What counts as one in a mean."""
    return {one.group or one.name for one in sets}


def test_names_differ_and_are_no_trouble_in_paths_and_overrides() -> None:
    names = [one.name for one in PUBLIC_SETS]
    assert len(set(names)) == len(names) == 26 + 20 + 3
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert not {one.group for one in PUBLIC_SETS} & set(names)


def test_every_table_is_pinned_to_a_commit_in_full() -> None:
    for one in PUBLIC_SETS:
        for table in (one.tables.corpus, one.tables.queries, one.tables.qrels):
            assert re.fullmatch(r"[0-9a-f]{40}", table.revision or ""), (one.name, table)


@pytest.mark.parametrize(
    ("suite", "num_rows", "num_sets"),
    [
        ("beir", 15, 26),
        ("beir13", 13, 13),
        ("small", 5, 5),
        ("coir", 10, 20),
        ("msmarco", 1, 1),
        ("trec_dl", 2, 2),
        ("msmarco_dl", 3, 3),
    ],
)
def test_the_suites(suite: str, num_rows: int, num_sets: int) -> None:
    assert configuration(suite)["name"] == suite
    assert len(rows(members(suite))) == num_rows
    assert len(members(suite)) == num_sets


def test_every_set_is_in_a_suite_and_small_sets_are_of_beir() -> None:
    used = {one.name for suite in SUITES for one in members(suite)}
    assert used == {one.name for one in PUBLIC_SETS}
    beir = rows(members("beir"))
    assert rows(members("beir13")) == beir - {"cqadupstack", "msmarco"}
    assert rows(members("small")) < beir


def test_groups_have_the_totals_that_are_published() -> None:
    queries: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for one in PUBLIC_SETS:
        if one.group:
            queries[one.group] += one.num_queries
            documents[one.group] += one.num_documents
    assert queries == {"cqadupstack": 13145, "codesearchnet": 52561, "codesearchnet-ccr": 52561}
    assert documents == {
        "cqadupstack": 457_199,
        "codesearchnet": 1_003_765,
        "codesearchnet-ccr": 1_005_474,
    }


def test_a_suite_reports_first_what_its_sets_are_known_by() -> None:
    default = yaml.safe_load((CONF / "evaluation" / "default.yaml").read_text())
    for suite in SUITES:
        content = yaml.safe_load((CONF / "benchmark" / f"{suite}.yaml").read_text())
        evaluation = default | content.get("evaluation", {})
        known_by = {one.main_measure for one in members(suite)}
        assert evaluation["measures"][0] in known_by
        assert known_by <= set(evaluation["measures"])
        depths = [parse_measure(measure).k or 1 for measure in evaluation["measures"]]
        assert evaluation["top_k"] >= max(depths)


def test_rules_of_single_sets() -> None:
    by_name = {one.name: one for one in PUBLIC_SETS}
    removed = {name for name, one in by_name.items() if one.remove_self_match}
    # where mteb ignores identical ids
    assert removed == {"arguana", "quora", "fiqa", "fever", "msmarco"}
    colliding = {name for name, one in by_name.items() if one.ids_may_collide}
    assert colliding == {"msmarco-dev", "trec-dl-2019", "trec-dl-2020"}
    untitled = {name for name, one in by_name.items() if not one.uses_title}
    assert untitled == {one.name for one in members("coir")}
    levels = {name: one.relevance_level for name, one in by_name.items() if one.relevance_level}
    assert levels == {"trec-dl-2019": 2, "trec-dl-2020": 2}
    assert by_name["msmarco"].split == by_name["msmarco-dev"].split == "dev"
    assert by_name["codesearchnet-go"].tables.corpus.configs == ("go-corpus",)
    shared = {by_name[name].tables.corpus for name in ("msmarco-dev", "trec-dl-2019")}
    assert len(shared) == 1  # encoded once


def test_a_group_stands_for_its_parts_and_an_unknown_name_lists_what_there_is() -> None:
    forums = pick(["cqadupstack", "scifact"], PUBLIC_SETS, key="benchmark.sets")
    assert [one.name for one in forums][0::12] == ["cqadupstack-android", "scifact"]
    assert len(forums) == 13
    with pytest.raises(UserError, match=r"benchmark\.sets: there is no 'scifakt' .*scifact"):
        pick(["scifakt"], PUBLIC_SETS, key="benchmark.sets")
