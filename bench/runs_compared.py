"""Compare two runs that should agree: the loss of each step, scores, and the saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Content = dict[str, Any]


def survival(uninterrupted: Path, resumed: Path, *, first: int) -> Content:
    """Compare an uninterrupted run with one that was killed and resumed after step `first`.

    Raises:
        ValueError: they have different steps or tensors.
    """
    one, two = (_losses(run) for run in (uninterrupted, resumed))
    if one.keys() != two.keys():
        raise ValueError(f"optimizer steps differ: {sorted(one)} and {sorted(two)}")
    after = [step for step in one if step > first]
    mined, mined_again = map(_minings, (uninterrupted, resumed))
    if mined != mined_again or (mined and min(mined) > first):
        raise ValueError(f"negatives were mined after steps {mined} and {mined_again}")
    return {
        "num_updates": len(one),
        "num_updates_gone_on": len(after),
        "negatives_mined_after": mined,
        "largest_loss_difference": max(abs(one[step] - two[step]) for step in after),
        "scores": evaluations(uninterrupted),
        "scores_resumed": evaluations(resumed),
        **_weights_compared(uninterrupted / "model", resumed / "model"),
    }


def agreement(one: Path, two: Path) -> Content:
    """Compare the same training on one and on two ranks: relative differences of the losses."""
    ours, theirs = _losses(one), _losses(two)
    differences = [abs(theirs[step] - loss) / abs(loss) for step, loss in ours.items()]
    return {
        "largest_loss_difference": max(differences),
        "scores_one": evaluations(one),
        "scores_two": evaluations(two),
    }


def evaluations(run: Path) -> list[list[float]]:
    """Return (step, main measure) of each evaluation, in order."""
    found: list[list[float]] = _curve(run)["evaluations"]
    return found


def _minings(run: Path) -> list[int]:
    """Return the optimizer steps after which negatives were mined; [] without that callback."""
    path = run / "refreshed_negatives.json"
    if not path.exists():
        return []
    return [each["step"] for each in json.loads(path.read_text(encoding="utf-8"))["minings"]]


def _losses(run: Path) -> dict[int, float]:
    return {int(step): float(loss) for step, loss in _curve(run)["losses"]}


def _curve(run: Path) -> Content:
    curve: Content = json.loads((run / "learning_curve.json").read_text(encoding="utf-8"))
    return curve


def _weights_compared(one: Path, two: Path) -> Content:
    """Compare all tensors of two folders, shard by shard."""
    names = sorted(path.name for path in one.glob("*model*.safetensors"))
    if not names or names != sorted(path.name for path in two.glob("*model*.safetensors")):
        raise ValueError(f"{one} and {two} hold other files")
    differences: list[float] = []
    is_equal = True
    for name in names:
        ours, theirs = load_file(one / name), load_file(two / name)
        if ours.keys() != theirs.keys():
            raise ValueError(f"{one / name} and {two / name} hold other tensors")
        for key, tensor in ours.items():
            is_equal &= torch.equal(tensor, theirs[key])
            differences.append(_largest_difference(tensor, theirs[key]))
    return {
        "num_tensors": len(differences),
        "is_model_equal": is_equal,
        "largest_weight_difference": max(differences),
    }


def _largest_difference(one: Tensor, two: Tensor) -> float:
    return float((one.float() - two.float()).abs().max())
