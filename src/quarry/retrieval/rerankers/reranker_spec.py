"""Describe a reranker in a configuration: where it is, how pairs are fed to it, how it scores."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quarry.data.pair_tokenization import QWEN3, PairFrame, PairTokenizer
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_digest, weights_fingerprint
from quarry.models.backbones.huggingface import load_tokenizer, model_input_names
from quarry.models.dtypes import DTYPES
from quarry.models.limits import check_vocabulary, num_positions
from quarry.models.memory import check_fits, memory_need
from quarry.models.model_downloads import reranker_hub_files
from quarry.models.rerankers.reranker_files import (
    ACTIVATIONS,
    Activation,
    RerankerFacts,
    reranker_facts,
)
from quarry.models.rerankers.reranker_models import load_reranker, usual_dtype
from quarry.retrieval.rerankers.pair_scorer import PairScorer
from quarry.retrieval.rerankers.score_cache import FOLDER, ScoreCache
from quarry.runtime.hub_files import HubFiles

logger = logging.getLogger(__name__)

SCORING_VERSION = 2
"""Raise it when a code change alters scores: it is part of the cache's key."""

MAX_LENGTH = 512
"""Tokens of a pair if no other number is given and the model has positions for them."""

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class RerankerSpec:
    """A reranker: a sequence classifier, or a language model that answers yes or no.

    Attributes:
        path: a folder or hub id.
        revision: of a hub id: branch, tag or commit.
        kind: classifier, yes_no, or auto: by the architecture in config.json.
        max_length: tokens of a pair; None: `MAX_LENGTH`, or the model's positions if fewer.
        max_tokens_per_batch: tokens in one forward pass.
        activation: identity: the logit; sigmoid; log_sigmoid; auto: what sentence-transformers'
            files name, else log_sigmoid of yes_no (the logarithm of the probability of yes) and
            identity of a classifier.
        dtype: of the weights; auto: bfloat16 for decoders on a GPU, else float32.
        frame: the pair as one text, by the arguments of `PairFrame`; None: as the tokenizer joins
            two sequences, and for yes_no `QWEN3`.
        instruction: of the frame; None: the frame's own.
        yes_token, no_token: the tokens whose logits are compared.
        cache_dir: folder that caches logits; None: no cache.
    """

    path: str | None = None
    revision: str | None = None
    kind: str = AUTO
    max_length: int | None = None
    max_tokens_per_batch: int = 16_384
    activation: str = AUTO
    dtype: str = AUTO
    frame: Mapping[str, str] | None = None
    instruction: str | None = None
    yes_token: str = "yes"
    no_token: str = "no"
    cache_dir: str | None = None

    def check(self, *, key: str) -> RerankerFacts:
        """Refuse what is no reranker, and settings that cannot work, before weights are read.

        Args:
            key: of this node in the configuration.

        Raises:
            UserError: with the key.
        """
        for name, known in (("activation", ACTIVATIONS), ("dtype", tuple(DTYPES))):
            value = getattr(self, name)
            if value != AUTO and value not in known:
                raise UserError(
                    f"{key}.{name}={value}: unknown ({', '.join((AUTO, *known))}). "
                    f"Fix: {key}.{name}=auto"
                )
        facts = reranker_facts(self.path, revision=self.revision, kind=self.kind, key=key)
        frame = self._frame(facts, key=key)
        if self.instruction is not None and (frame is None or "{instruction}" not in frame.body):
            raise UserError(
                f"{key}.instruction={self.instruction!r}: has no effect, for the pair has no place "
                f"for it. Fix: leave it out, or {key}.frame.body with {{instruction}}"
            )
        self._length(facts, key=key)
        dtype = self._dtype(facts)
        need = memory_need(facts.config, dtype=dtype)
        check_fits(need, facts.source, dtype=dtype, on_cpu=False, remedies=lambda share: {})
        return facts

    def load(self, *, key: str, device: torch.device | None = None) -> PairScorer:
        """Check and load the reranker; a collective operation where there are several ranks.

        Args:
            key: of this node in the configuration.
            device: None: a GPU if there is one.

        Raises:
            UserError: as `check`; a weight of its head is missing; a token is unknown.
        """
        facts = self.check(key=key)
        tokenizer = load_tokenizer(facts.source, revision=self.revision)
        tokenizer.model_input_names = model_input_names(
            facts.source, facts.config, revision=self.revision
        )
        check_vocabulary(facts.config, tokenizer, source=facts.source)
        model = load_reranker(
            facts, tokenizer=tokenizer, dtype=self._dtype(facts), revision=self.revision,
            yes_token=self.yes_token, no_token=self.no_token, key=key,
        )  # fmt: skip
        pairs = PairTokenizer(
            tokenizer=tokenizer,
            max_length=self._length(facts, key=key),
            frame=self._frame(facts, key=key),
            # a chat has its own; a classifier was trained on what the tokenizer makes of a text
            add_special_tokens=facts.kind == "classifier",
            key=key,
        )
        about = self._description(facts, pairs, dtype=next(iter(model.parameters())).dtype)
        scorer = PairScorer(
            model=model.to(device or torch.device("cuda" if torch.cuda.is_available() else "cpu")),
            tokenizer=pairs,
            activation=self._activation(facts),
            max_tokens_per_batch=self.max_tokens_per_batch,
            cache=self._cache(about, pairs),
            description=about,
        )
        logger.info(
            "Reranker %s: %s, %s, pairs of up to %d tokens, %s",
            facts.source, facts.kind, type(model).__name__, pairs.max_length, scorer.activation,
        )  # fmt: skip
        return scorer

    def hub_files(self) -> tuple[HubFiles, ...]:
        """Return what `load` reads from the hub."""
        return () if self.path is None else reranker_hub_files(self.path, revision=self.revision)

    def _dtype(self, facts: RerankerFacts) -> torch.dtype:
        return usual_dtype(facts) if self.dtype == AUTO else DTYPES[self.dtype]

    def _frame(self, facts: RerankerFacts, *, key: str) -> PairFrame | None:
        frame = QWEN3 if facts.kind == "yes_no" else None
        if self.frame is not None:
            frame = PairFrame.of(self.frame, key=f"{key}.frame")
        if frame is None or self.instruction is None:
            return frame
        return replace(frame, instruction=self.instruction)

    def _activation(self, facts: RerankerFacts) -> Activation:
        if self.activation != AUTO:
            return self.activation  # type: ignore[return-value]
        return facts.activation or ("log_sigmoid" if facts.kind == "yes_no" else "identity")

    def _length(self, facts: RerankerFacts, *, key: str) -> int:
        table = num_positions(facts.config)
        if self.max_length is None:
            return MAX_LENGTH if table is None else min(MAX_LENGTH, table)
        if table is not None and self.max_length > table:
            raise UserError(
                f"{key}.max_length={self.max_length}: {facts.source} has positions for {table} "
                f"tokens (config.json). Fix: {key}.max_length={table}"
            )
        return self.max_length

    def _description(
        self, facts: RerankerFacts, pairs: PairTokenizer, *, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Return what the reranker is and how it scores, with all that was left to its files."""
        frame = pairs.frame
        return {
            "path": facts.source,
            "commit": getattr(facts.config, "_commit_hash", None),
            "weights": world.first_does(functools.partial(self._weights, facts)),
            "kind": facts.kind,
            "activation": self._activation(facts),
            "dtype": str(dtype).removeprefix("torch."),
            "max_length": pairs.max_length,
            "frame": None if frame is None else dataclasses.asdict(frame),
            "words": [self.yes_token, self.no_token] if facts.kind == "yes_no" else [],
        }

    def _weights(self, facts: RerankerFacts) -> str:
        """Return the kind of a hash of the weights and its digits; all are read for a cache."""
        if self.cache_dir is None:
            return f"sampled:{weights_fingerprint(facts.source, revision=self.revision)}"
        memo = Path(self.cache_dir).expanduser() / FOLDER / "weights"
        return f"full:{weights_digest(facts.source, revision=self.revision, memo=memo)}"

    def _cache(self, about: dict[str, Any], pairs: PairTokenizer) -> ScoreCache | None:
        if self.cache_dir is None:
            return None
        identity = {
            "version": SCORING_VERSION,
            **{name: about[name] for name in ("weights", "kind", "dtype", "words")},
            "tokenizer": pairs.digest(),
            "max_tokens_per_batch": self.max_tokens_per_batch,
        }
        return ScoreCache(self.cache_dir, identity=identity, model=about["path"])
