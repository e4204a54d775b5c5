"""Train a tiny retriever, evaluate it beside BM25, and search with it: under a minute on two cores.

    python examples/train_evaluate_search.py OUT_DIR

It needs no download. Its model is so small that its results are poor: docs/quickstart.md has the
same steps with a better one.
"""

# ruff: noqa: T201 (its output is its result)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "model=qwen-tiny",
    "model.replica.hidden_size=64",
    "model.replica.intermediate_size=64",
    "model.replica.vocab_size=2048",
    "trainer.max_steps=30",
)
QUERIES = ("Return the median of the data.", "Quote a string for use in a URL.")


def python(script: str, *arguments: str) -> None:
    """Run a script of the checkout; end this one if it fails."""
    print("$", "python", script, *arguments, flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *arguments], check=False).returncode
    if code:
        sys.exit(code)


def search(model: Path, corpus: Path, *, top_k: int) -> None:
    """Print the best documents of a corpus for each query, by the exported model."""
    from sentence_transformers import SentenceTransformer

    documents = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    retriever = SentenceTransformer(str(model), device="cpu")
    embeddings = retriever.encode_document([document["text"] for document in documents])
    similarities = retriever.similarity(retriever.encode_query(list(QUERIES)), embeddings)
    for query, row in zip(QUERIES, similarities, strict=True):
        values, places = row.topk(top_k)
        print(query)
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            print(f"  {value:.3f}  {documents[place]['id']}")


def main(out: Path) -> None:
    """Run the steps; all that they write is below `out`, but for Quarry's cache."""
    data, run = out / "data", out / "run"
    test = ("benchmark=folder", f"benchmark.path={data / 'test'}", "benchmark.content=code")
    python("examples/write_my_data.py", str(data))
    python(
        "train.py", *TINY, "data=file", f"data.path={data / 'train.jsonl'}", "benchmark=none",
        "logger=none", f"hydra.run.dir={run}",
    )  # fmt: skip
    python(
        "eval.py", f"model.path={run}", "baseline=bm25", *test, "evaluation.store=false",
        "logger=none", f"hydra.run.dir={out / 'evaluation'}",
    )  # fmt: skip
    python("train.py", "task=export", f"run={run}")
    search(run / "export", data / "test" / "corpus.jsonl", top_k=3)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python examples/train_evaluate_search.py OUT_DIR")
    main(Path(sys.argv[1]).absolute())
