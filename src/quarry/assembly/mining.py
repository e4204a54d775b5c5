"""Build a mining job: read all texts, and make what ranks candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from quarry.assembly.loaded_encoder import LoadedEncoder
from quarry.config.instantiate import build
from quarry.config.mining_source import GivenSource
from quarry.data.train_examples import ExampleSource
from quarry.mining.bm25_candidates import BM25Candidates
from quarry.mining.candidate_source import CandidateSource
from quarry.mining.dense_candidates import DenseCandidates
from quarry.mining.mining_job import MiningJob
from quarry.mining.mining_texts import MiningTexts, read_mining_texts
from quarry.mining.negative_choice import NegativeChoice
from quarry.mining.run_candidates import RunCandidates, passages_of_examples
from quarry.mining.teacher_candidates import TeacherCandidates
from quarry.types import Content, Document

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MiningInputs:
    """What a mining job reads.

    Attributes:
        examples: the training set.
        documents: passages to search; None: those of the training set.
        loaded: the model; None: candidates need none.
    """

    examples: ExampleSource
    documents: Sequence[Document] | None
    loaded: LoadedEncoder | None


def build_mining(
    config: DictConfig,
    source: GivenSource,
    inputs: MiningInputs,
    choice: NegativeChoice,
    *,
    keep_queries: bool = False,
) -> MiningJob:
    """Read all texts once, and encode or index them where they are searched.

    Raises:
        UserError: there is nothing to search, or a run file or scores do not fit the data.
    """
    texts = read_mining_texts(inputs.examples, corpus=inputs.documents)
    logger.info("%d queries, %d different passages to search", len(texts), texts.num_searched)
    candidates = _candidates(config, source, inputs, texts)
    return MiningJob(texts=texts, source=candidates, choice=choice, keep_queries=keep_queries)


def _candidates(
    config: DictConfig, source: GivenSource, inputs: MiningInputs, texts: MiningTexts
) -> CandidateSource:
    examples, documents = inputs.examples, inputs.documents
    if source.use_scores:
        return TeacherCandidates(examples=examples, texts=texts)
    if source.run_file is not None:
        return RunCandidates(
            path=Path(source.run_file).expanduser(),
            texts=texts,
            documents=passages_of_examples(examples) if documents is None else documents,
            places=texts.places if documents is None else texts.corpus_places,
        )
    retriever = build(config.retriever)
    if inputs.loaded is None:
        content: Content = "code" if source.content == "code" else "text"
        return BM25Candidates(texts=texts, retriever=retriever, content=content)
    encoder = inputs.loaded.stored(config)
    return DenseCandidates(texts=texts, encoder=encoder, index=retriever.index)
