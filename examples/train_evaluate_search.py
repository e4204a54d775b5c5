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


def search(run: Path, corpus: Path, *, top_k: int) -> None:
    """Print the best documents of a corpus for each query, by the model of a run."""
    import quarry

    lines = map(json.loads, corpus.read_text(encoding="utf-8").splitlines())
    documents = [quarry.Document(document_id=line["id"], text=line["text"]) for line in lines]
    found = quarry.load(run, device="cpu").search(QUERIES, documents, top_k=top_k)
    for query, hits in zip(QUERIES, found, strict=True):
        print(query)
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.document.document_id}")


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
    search(run, data / "test" / "corpus.jsonl", top_k=3)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python examples/train_evaluate_search.py OUT_DIR")
    main(Path(sys.argv[1]).absolute())
