"""Write docs/performance.md and the README's Speed table from docs/performance.json.

    python bench/page.py                                         (part of make docs)
    python bench/page.py --add bench/results/FILE.json ... [--profile TITLE=FILE.md ...]
    python bench/page.py bench/results/FILE.json ...

The JSON holds results of `run.py` and `study.py`. Files first replace
docs/performance.json, or with --add only the parts that they measured. Each `--profile` adds, or
replaces, a table of `profile_training.py` or `profile_encoding.py` under its title.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoding_table import encoding_table
from part_rules import replaces
from quarry.runtime.files import write_json, write_text
from readme_table import with_table
from study_table import study_table
from table import Content, details, table
from trained_fp8 import trained_fp8

ROOT = Path(__file__).resolve().parents[1]
DOCS, README = ROOT / "docs", ROOT / "README.md"
PAGE, SOURCE = DOCS / "performance.md", DOCS / "performance.json"
PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "sentence-transformers")

HEAD = """# Performance

Made by `make docs` from `docs/performance.json`: do not edit. `make bench-study` and `make bench`
measure. `python bench/page.py --add bench/results/FILE.json ...` adds their results.

## The study's own commands

`bench/study.py` measures two commands: `python train.py experiment=sft_msmarco
model=qwen-instruct` and `python eval.py experiment=zero_shot`. An optimizer step is 128 queries in
four contrastive batches of 32 x 16. The 7B has LoRA of r 32 with dropout 0.1.

"""

STUDY_METHOD = """
- Weights are random, in the shapes of Qwen2.5-7B. Texts are of real tokens: queries of 11 tokens on
  average, passages of 78, and the prompt around them.
- The commands are those a user types, with folders for model, data and output, a clock, and the
  settings that the row states.
- `model.compile=true` is set in all training rows but one: `auto` compiles for a complete run, and
  would not for so few steps.
- The rate is the median of three optimizer steps after one that is warm-up, compilation included.
- GiB are the most that tensors took, and that the allocator reserved, after the warm-up.
- In the call of `loss=kl_distillation` InfoNCE made 19,358 tokens/s: other losses train as fast.
- `bench/limited.py` sets limits of memory before anything loads. The choice of `auto` is read from
  the stored configuration.
- Bold is reached, ✗ is not; † the two sides come from different calls.
- sentence-transformers trains with the same LoRA, prompts and temperature. A contrastive batch is
  its optimizer step. CachedMultipleNegativesRankingLoss takes 32 x 16,
  MultipleNegativesRankingLoss 8 x 16. Ratios are to the faster one with 32 x 16.
"""

ENCODING_METHOD = """
- Passages have 78 tokens on average before the prompt or the end token is added. The prompt is
  `prompt=promptreps`, with the chat template of Qwen2.5 or Qwen2.5-Instruct. All tokens count, the
  shared prefix included.
- The ways of encoding alternate in one process, on one model with compiled layers. The rate is the
  median of five passes. Training alternates optimizer steps in the same way, three of each.
- sentence-transformers reads the same strings, which give the same tokens, in bf16.
"""

LARGE_SEARCH = """
## Search at the size of mining

`python bench/large_search.py` compares MS MARCO's 491,007 training queries with all 8,841,823
passages: exact search of random unit vectors of 3,584 float16 numbers, from the host's memory.

- One H200, torch 2.11.0, 2026-11-30, commit 9f0f444: **70.0 s** for the top 200 of every query
  (wanted: 180 s). That is 444 TFLOP/s, data transfer and selection included, in 7.4 GiB.
- 1,000 sampled queries were searched again by brute force, over all passages at once. In fp64, 271
  of 200,000 places differ, in fp32 475; one query has another document in its 200. No score
  differs by more than 7.9e-7: sums in another order swap documents that are nearer than that.
- Queries were held on the GPU. Copying them again with each chunk of documents takes as long (5.5 s
  and 5.7 s for 524,288 documents), so search does that and needs no memory for them.
"""

COMPARED = """
## Side by side

"""

METHOD = """
How to read it:

- Models have the shapes of Qwen2.5 and random weights, texts the lengths of MS MARCO. Queries have
  11 tokens on average and at most 30, passages 78 and at most 154, each before its end token. Both
  sides read the same folder and files.
