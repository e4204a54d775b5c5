"""Run the study's own commands as a user types them, and say what was run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from result_line import Result, hand_over
from train_ours import BENCH, ROOT

CHOSEN = ("model.gradient_checkpointing", "data.grad_cache_chunk_tokens", "model.compile")
"""Keys whose stored values say what `auto` chose."""

ALLOCATOR = "PYTORCH_ALLOC_CONF"


def study_command(
    script: str, *arguments: str, model: Path, run: Path, limit_gib: float | None = None
) -> list[str]:
    """Return the command: what a user types, a model folder, and where its output goes.

    Args:
        script: train.py or eval.py.
        limit_gib: of the GPU's memory; None: all of it.
    """
    limited = [] if limit_gib is None else [str(BENCH / "limited.py"), f"{limit_gib:g}"]
    return [
        sys.executable, *limited, str(ROOT / script), *arguments, f"model.path={model}",
        "logger=csv", f"hydra.run.dir={run}", f"paths.cache_dir={run.parent / 'cache'}",
    ]  # fmt: skip


def shown(command: Sequence[str], work: Path) -> str:
    """Return the command as a user would type it in the checkout, its files in WORK.

    Other folders are shown by their names alone.
    """
    text = " ".join(["python", *command[1:]])
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(work), "WORK")
    return re.sub(r"=/\S*/(?=\S)", "=", text)


def run_command(command: Sequence[str], *, work: Path, run: Path) -> None:
    """Run it and hand over the command and what `auto` chose, also where it fails.

    It finds the callbacks of this folder. Measurements set the allocator for all sides alike; a
    user's command does not, so neither does this one.
    """
    hand_over({"command": shown(command, work)})
    path = [str(BENCH), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    environment.pop(ALLOCATOR, None)
    ended = subprocess.run(command, check=False, env=environment, stdin=subprocess.DEVNULL)
    hand_over({"chosen": chosen(run)})
    if ended.returncode:
        sys.exit(ended.returncode)


def chosen(run: Path) -> Result:
    """Return the stored values of `CHOSEN`; {} where the run stored no configuration."""
    file = run / "config.yaml"
    if not file.exists():
        return {}
    config = OmegaConf.load(file)
    return {key: OmegaConf.select(config, key) for key in CHOSEN}
