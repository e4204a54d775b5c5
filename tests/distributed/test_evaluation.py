"""Two and three processes rank as one does, to the bit, each with its share of the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.preloaded import PreloadedPython
from helpers.processes import run_processes
from helpers.shared_evaluation import KINDS, evaluate

WORKER = Path(__file__).parent / "evaluation_worker.py"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(tmp_path_factory.mktemp("alone") / "store")


@pytest.fixture(scope="module", params=[2, 3])
def together(
    request: pytest.FixtureRequest,
    preloaded_python: PreloadedPython,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    run_processes(preloaded_python, WORKER, str(folder), num_processes=request.param, timeout_s=150)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def test_rankings_are_those_of_one_process_in_every_process(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    for found in together:
        assert found["runs"].keys() == alone["runs"].keys()
        for name, run in alone["runs"].items():
            assert found["runs"][name] == run, name  # scores, too, to the bit
            ranked = {query: list(scores) for query, scores in run.items()}
            theirs = {query: list(scores) for query, scores in found["runs"][name].items()}
            assert theirs == ranked, name  # ties in the same order


def test_shares_on_disk_rank_as_those_in_memory(together: list[dict[str, Any]]) -> None:
    for found in together:
        for name in ("many", "two", "one"):
            assert found["runs"][f"dense on disk {name}"] == found["runs"][f"dense in step {name}"]


def test_no_text_is_encoded_twice_and_shares_have_about_as_many_tokens(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    for kind in ("unique", "stored"):
        tokens = [found["tokens"][kind] for found in together]
        assert sum(tokens) == alone["tokens"][kind]
        assert sum(found["passes"][kind] for found in together) == alone["passes"][kind]
        assert min(tokens) > 0.8 * max(tokens)


def test_where_weights_are_in_shards_all_run_as_many_passes(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    counts = {found["passes"]["in step"] for found in together}
    assert len(counts) == 1
    num_real = alone["passes"]["in step"]
    # of six calls each may end with idle passes for all but one process
    assert num_real <= counts.pop() * len(together) <= num_real + 6 * (len(together) - 1)


def test_there_is_something_to_compare(alone: dict[str, Any]) -> None:
    assert set(alone["passes"]) == set(KINDS)
    scores = [run.values() for run in alone["runs"]["dense unique many"].values()]
    assert all(len(found) == 10 for found in scores)
    assert any(len(set(found)) < 10 for found in scores)  # ties
    assert alone["runs"]["dense unique two"]["q0"].keys() == {"d0", "d1"}