- Only real tokens count, never padding. Useful work is 2N FLOP a token to encode, 4N to train LoRA
  (r 16, seven projections, dropout 0). Recomputation is not counted. N is the number of weights in
  linear layers: 6.525e9 in the 7B, 0.358e9 in the 0.5B.
- Training is `train.py` as it is, and sentence-transformers' own trainer with
  MultipleNegativesRankingLoss. All time between optimizer steps counts, data and loggers included.
  The rate is the median of windows of steps, after a warm-up that holds all compilation.
- Encoding is from texts, tokenization included. The rate is the median of passes over all of them.
- Peak memory is the most that tensors took at one time after the warm-up: ours / the reference's.
- Bold is reached, ✗ is not; † the two sides come from different runs.
"""

RUNS = """
## Runs

| date | command | on | matrix product | commit | versions |
| --- | --- | --- | --- | --- | --- |
"""

DETAILS = """
## Every part

The rates are the median one, and those of the slowest and fastest window or pass. The warm-up
includes compilation. The cosine is the smallest one to what the first part of that size had
computed from the same texts.

"""


def page(content: Content) -> str:
    """Return the page, from the JSON alone."""
    text = HEAD + study_table(content) + STUDY_METHOD + encoding_table(content)
    text += ENCODING_METHOD + trained_fp8(content)
    text += LARGE_SEARCH + COMPARED + table(content) + METHOD
    if not content["runs"]:
        return text
    text += RUNS + "".join(map(_run, runs_in_use(content)))
    text += DETAILS + details(content)
    profiles: dict[str, str] = content.get("profiles", {})
    if profiles:
        text += "\n## Where the time goes\n"
    for title, shares in profiles.items():
        text += f"\n### {title}\n\n{shares}"
    return text


def joined(results: Sequence[Content]) -> Content:
    """Join several results; the last result of a part counts."""
    runs: list[Any] = []
    parts: dict[str, dict[str, Any]] = {}
    for result in results:
        for measurement, new in result["parts"].items():
            known = parts.setdefault(measurement, {})
            for name, part in new.items():
                if replaces(part, known.get(name)):
                    known[name] = {**part, "run": part["run"] + len(runs)}
        runs += result["runs"]
    return {"scale": results[-1]["scale"], "runs": runs, "parts": parts}


def runs_in_use(content: Content) -> list[dict[str, Any]]:
    """Return the runs that a part of the table comes from."""
    used = {part["run"] for parts in content["parts"].values() for part in parts.values()}
    return [run for number, run in enumerate(content["runs"]) if number in used]


def _run(run: dict[str, Any]) -> str:
    versions = [f"{name} {run['packages'][name]}" for name in PACKAGES if run["packages"].get(name)]
    where = f"{run['device']}, {run['memory_gib']:.0f} GiB" if run["has_gpu"] else run["device"]
    commit = (run["git"] or {}).get("commit", "unknown")[:12]
    size, rate = run["matrix_size"], f"{run['matrix_flop_per_s'] / 1e12:,.4g} TFLOP/s"
    cells = (
        run["date"],
        f"`{run['command']}`",
        where,
        f"{size}^3 in bf16 at {rate}",
        commit,
        f"Python {run['python']}, CUDA {run['cuda'] or 'none'}, {', '.join(versions)}",
    )
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="*", help="of run.py or study.py")
    parser.add_argument("--add", action="store_true", help="keep what the results do not have")
    parser.add_argument("--profile", action="append", default=[], help="TITLE=FILE, several times")
    arguments = parser.parse_args()
    content: dict[str, Any] = json.loads(SOURCE.read_text(encoding="utf-8"))
    if arguments.results:
        texts = [path.read_text(encoding="utf-8") for path in arguments.results]
        known = [content] if arguments.add else []
        content.update(joined([*known, *(json.loads(text) for text in texts)]))
    for profile in arguments.profile:
        title, _, file = profile.partition("=")
        shares = Path(file).read_text(encoding="utf-8")
        content.setdefault("profiles", {})[title] = shares.strip() + "\n"
    write_json(SOURCE, content)
    content = json.loads(SOURCE.read_text(encoding="utf-8"))  # in the file's order
    write_text(PAGE, page(content))
    write_text(README, with_table(README.read_text(encoding="utf-8"), content))


if __name__ == "__main__":
    main()
