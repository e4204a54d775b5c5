"""Blocks of pairs: equal ones once, stored ones not again, nothing that is not finite."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.rerankers import PAIRS, classifier_folder, pairs_of
from quarry.errors import UserError
from quarry.retrieval.rerankers import pair_scorer
from quarry.retrieval.rerankers.pair_scorer import PairScorer, activated
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("reranker"), "qwen2")


def scorer_of(folder: Path, cache_dir: Path | None = None, **more: object) -> PairScorer:
    settings: dict[str, object] = {"cache_dir": None if cache_dir is None else str(cache_dir)}
    return RerankerSpec(path=str(folder), **(settings | more)).load(key="reranker")  # type: ignore[arg-type]


def counted(scorer: PairScorer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    forward = scorer._packed
    monkeypatch.setattr(
        scorer, "_packed", lambda texts: (sizes.append(len(texts)), forward(texts))[1]
    )
    return sizes


def test_equal_pairs_are_scored_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(folder)
    sizes = counted(scorer, monkeypatch)
    found = scorer.score(PAIRS, label="pairs")
    assert sum(sizes) == found.num_unique == 6
    assert found.scores[0] == found.scores[3]


def test_scores_do_not_depend_on_where_query_and_document_meet(folder: Path) -> None:
    found = scorer_of(folder).score(pairs_of(("ab", "c"), ("a", "bc")), label="pairs")
    assert found.num_unique == 2
    assert found.scores[0] != found.scores[1]


def test_a_killed_pass_continues_with_the_bits_of_an_uninterrupted_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_scorer, "NUM_PAIRS_PER_BLOCK", 2)
    wanted = scorer_of(folder).score(PAIRS, label="pairs").scores
    killed = scorer_of(folder, tmp_path)
    forward = killed._packed
    num_calls = 0

    def dies(texts: list[pair_scorer.TokenizedPair]) -> torch.Tensor:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            raise KeyboardInterrupt
        return forward(texts)

    monkeypatch.setattr(killed, "_packed", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.score(PAIRS, label="pairs")
    again = scorer_of(folder, tmp_path)
    sizes = counted(again, monkeypatch)
    np.testing.assert_array_equal(again.score(PAIRS, label="pairs").scores, wanted)
    assert sum(sizes) == 2  # two of three blocks were stored
    again.score(PAIRS, label="pairs")
    assert sum(sizes) == 2


def test_a_damaged_block_is_scored_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = scorer_of(folder, tmp_path)
    wanted = first.score(PAIRS, label="pairs").scores
    assert first.cache is not None
    (block,) = first.cache.folder.glob("*.npy")
    block.write_bytes(block.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        found = scorer_of(folder, tmp_path).score(PAIRS, label="pairs").scores
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(found, wanted)


def test_other_settings_have_other_blocks(folder: Path, tmp_path: Path) -> None:
    plain = scorer_of(folder, tmp_path)
    short = scorer_of(folder, tmp_path, max_length=32)
    other = scorer_of(folder, tmp_path, activation="sigmoid")
    assert plain.cache is not None
    assert short.cache is not None
    assert other.cache is not None
    assert plain.cache.folder != short.cache.folder
    assert plain.cache.folder == other.cache.folder  # logits are stored


def test_long_pairs_are_cut_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = scorer_of(folder, max_length=16).score(PAIRS, label="pairs")
    assert found.num_cut == 2
    assert "2 of 6 pairs" in caplog.text


def test_a_score_that_is_not_finite_is_refused_and_not_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = scorer_of(folder, tmp_path)
    monkeypatch.setattr(scorer, "_packed", lambda texts: torch.full((len(texts),), torch.nan))
    with pytest.raises(UserError, match=r"'q0'.*'d0'"):
        scorer.score(PAIRS, label="pairs")
    assert scorer.cache is not None
    assert list(scorer.cache.folder.glob("*.npy")) == []


def test_no_pairs_have_no_scores(folder: Path) -> None:
    assert scorer_of(folder).score([], label="pairs").scores.shape == (0,)


def test_activations_keep_far_logits_apart_except_the_sigmoid() -> None:
    logits = np.array([-200, 0, 20, 30], dtype=np.float32)
    assert len(set(activated(logits, "log_sigmoid").tolist())) == 4
    np.testing.assert_allclose(activated(logits, "log_sigmoid")[1], -0.693147, atol=1e-6)
    np.testing.assert_allclose(activated(logits, "sigmoid"), [0, 0.5, 1, 1], atol=1e-6)
