"""Tables of what `two_gpus.py` has found, in Markdown.

python bench/two_gpus_table.py bench/results/two_gpus.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_gpus_jobs import LORA_STRATEGIES

WANTED = 1.85
"""Times the rate of one GPU, for LoRA with as much work a GPU."""

Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A timed training on two GPUs beside one on one.

    Attributes:
        what: may name `{large}` and `{small}`, the models.
        wanted: that the ratio should reach.
    """

    what: str
    two: str
    one: str | None = None
    wanted: float | None = None


ROWS = (
    Row(what="{large} LoRA, `ddp`", two="lora_ddp", one="lora_one", wanted=WANTED),
    Row(what="{large} LoRA, `zero2`", two="lora_zero2", one="lora_one", wanted=WANTED),
    Row(what="{large} LoRA, `ddp`, the same batch", two="lora_ddp_same_batch", one="lora_one"),
    Row(what="{large} LoRA, `zero2`, the same batch", two="lora_zero2_same_batch", one="lora_one"),
    Row(what="{large} all weights, `zero3`, checkpointing", two="full_large"),
    Row(what="{small} all weights, `zero3`", two="full_small", one="full_small_one"),
)


def tables(content: Content) -> str:
    """Speed, then survival, then agreement, then where it was measured."""
    scale = content["scale"]
    speed = [_speed(row, content) for row in ROWS]
    head = ["training", "queries an update, 1 / 2 GPUs", "tokens/s on 1", "on 2", "times"]
    parts = [_table([*head, "wanted", "peak GiB a GPU, 1 / 2"], speed)]
    survived = [_survived(name, content, scale) for name in scale["survivors"]]
    head = ["killed and resumed on 2 GPUs", "updates after", "largest difference of a loss"]
    parts.append(_table([*head, "saved model", "nDCG@10 whole / resumed"], survived))
    agreed = [
        _agreed(name, content, scale) for name in LORA_STRATEGIES if name in scale["survivors"]
    ]
    head = ["one GPU and two, the same updates", "largest difference of a loss"]
    parts.append(_table([*head, "nDCG@10 on 1 / 2"], agreed))
    return "\n".join(parts) + "\n" + "".join(map(_machine, content["runs"]))


def _speed(row: Row, content: Content) -> list[str]:
    two = _job(content, row.two)
    one = _job(content, row.one) if row.one is not None else {"not_run": "does not fit"}
    cells = [row.what.format(**content["scale"])]
    cells.append(f"{one.get('num_queries', '')} / {two.get('num_queries', '')}")
    cells += [_rate(one), _rate(two)]
    if "not_run" in one or "not_run" in two:
        cells.append("")
    else:
        ratio = two["tokens_per_s"] / one["tokens_per_s"]
        is_judged = row.wanted is not None
        text = f"{ratio:.2f}"
        cells.append(
            text if not is_judged else f"**{text}**" if ratio >= (row.wanted or 0) else f"{text} ✗"
        )
    cells.append("" if row.wanted is None else f"≥ {row.wanted:g}")
    peaks = [f"{job['peak_gib']:.1f}" if "peak_gib" in job else "" for job in (one, two)]
    return [*cells, " / ".join(peaks)]


def _rate(job: Content) -> str:
    return f"{job['tokens_per_s']:,.0f}" if "not_run" not in job else f"not run: {job['not_run']}"


def _survived(name: str, content: Content, scale: Content) -> list[str]:
    cells = [_what(name, scale)]
    found = content["survival"].get(name)
    if found is None:
        jobs = (_job(content, f"{name}_{which}") for which in ("whole", "killed", "resumed"))
        reasons = [job["not_run"] for job in jobs if "not_run" in job]
        return [*cells, f"not run: {'; '.join(reasons[:1])}", "", "", ""]
    same = "the same bits"
    loss, weight = found["largest_loss_difference"], found["largest_weight_difference"]
    scores = f"{_scores(found['scores'])} / {_scores(found['scores_resumed'])}"
    return [
        *cells,
        f"{found['num_updates_gone_on']} of {found['num_updates']}",
        "0" if loss == 0 else f"{loss:.2g}",
        same if found["is_model_equal"] else f"off by {weight:.2g} at most",
        scores,
    ]


def _agreed(name: str, content: Content, scale: Content) -> list[str]:
    found = content["agreement"].get(name)
    if found is None:
        return [_what(name, scale), "not run", ""]
    scores = f"{_scores(found['scores_one'])} / {_scores(found['scores_two'])}"
    return [_what(name, scale), f"{found['largest_loss_difference']:.2g} of it", scores]


def _what(name: str, scale: Content) -> str:
    model = f"{scale['small']} all weights" if name == "zero3" else f"{scale['large']} LoRA"
    return f"{model}, `{name}`"


def _scores(points: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{value:.4f}" for _, value in points)


def _job(content: Content, name: str) -> Content:
    found: Content = content["jobs"].get(name, {"not_run": "not measured"})
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _machine(run: Content) -> str:
    names = ("torch", "transformers", "peft", "pytorch-lightning", "deepspeed")
    versions = [f"{name} {run['packages'][name]}" for name in names if run["packages"].get(name)]
    where = f"{run['num_gpus']} x {run['device']}" if run["has_gpu"] else run["device"]
    commit = (run["git"] or {}).get("commit", "unknown")[:12]
    return (
        f"- {run['date']}, `{run['command']}`, {where}, CUDA {run['cuda'] or 'none'}, "
        f"Python {run['python']}, {', '.join(versions)}; commit {commit}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("result", type=Path)
    print(tables(json.loads(parser.parse_args().result.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
