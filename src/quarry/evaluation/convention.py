"""Define conventions: the scoring rules of other evaluation tools, as data.

The five in conf/convention are those of beir, mteb, coir-eval, Pyserini and the study's own code;
docs/evaluation.md names the source of each rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quarry.errors import UserError
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.metrics.ranking import Ties
from quarry.metrics.trec import MissingQueries

TitleRule = Literal["set", "joined", "none"]
SelfMatchRule = Literal["set", "always", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Rules of a convention on one set.

    Attributes:
        uses_title: documents are their title and text; false: their text alone.
        removes_self_match: a document whose id is the query's is dropped from the results.
        ties: tie-breaking: order of the ids of documents with equal scores.
        missing_queries: whether a judged query without results counts 0 or is left out.
        caps_recall: Recall@k divides by k if more than k documents are relevant.
        relevance_level: the lowest relevant grade, for all measures but nDCG.
    """

    uses_title: bool
    removes_self_match: bool
    ties: Ties
    missing_queries: MissingQueries
    caps_recall: bool
    relevance_level: int

    def record(self) -> dict[str, object]:
        """Return the rules as words, for readers and for `recorded_rules`."""
        return {
            "title": "joined" if self.uses_title else "none",
            "self_match": "removed" if self.removes_self_match else "kept",
            "ties": f"document id {self.ties}",
            "missing_queries": self.missing_queries,
            "recall": "capped" if self.caps_recall else "plain",
            "relevance_level": self.relevance_level,
        }


def recorded_rules(record: Mapping[str, Any]) -> Rules:
    """Return the rules from a stored `Convention.record`.

    Raises:
        KeyError: the record was stored by another version.
    """
    return Rules(
        uses_title=record["title"] == "joined",
        removes_self_match=record["self_match"] == "removed",
        ties="ascending" if record["ties"] == "document id ascending" else "descending",
        missing_queries="left_out" if record["missing_queries"] == "left_out" else "zero",
        caps_recall=record["recall"] == "capped",
        relevance_level=int(record["relevance_level"]),
    )


@dataclass(frozen=True, kw_only=True)
class Convention:
    """Named rules, some of which may be left to the set.

    Attributes:
        name: name in reports and in metrics.json.
        title: "set": as the set says; "joined": title and text; "none": text alone.
        self_match: whether a document whose id is the query's is removed. "set": as the set says;
            "always": yes, unless the set's ids may be equal by accident (see `BenchmarkSet`);
            "never".
        ties: tie-breaking: order of the ids of documents with equal scores.
        missing_queries: whether judged queries without results count 0 or are left out.
        capped_recall: names of the sets whose Recall@k is capped (`quarry.metrics.recall`).
        relevance_level: lowest relevant grade for recall, MAP, P and MRR; None: as the set says,
            else 1.

    Raises:
        UserError: the relevance level is below 1.
    """

    name: str
    title: TitleRule
    self_match: SelfMatchRule
    ties: Ties
    missing_queries: MissingQueries
    capped_recall: Sequence[str]
    relevance_level: int | None

    def __post_init__(self) -> None:
        if self.relevance_level is not None and self.relevance_level < 1:
            raise UserError(
                f"convention.relevance_level={self.relevance_level}: grades of 0 and below mean "
                "not relevant. Fix: give a level of at least 1, or null for that of each set"
            )

    def rules_on(self, benchmark_set: BenchmarkSet) -> Rules:
        """Return the rules on one set, with those that are left to the set filled in."""
        own_level = benchmark_set.relevance_level or 1
        return Rules(
            uses_title=benchmark_set.uses_title if self.title == "set" else self.title == "joined",
            removes_self_match=self._removes_self_match(benchmark_set),
            ties=self.ties,
            missing_queries=self.missing_queries,
            caps_recall=benchmark_set.name in self.capped_recall,
            relevance_level=own_level if self.relevance_level is None else self.relevance_level,
        )

    def record(self, benchmark_set: BenchmarkSet) -> dict[str, object]:
        """Return what is stored with each result: the rules on this set, and the convention's."""
        rules = self.rules_on(benchmark_set)
        is_kept = self.self_match == "always" and not rules.removes_self_match
        return {
            "name": self.name,
            **rules.record(),
            "title_rule": self.title,
            "self_match_rule": self.self_match
            + (", but ids of this set may be equal by accident" if is_kept else ""),
            "capped_recall": list(self.capped_recall),
            "relevance_level_rule": "set" if self.relevance_level is None else "fixed",
        }

    def _removes_self_match(self, benchmark_set: BenchmarkSet) -> bool:
        if self.self_match == "always":
            return benchmark_set.remove_self_match or not benchmark_set.ids_may_collide
        return self.self_match == "set" and benchmark_set.remove_self_match
