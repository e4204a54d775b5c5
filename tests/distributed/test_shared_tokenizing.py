"""Ranks tokenize a share each; batches, bits and what a killed run leaves are those of one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.preloaded import PreloadedPython
from helpers.processes import run_processes
from helpers.shared_tokenizing import (
    NUM_STORED,
    encode_stored,
    fail_to_tokenize,
    tokenize_all,
)
from quarry.retrieval.store.journal import PATTERN, read_journals

WORKER = Path(__file__).parent / "tokenizing_worker.py"


def run(
    python: PreloadedPython, mode: str, folder: Path, *, num_ranks: int, timeout_s: float = 100
) -> list[Any]:
    """What each rank found; of ranks that die nothing."""
    run_processes(python, WORKER, mode, str(folder), num_processes=num_ranks, timeout_s=timeout_s)
    files = [folder / f"{mode} {rank}.pt" for rank in range(num_ranks)]
    return [torch.load(file) for file in files if file.exists()]


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return tokenize_all()


@pytest.fixture(scope="module", params=[2, 3])
def together(
    request: pytest.FixtureRequest,
    preloaded_python: PreloadedPython,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("together")
    return run(preloaded_python, "tokenize", folder, num_ranks=request.param)


def test_each_text_is_tokenized_by_one_rank(
    alone: dict[str, dict[str, Any]], together: list[dict[str, dict[str, Any]]]
) -> None:
    for name, expected in alone.items():
        seen = [document for found in together for document in found[name]["seen"]]
        assert sorted(seen) == sorted(expected["seen"]), name
        assert len(seen) == len(set(seen)), name


@pytest.mark.parametrize("name", ["shuffled", "sorted", "longest first"])
def test_shares_are_equal_in_texts_and_in_tokens(
    name: str, together: list[dict[str, dict[str, Any]]]
) -> None:
    for kind in ("plain", "in step"):
        shares = [found[f"{kind} {name}"] for found in together]
        num_texts = [len(share["seen"]) for share in shares]
        # a window divides into pieces of equal size, up to a text each
        assert max(num_texts) - min(num_texts) <= 20
        num_tokens = [share["num_tokens"] for share in shares]
        assert max(num_tokens) < 1.1 * min(num_tokens), num_tokens


def test_embeddings_are_those_of_one_rank_to_the_bit(
    alone: dict[str, dict[str, Any]], together: list[dict[str, dict[str, Any]]]
) -> None:
    for found in together:
        for name, expected in alone.items():
            assert torch.equal(found[name]["embeddings"], expected["embeddings"]), name


def test_batches_are_those_of_one_rank(
    alone: dict[str, dict[str, Any]], together: list[dict[str, dict[str, Any]]]
) -> None:
    for name, expected in alone.items():
        passes = [size for found in together for size in found[name]["passes"]]
        num_idle = len(passes) - len(expected["passes"])
        if not name.startswith("plain"):
            counts = {len(found[name]["passes"]) for found in together}
            assert len(counts) == 1, name
            assert 0 <= num_idle < len(together), name
        # an idle pass has one token
        assert sorted(passes) == sorted([1] * num_idle + expected["passes"]), name


def test_a_text_that_cannot_be_tokenized_ends_all_ranks_alike(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    assert fail_to_tokenize() == "UserError: 'cannot be tokenized' has no tokens"
    errors = run(preloaded_python, "fail", tmp_path, num_ranks=3)
    assert errors == ["SharedError: 'cannot be tokenized' has no tokens"] * 3


def test_a_rank_that_fails_alone_ends_and_the_others_notice(
    preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    """It does not wait for tokens of the others, nor they for its own until a timeout of 60 s."""
    run(preloaded_python, "one fails", tmp_path, num_ranks=2, timeout_s=40)
    assert [torch.load(tmp_path / f"failed {rank}.pt") for rank in range(2)] == [False, True]


@pytest.mark.parametrize(("num_before", "num_after"), [(2, 1), (1, 2), (2, 3)])
def test_a_killed_run_continues_on_another_number_of_ranks(
    num_before: int, num_after: int, preloaded_python: PreloadedPython, tmp_path: Path
) -> None:
    expected = encode_stored(tmp_path / "unbroken")
    run(preloaded_python, "die", tmp_path, num_ranks=num_before)
    finished = set(starts(tmp_path / "store"))
    assert 5 < len(finished) < len(expected["starts"]) - 5
    after = run(preloaded_python, "store", tmp_path, num_ranks=num_after)
    encoded = [start for found in after for start in found["starts"]]
    assert len(encoded) == len(set(encoded))
    assert set(encoded) == set(expected["starts"]) - finished
    assert sorted(starts(tmp_path / "store")) == sorted(expected["starts"])
    for found in after:
        assert torch.equal(found["embeddings"], expected["embeddings"])
    # windows that are done are not tokenized, others by one rank each text
    seen = [document for found in after for document in found["seen"]]
    assert len(seen) == len(set(seen)) < NUM_STORED


def starts(store: Path) -> list[int]:
    """Of the finished batches of all ranks."""
    segments = {path.parent for path in store.glob(f"*/*/{PATTERN}")}
    return [batch.start for segment in segments for batch in read_journals(segment)]
