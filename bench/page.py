"""Writes docs/performance.md from docs/performance.json, which holds results of `run.py`.

    python bench/page.py                                         (part of make docs)
    python bench/page.py bench/results/FILE.json ... [--profile TITLE=FILE.md ...]

With files, those become docs/performance.json first, whatever was there; each `--profile` adds, or
replaces, a table of `profile_training.py` or `profile_encoding.py` under its title.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quarry.runtime.files import write_json, write_text
from table import Content, details, table

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, SOURCE = DOCS / "performance.md", DOCS / "performance.json"
PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "sentence-transformers")

HEAD = """# Performance

Made by `make docs` from `docs/performance.json`: do not edit. `make bench` measures, and
`python bench/page.py bench/results/FILE.json ...` takes its results over.

"""

METHOD = """
How to read it:

- Models have the shapes of Qwen2.5 and random weights, texts the lengths of MS MARCO: queries of 11
  tokens on average and at most 30, passages of 78 and at most 154, each before its end token. Both
  sides read the same folder and files.
- Only real tokens count, never padding. Useful work is 2N FLOP a token to encode, 4N to train LoRA
  (r 16, seven projections, dropout 0); recomputation is not counted. N is the number of weights in
  linear layers: 6.525e9 in the 7B, 0.358e9 in the 0.5B.
- Training is `train.py` as it is, and sentence-transformers' own trainer with
  MultipleNegativesRankingLoss. All time between updates counts, data and loggers included; the rate
  is the median of windows of steps, after a warm-up that holds all compilation.
- Encoding is from texts, tokenisation included; the rate is the median of passes over all of them.
- Peak memory is the most that tensors took at one time after the warm-up: ours / the reference's.
- Bold is reached, ✗ is not; † the two sides come from different runs.
"""

DETAILS = """
## Every part

Rates of the slowest and fastest window or pass; what came before them, compilation included; the
smallest cosine to what the first part of that size had computed from the same texts.

"""


def page(content: Content) -> str:
    """The page: a function of the JSON alone."""
    text = HEAD + table(content) + METHOD
    if not content["runs"]:
        return text
    text += "\n## Runs\n\n" + "".join(map(_run, runs_in_use(content)))
    text += DETAILS + details(content)
    profiles: dict[str, str] = content.get("profiles", {})
    if profiles:
        text += "\n## Where the time goes\n"
    for title, shares in profiles.items():
        text += f"\n### {title}\n\n{shares}"
    return text


def joined(results: Sequence[Content]) -> Content:
    """Several results as one: of a part that ran more than once, the last counts."""
    runs: list[Any] = []
    parts: dict[str, dict[str, Any]] = {}
    for result in results:
        for measurement, new in result["parts"].items():
            known = parts.setdefault(measurement, {})
            for name, part in new.items():
                if name not in known or "not_run" not in part:
                    known[name] = {**part, "run": part["run"] + len(runs)}
        runs += result["runs"]
    return {"scale": results[-1]["scale"], "runs": runs, "parts": parts}


def runs_in_use(content: Content) -> list[dict[str, Any]]:
    """Those that a part of the table comes from."""
    used = {part["run"] for parts in content["parts"].values() for part in parts.values()}
    return [run for number, run in enumerate(content["runs"]) if number in used]


def _run(run: dict[str, Any]) -> str:
    versions = [f"{name} {run['packages'][name]}" for name in PACKAGES if run["packages"].get(name)]
    where = f"{run['device']}, {run['memory_gib']:.0f} GiB" if run["has_gpu"] else run["device"]
    commit = (run["git"] or {}).get("commit", "unknown")[:12]
    size, rate = run["matrix_size"], f"{run['matrix_flop_per_s'] / 1e12:,.4g} TFLOP/s"
    return (
        f"- {run['date']}, `{run['command']}`, on {where}: {size}^3 in bf16 at {rate}; "
        f"commit {commit}, Python {run['python']}, CUDA {run['cuda'] or 'none'}, "
        f"{', '.join(versions)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="*", help="of run.py")
    parser.add_argument("--profile", action="append", default=[], help="TITLE=FILE, several times")
    arguments = parser.parse_args()
    content: dict[str, Any] = json.loads(SOURCE.read_text(encoding="utf-8"))
    if arguments.results:
        texts = [path.read_text(encoding="utf-8") for path in arguments.results]
        content.update(joined([json.loads(text) for text in texts]))
    for profile in arguments.profile:
        title, _, file = profile.partition("=")
        shares = Path(file).read_text(encoding="utf-8")
        content.setdefault("profiles", {})[title] = shares.strip() + "\n"
    write_json(SOURCE, content)
    write_text(PAGE, page(json.loads(SOURCE.read_text(encoding="utf-8"))))  # in the file's order


if __name__ == "__main__":
    main()
