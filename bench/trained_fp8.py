"""Format scores and cosines of fp8 and bf16 on trained weights, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from study_rows import FP8_TRAINED, STUDY

Content = Mapping[str, Any]

MEASURE = "ndcg_at_10"
HEAD = """
### fp8 on trained weights

The speeds above are of random weights, whose embeddings say nothing of what fp8 costs. Their
cosines to bf16 go down to 0.78. These numbers are of trained weights, with
`model.linear_precision=fp8 evaluation.compare_dtype=bf16`.

| model | set | nDCG@10 fp8 / bf16 | difference | cosine, mean / smallest | source |
| --- | --- | --- | --- | --- | --- |
"""


def trained_fp8(content: Content) -> str:
    """Return the section, from the study's row and from `trained_fp8` in the JSON."""
    rows = [*_measured(content), *content.get("trained_fp8", [])]
    return HEAD + "".join(map(_line, rows)) if rows else ""


def _measured(content: Content) -> Iterator[Content]:
    """Yield a row for each set of the study's part."""
    part = content["parts"].get(STUDY, {}).get(FP8_TRAINED, {"not_run": ""})
    if "not_run" in part:
        return
    for agreement in part["agreement"]:
        key = f"{agreement['name']}/{MEASURE}"
        other = next(value for name, value in part["beside"].items() if name.endswith(f"/{key}"))
        yield {
            "model": part["model"],
            "set": agreement["name"],
            MEASURE: part["results"][key],
            f"{MEASURE}_bf16": other,
            "mean_cosine": agreement["mean"],
            "smallest_cosine": agreement["smallest"],
            "source": f"{part['device']}, {part['date']}, commit {(part['commit'] or '?')[:12]}",
        }


def _line(row: Content) -> str:
    ours, other = row[MEASURE], row[f"{MEASURE}_bf16"]
    cells = (
        row["model"],
        row["set"],
        f"{ours:.4f} / {other:.4f}",
        f"{ours - other:+.4f}",
        f"{row['mean_cosine']:.3f} / {row['smallest_cosine']:.3f}",
        row["source"],
    )
    return f"| {' | '.join(cells)} |\n"
