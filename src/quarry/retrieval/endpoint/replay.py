"""Compute what a server's embeddings would be if it broke some rules of a model's contract."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.retrieval.endpoint.broken_rules import Ids, Item, Rule, Sends
from quarry.types import Role

Rules = tuple[Rule, ...]
"""Broken rules, of different steps; none: the contract."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How a row of token ids is cut where it is longer.

    Attributes:
        length: tokens, special ones included; None: nothing is cut.
        side: the end that is cut off.
        keeps_specials: start and end tokens are put around what is left.
    """

    length: int | None
    side: str = "right"
    keeps_specials: bool = True


UNCUT = Cut(length=None)


class Replay:
    """Embeddings by the contract and by broken rules, with what was computed once.

    Args:
        model: in eval mode.
        sends: whether the server renders the prompt (text), or the client (rendered).
        poolings: of the rules that will be asked for, the model's own among them. Their vectors of
            a row are computed together.
    """

    def __init__(
        self, *, model: BiEncoder, tokenizer: TextTokenizer, sends: Sends, poolings: list[Pooling]
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.sends = sends
        self.poolings = poolings
        self._texts: dict[tuple[Item, Role], tuple[str, int]] = {}
        self._pooled: dict[tuple[Any, ...], list[Tensor]] = {}

    def rows(
        self, items: Sequence[Item], role: Role, rules: Rules, cut: Cut = UNCUT
    ) -> list[TokenizedText]:
        """Return the token ids of each text."""
        frame = self.tokenizer.frames[role]
        texts = [self._sent(item, role)[0] for item in items]
        for rule in rules:
            if rule.text is not None:
                texts = [rule.text(item, text) for item, text in zip(items, texts, strict=True)]
        prompt = next((rule.prompt for rule in rules if rule.prompt is not None), None)
        has_own = prompt is None
        if prompt is None and self.sends == "text":
            prompt = frame.render
        strings = texts if prompt is None else [prompt(text) for text in texts]
        encoded = self.tokenizer.tokenizer(strings, add_special_tokens=False, verbose=False)
        around = next((rule.ids for rule in rules if rule.ids is not None), None)
        found = []
        for ids, item in zip(encoded["input_ids"], items, strict=True):
            row = _cut(tuple(ids), frame.start_ids, frame.end_ids, around, cut)
            start = self._sent(item, role)[1] if has_own else 0
            array = np.array(row, dtype=np.int64)
            found.append(TokenizedText(ids=array, pool_start=max(0, min(start, len(row) - 1))))
        return found

    def _sent(self, item: Item, role: Role) -> tuple[str, int]:
        """Return what the server receives of a text, and its `pool_start` by the contract."""
        if (item, role) not in self._texts:
            (own,) = self.tokenizer([item], role)
            if self.sends == "rendered":
                (text,) = self.tokenizer.rendered([item], role)
            else:
                text = self.tokenizer.frames[role].text_of(item)
            self._texts[item, role] = (text, own.pool_start)
        return self._texts[item, role]

    def embeddings(self, rows: Sequence[TokenizedText], rules: Rules, *, width: int) -> Tensor:
        """Return the embeddings of rows of token ids, [num_rows, width] fp32 on the CPU.

        They are not normalized: cosines do not depend on it.

        Args:
            width: of the server's embeddings; see `tail_of`.
        """
        pooling = next((r.pooling for r in rules if r.pooling is not None), self.model.pooling)
        place = self.poolings.index(pooling)
        flips = any(rule.flips_attention for rule in rules)
        bare = any(rule.without_adapter for rule in rules)
        keys = [(row.ids.tobytes(), row.pool_start, flips, bare) for row in rows]
        missing = {k: row for k, row in zip(keys, rows, strict=True) if k not in self._pooled}
        for key, row in missing.items():
            self._pooled[key] = self._computed(row, flips=flips, bare=bare)
        pooled = torch.stack([self._pooled[key][place] for key in keys])
        skips = any(rule.without_projections for rule in rules)
        return self._after(pooled, width=width, skips=skips)

    @torch.no_grad()
    def _computed(self, row: TokenizedText, *, flips: bool, bare: bool) -> list[Tensor]:
        """Return the pooled vectors of one row by each pooling."""
        model = self.model
        tokens = pack([row]).to(next(model.parameters()).device)
        is_causal = model.is_causal
        with ExitStack() as stack:
            disable: Any = getattr(model.backbone, "disable_adapter", nullcontext)
            stack.enter_context(disable() if bare else nullcontext())
            try:
                model.is_causal = is_causal != flips
                states = model.token_states(tokens).float()
            finally:
                model.is_causal = is_causal
        return [pooling(states, tokens)[0] for pooling in self.poolings]

    @torch.no_grad()
    def _after(self, pooled: Tensor, *, width: int, skips: bool) -> Tensor:
        projected: Tensor = pooled if skips else self.model.projections(pooled)
        return projected[:, :width].float().cpu()


def _cut(ids: Ids, start: Ids, end: Ids, around: Any, cut: Cut) -> Ids:
    """Return a row of ids with those around it, cut."""

    def framed(inner: Ids) -> Ids:
        row: Ids = start + inner + end if around is None else around(start, inner, end)
        return row or ids[:1]  # at least one token, as a server has

    whole = framed(ids)
    if cut.length is None or len(whole) <= cut.length:
        return whole
    excess = len(whole) - cut.length
    if not cut.keeps_specials:
        return whole[: cut.length] if cut.side == "right" else whole[excess:]
    room = max(len(ids) - excess, 0)
    return framed(ids[:room] if cut.side == "right" else ids[len(ids) - room :])
