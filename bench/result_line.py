"""Pass results from one process to another, without loading torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = "RESULT "
"""Prefix of a measurement's result lines; later lines add to earlier ones."""

Result = dict[str, Any]


def hand_over(result: Result) -> None:
    print(RESULT + json.dumps(result), flush=True)


def results_in(output: str) -> Result:
    """Return the merged results of all result lines, {} if there are none."""
    found: Result = {}
    for line in output.splitlines():
        if line.startswith(RESULT):
            found |= json.loads(line.removeprefix(RESULT))
    return found


def num_matrix_weights(folder: Path) -> int:
    """Return the number of weights in the linear layers of a Qwen2 folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    share = config["num_key_value_heads"] / heads
    attention = 2 * hidden * hidden * (1 + share)
    return int(config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"]))
