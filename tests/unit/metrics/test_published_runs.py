"""nDCG@10 of real runs of TREC DL 2019 and TREC-COVID, as others publish it."""

import gzip
from pathlib import Path

import pytest

from quarry.metrics.run_files import read_run, read_trec_qrels
from quarry.metrics.trec import evaluate_run, mean_scores
from quarry.types import Qrels, Run

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "trec_runs"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the TREC runs are not beside the repository (shared/data)"
)


def ndcg_at_10(qrels: Qrels, run: Run) -> str:
    scores = mean_scores(evaluate_run(qrels=qrels, run=run, measures=["nDCG@10"]))
    return f"{scores['nDCG@10']:.4f}"


@pytest.mark.parametrize(
    ("track", "system", "num_queries", "published"),
    [
        ("dl19", "BM25", 43, "0.5058"),
        ("dl19", "BM25_RM3", 43, "0.5216"),
        ("dl19", "D_BERT_KD_TASB", 43, "0.7210"),
        ("dl19", "OPEN_AI_ADA2", 43, "0.7035"),
        ("dl19", "SPLADE_P_P_ENSEMBLE_DISTIL", 43, "0.7308"),
        ("dl19", "REP_LLAMA", 43, "0.7384"),
        ("covid", "BM25", 50, "0.5947"),
        ("covid", "BM25_RM3", 50, "0.5927"),
        ("covid", "SPLADE_P_P_ENSEMBLE_DISTIL", 50, "0.7274"),
    ],
)
def test_published_ndcg_at_10(track: str, system: str, num_queries: int, published: str) -> None:
    qrels = read_trec_qrels(FOLDER / f"{track}.qrels")
    run = read_run(FOLDER / f"{track}.{system}.trec.gz")
    assert len(qrels) == num_queries
    assert qrels.keys() == run.keys()
    assert ndcg_at_10(qrels, run) == published


def test_the_rank_column_of_rounded_scores_would_give_another_number() -> None:
    by_rank: Run = {}
    with gzip.open(FOLDER / "dl19.REP_LLAMA.trec.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            query_id, _, document_id, position, _, _ = line.split()
            by_rank.setdefault(query_id, {})[document_id] = -float(position)
    assert ndcg_at_10(read_trec_qrels(FOLDER / "dl19.qrels"), by_rank) == "0.7439"
