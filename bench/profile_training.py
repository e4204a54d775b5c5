"""Where the time of a training step goes: a profile of `train.py` on one GPU, as a table.

    python bench/profile_training.py [--size 7B] [--num-queries 8] [KEY=VALUE ...]

Each kernel counts for what its name says that it is; where none runs, the GPU waits.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from random_model import SIZES, write_model
from texts import write_texts
from train_ours import run_training, training_command

KINDS = {
    "attention": r"flash|fmha|attention|varlen",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|scaled_mm|splitk|_mm_",
    "optimiser and clipping": r"adam|multi_tensor|foreach|lpnorm",
    "copies": r"memcpy|memset|copy",
    "compiled element-wise": r"triton",
}
"""The first whose pattern stands in a kernel's name; the others are element-wise, not compiled."""

OTHER = "other element-wise, reductions, indexing"
WAITING = "none: the GPU waits"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
NUM_NAMES = 12

Event = Mapping[str, Any]


def kind_of(name: str) -> str:
    for kind, pattern in KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return OTHER


def times_by(events: Iterable[Event], *, is_by_name: bool = False) -> dict[str, float]:
    """Microseconds of each kind (or name), from the most to the least."""
    times: dict[str, float] = {}
    for event in events:
        key = event["name"] if is_by_name else kind_of(event["name"])
        times[key] = times.get(key, 0.0) + event["dur"]
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def waiting(events: Iterable[Event]) -> float:
    """Microseconds between the first and the last event in which nothing runs."""
    idle, end = 0.0, None
    for event in sorted(events, key=lambda event: float(event["ts"])):
        if end is not None:
            idle += max(0.0, event["ts"] - end)
        end = max(end or 0.0, event["ts"] + event["dur"])
    return idle


def profile_table(events: list[Event], *, num_steps: int) -> str:
    """Shares by kind, then the kernels that take most."""
    times = times_by(events) | {WAITING: waiting(events)}
    whole = sum(times.values())
    lines = ["| what | share | ms a step |\n", "| --- | --- | --- |\n"]
    lines += [_line(kind, time, whole, num_steps) for kind, time in times.items()]
    lines += ["\n| kernel | share | ms a step |\n", "| --- | --- | --- |\n"]
    by_name = list(times_by(events, is_by_name=True).items())[:NUM_NAMES]
    lines += [_line(f"`{name[:90]}`", time, whole, num_steps) for name, time in by_name]
    return "".join(lines)


def _line(what: str, time: float, whole: float, num_steps: int) -> str:
    return f"| {what} | {time / whole:.1%} | {time / 1000 / num_steps:.2f} |\n"


def read_trace(path: Path) -> list[Event]:
    """What ran on the GPU."""
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [event for event in events if event.get("cat") in ON_GPU and "dur" in event]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="7B")
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--work", type=Path, help="as in run.py, whose model and texts it takes")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("Error: the profile is one of kernels, and there is no CUDA device here.")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="quarry-bench-"))
    model, texts = work / f"model_{arguments.size}", work / "texts"
    if not (model / "config.json").exists():
        write_model(model, arguments.size)
    if not (texts / "train.jsonl").exists():
        num_words = min(151_000, SIZES[arguments.size]["vocab_size"] // 2)
        write_texts(texts, num_examples=512, num_documents=1, num_words=num_words)
    run = Path(tempfile.mkdtemp(prefix="profile_", dir=work)) / "run"
    trace = run.parent / "trace.json"
    settings = {"path": trace, "num_warm_up": 8, "num_steps": arguments.num_steps}
    overrides = [
        "model.compile=true",
        "data.num_workers=2",
        "+callbacks.profiler._target_=lightning_profiler.LightningProfiler",
        *(f"+callbacks.profiler.{key}={value}" for key, value in settings.items()),
        *arguments.overrides,
    ]
    command = training_command(
        model=model,
        texts=texts,
        run=run,
        num_queries=arguments.num_queries,
        overrides=overrides,
    )
    run_training(command)
    print(profile_table(read_trace(trace), num_steps=arguments.num_steps))


if __name__ == "__main__":
    main()
