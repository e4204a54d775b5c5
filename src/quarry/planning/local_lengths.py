"""Count sets whose data are on this machine, and tokenize a sample of their texts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.data.prompts import Prompt, joined_text
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.planning.encoding_work import (
    EncodingWork,
    Frames,
    SetLengths,
    TextFrame,
    encoding_work,
    estimated_frames,
    text_tokens,
)
from quarry.planning.prefix_tokens import prefix_tokens
from quarry.runtime.hub_access import from_cache_alone
from quarry.types import ROLES, Document, Query, Role

NUM_SAMPLED = 256
"""Texts of each role that are tokenized."""


@dataclass(frozen=True, kw_only=True)
class LocalLengths:
    """Count a set of a benchmark from its data, without the network.

    Attributes:
        tokenizer: None: it is not here, and texts are counted by their characters.
        seed: of the sample.
    """

    evaluator: Evaluator
    prompt: Prompt
    tokenizer: TextTokenizer | None
    seed: int

    @property
    def frames(self) -> Frames:
        if self.tokenizer is None:
            return estimated_frames(self.prompt)
        return {role: _measured_frame(self.tokenizer, role) for role in ROLES}

    def __call__(self, one: BenchmarkSet) -> SetLengths | str:
        """Return its lengths, or why its data cannot be read."""
        try:
            with from_cache_alone():
                data = self.evaluator.collection(one)
        except UserError as error:
            return str(error).splitlines()[0]
        query, document = self._mean(data.queries, "query"), self._mean(data.corpus, "document")
        how = (
            f"at {CHARACTERS_PER_TOKEN} characters a token"
            if self.tokenizer is None
            else "tokenized"
        )
        return SetLengths(
            num_queries=len(data.queries),
            num_documents=len(data.corpus),
            tokens_per_query=query,
            tokens_per_document=document,
            source=f"counted; up to {NUM_SAMPLED} texts of each role {how}",
        )

    def work(self, *, is_stored: bool, shares_prefix: bool) -> EncodingWork:
        """Count what the sets of the benchmark take, each by what is known of it here.

        Args:
            is_stored: see `encoding_work`.
            shares_prefix: see `prefix_tokens`; False where there is no model.
        """
        return encoding_work(
            self.evaluator.benchmark.sets,
            prompt=self.prompt,
            frames=self.frames,
            is_stored=is_stored,
            count=self,
            prefix_tokens=prefix_tokens(
                self.prompt, tokenizer=self.tokenizer, shares_prefix=shares_prefix
            ),
        )

    def _mean(self, items: Sequence[Query] | Sequence[Document], role: Role) -> float:
        number = min(NUM_SAMPLED, len(items))
        chosen = np.random.default_rng(self.seed).choice(len(items), number, replace=False)
        sample = [items[int(index)] for index in np.sort(chosen)]
        if self.tokenizer is not None:
            return statistics.fmean(len(text) for text in self.tokenizer(sample, role))
        frame = self.frames[role]
        return statistics.fmean(
            text_tokens(len(joined_text(item)), role, prompt=self.prompt, frame=frame)
            for item in sample
        )


def _measured_frame(tokenizer: TextTokenizer, role: Role) -> TextFrame:
    """Measure the frame of a prompt by an empty text, all of whose tokens belong to it."""
    frame = tokenizer.frames[role]
    rendered = tokenizer.tokenizer(frame.render(""), add_special_tokens=False)["input_ids"]
    return TextFrame(
        num_tokens=len(rendered) + len(frame.start_ids) + len(frame.end_ids),
        num_copies=frame.num_copies,
    )
