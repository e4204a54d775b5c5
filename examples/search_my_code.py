"""Search a code base by meaning: split, encode and index its files, then ask.

    python examples/search_my_code.py OUT_DIR
    python examples/search_my_code.py OUT_DIR --source MY_PROJECT --model MODEL 'where are locks?'

Without arguments it indexes Quarry's own source, by a model that it trains in a minute on two
cores. That model is so small that words help it: the search is hybrid. It needs no download.
"""

# ruff: noqa: T201 (its output is its result)

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "quarry"
TINY = (
    "model=qwen-tiny",
    "model.replica.hidden_size=64",
    "model.replica.intermediate_size=64",
    "model.replica.vocab_size=2048",
    "trainer.max_steps=30",
    "benchmark=none",
    "logger=none",
)
QUERIES = (
    "merge the best documents of several shards",
    "write a file so that a killed process leaves the old or the new one",
)


def python(*arguments: str) -> None:
    """Run a script or module of the checkout; end this one if it fails."""
    print("$", "python", *arguments, flush=True)
    code = subprocess.run([sys.executable, *arguments], check=False, cwd=ROOT).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Train if there is no model, index, search; all that it writes is below OUT_DIR."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("out", type=Path)
    arguments.add_argument("queries", nargs="*", default=QUERIES)
    arguments.add_argument("--source", type=Path, default=SOURCE, help="folder with the code")
    arguments.add_argument("--model", help="run, model folder or hub id; else one is trained")
    given = arguments.parse_intermixed_args()
    out = given.out.absolute()
    index, model = out / "index", given.model or str(out / "run")
    if given.model is None and not (out / "run").exists():
        python("train.py", *TINY, f"hydra.run.dir={model}")
    if not (index / "manifest.json").exists():  # a killed build leaves the folder
        # a model of one's own keeps its length
        lengths = ("prompt.max_document_length=256",) if given.model is None else ()
        python(
            "eval.py", "task=index", f"model.path={model}", *lengths,
            f"task.corpus={given.source.absolute()}", "task.kind=texts", f"task.output={index}",
            "task.bm25=code", "task.splitter.size=1000",
        )  # fmt: skip
    for query in given.queries:
        python("-m", "quarry", "search", str(index), query, "--hybrid", "--table", "-k", "3")


if __name__ == "__main__":
    main()
