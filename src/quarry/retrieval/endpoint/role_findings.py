"""State what a server does with the texts of each role, by the rules that explain its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quarry.data.tokenization import TextTokenizer
from quarry.models.backbones.text_model import base_model
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.endpoint.broken_rules import Item, Sends, rules_of
from quarry.retrieval.endpoint.diagnosis import (
    MAX_REPLAYED_TOKENS,
    Explanation,
    explain,
    explain_cut,
    order_of,
)
from quarry.retrieval.endpoint.replay import Replay, Rules
from quarry.retrieval.golden_texts import GOLDEN, name_of, role_of
from quarry.types import ROLES, Role

WHO = {"query": "Queries", "document": "Documents"}
BOTH = "Queries and documents"

CUT_REMEDY = (
    "set the server's limit (vLLM: truncate_prompt_tokens in the request, TEI: max_seq_length of "
    "the folder that task=export writes, and --auto-truncate), or cut long texts in the client; a "
    "server with a length of each role needs input_type (task.sends=text here)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One difference from the contract, for people.

    Attributes:
        who: the texts that it concerns.
        what: what the server does with them.
        remedy: what to do about it.
    """

    who: str
    what: str
    remedy: str


class RoleFindings:
    """The findings about the texts of each role, by the rules that explain their vectors."""

    def __init__(
        self,
        found: Sequence[Tensor | None],
        expected: Tensor,
        *,
        model: BiEncoder,
        tokenizer: TextTokenizer,
        sends: Sends,
        always: Rules,
        max_distance: float,
    ) -> None:
        self.found = found
        self.expected = expected
        self.always = always
        self.max_distance = max_distance
        self.tokenizer = tokenizer
        self.rules = {
            role: list(
                rules_of(
                    tokenizer, role, pooling=model.pooling, is_causal=model.is_causal, sends=sends,
                    has_adapter=model.backbone is not base_model(model.backbone),
                    has_projections=bool(model.projections) and not always,
                )
            )
            for role in ROLES
        }  # fmt: skip
        poolings = [r.pooling for role in ROLES for r in self.rules[role] if r.pooling is not None]
        self.replay = Replay(
            model=model, tokenizer=tokenizer, sends=sends, poolings=[model.pooling, *poolings]
        )
        self.cut_places = {role: self._places(role, are_cut=True) for role in ROLES}

    def findings(self) -> list[Finding]:
        """Return what differs, of both roles together where they agree."""
        explained: dict[Role, Explanation] = {}
        mixed: list[Finding] = []
        for role in ROLES:
            if (finding := self._order(role)) is not None:
                mixed.append(finding)
            elif (explanation := self._explained(role)) is not None:
                explained[role] = explanation
        return [*mixed, *self._of_rules(explained), *self._of_cuts(explained)]

    def _places(self, role: Role, *, are_cut: bool | None = None) -> list[int]:
        """Return the places of a role's texts that have a vector and are cut, or are not."""
        return [
            place
            for place, item in enumerate(GOLDEN)
            if role_of(item) == role
            and self.found[place] is not None
            and are_cut in (None, self._is_cut(item, role))
        ]

    def _is_cut(self, item: Item, role: Role) -> bool:
        (whole,) = self.replay.rows([item], role, ())
        return len(whole) != len(self.tokenizer([item], role)[0])

    def _vectors(self, places: Sequence[int]) -> Tensor:
        return torch.stack([one for one in (self.found[p] for p in places) if one is not None])

    def _order(self, role: Role) -> Finding | None:
        places = self._places(role)
        if len(places) < 2:
            return None
        order = order_of(
            self.expected[places], self._vectors(places), max_distance=self.max_distance
        )
        if order is None:
            return None
        return Finding(
            who=WHO[role], what=f"vectors come in another order than the texts ({order})",
            remedy="the server's `index` is wrong: send one text a request, or another version",
        )  # fmt: skip

    def _explained(self, role: Role) -> Explanation | None:
        """Return what explains a role's texts that fit; the shorter ones, if all are not explained.

        A server may cut the longer ones, too.
        """
        places = self._places(role, are_cut=False)
        if not places:
            return None
        explanation = self._of_places(role, places)
        by_length = sorted(places, key=lambda p: len(self.tokenizer([GOLDEN[p]], role)[0]))
        shorter = by_length[: -(-len(places) // 2)]
        if explanation.is_found or len(shorter) == len(places):
            return explanation
        of_shorter = self._of_places(role, shorter)
        if not of_shorter.is_found:
            return explanation
        self.cut_places[role] += [place for place in places if place not in shorter]
        return of_shorter

    def _of_places(self, role: Role, places: Sequence[int]) -> Explanation:
        return explain(
            self.replay, [GOLDEN[place] for place in places], role,
            found=self._vectors(places), rules=self.rules[role], always=self.always,
            max_distance=self.max_distance,
        )  # fmt: skip

    def _of_rules(self, explained: dict[Role, Explanation]) -> list[Finding]:
        wrong = {role: each for role, each in explained.items() if not each.is_right}
        if len(wrong) == len(ROLES):
            names = [
                {_named(rules): rules for rules in wrong[role].candidates if wrong[role].is_found}
                for role in ROLES
            ]
            shared = [rules for name, rules in names[0].items() if name in names[1]]
            if shared:
                return [_finding(BOTH, shared)]
            if not any(names):
                nearest = max(each.distance for each in wrong.values())
                return [_unknown(BOTH, nearest)]
        return [
            _finding(WHO[role], each.candidates)
            if each.is_found
            else _unknown(WHO[role], each.distance)
            for role, each in wrong.items()
        ]

    def _of_cuts(self, explained: dict[Role, Explanation]) -> list[Finding]:
        found = []
        for role in ROLES:
            explanation = explained.get(role)
            if explanation is None or not explanation.is_found:
                continue  # nothing is known of what is cut
            for place in self.cut_places[role]:
                vector = self.found[place]
                assert vector is not None
                what = explain_cut(
                    self.replay, GOLDEN[place], role, found=vector,
                    rules=(*self.always, *explanation.candidates[0]),
                    max_distance=self.max_distance,
                )  # fmt: skip
                if what is None:
                    what = (
                        f"no length up to {MAX_REPLAYED_TOKENS:,} tokens explains how "
                        f"{name_of(GOLDEN[place])!r} is cut: it may not be cut at all"
                    )
                if what:
                    found.append(
                        Finding(who=f"Long {WHO[role].lower()}", what=what, remedy=CUT_REMEDY)
                    )
        return list(dict.fromkeys(found))


def _named(rules: Rules) -> str:
    return " and ".join(rule.finding for rule in rules)


def _finding(who: str, candidates: Sequence[Rules]) -> Finding:
    """Return a finding with all that the texts do not tell apart."""
    shown = candidates[:3]
    remedies = dict.fromkeys(rule.remedy for rules in shown for rule in rules)
    return Finding(who=who, what=", or ".join(map(_named, shown)), remedy="; ".join(remedies))


def _unknown(who: str, distance: float) -> Finding:
    return Finding(
        who=who,
        what="no broken rule explains the vectors (the nearest has a cosine of "
        f"{1 - distance:.4f}): another model or other weights answer, or many rules differ",
        remedy="compare the weights that the server loads with the model's, and serve the folder "
        "that task=export writes",
    )  # fmt: skip
