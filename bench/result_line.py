"""Hand over results from one process to another, without loading torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = "RESULT "
"""What a line begins with that a measurement hands over results in; later lines add to earlier."""

Result = dict[str, Any]


def hand_over(result: Result) -> None:
    print(RESULT + json.dumps(result), flush=True)


def results_in(output: str) -> Result:
    """Return what all result lines say together, {} if there is none."""
    found: Result = {}
    for line in output.splitlines():
        if line.startswith(RESULT):
            found |= json.loads(line.removeprefix(RESULT))
    return found


def num_matrix_weights(folder: Path) -> int:
    """Return N of a Qwen2 folder: the weights of its linear layers, each one product a token."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    share = config["num_key_value_heads"] / heads
    attention = 2 * hidden * hidden * (1 + share)
    return int(config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"]))
