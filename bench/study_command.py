"""Run the study's own commands as a user types them, and report them."""

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
"""Keys whose stored values are the choices of `auto`."""

ALLOCATOR = "PYTORCH_ALLOC_CONF"


def study_command(
    script: str, *arguments: str, model: Path, run: Path, limit_gib: float | None = None
) -> list[str]:
    """Return the command that a user types, with a model folder and output folders.

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

    Other folders are shown by their names only.
    """
    text = " ".join(["python", *command[1:]])
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(work), "WORK")
    return re.sub(r"=/\S*/(?=\S)", "=", text)


def run_command(command: Sequence[str], *, work: Path, run: Path) -> None:
    """Run the command; report it and the choices of `auto`, even if it fails.

    The command can import the callbacks of this folder. Other measurements set the allocator for
    all sides alike; a user's command does not, so this one does not either.
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
