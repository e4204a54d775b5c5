"""The package outside a checkout: wheel and sdist, a new environment, commands in an empty folder.

Installs required dependencies alone, so it also shows what a command does without an extra.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.commands import ROOT, SMALL, Result, quiet_environment
from helpers.distributions import built, missing_in_sdist, missing_in_wheel

pytestmark = [pytest.mark.package, pytest.mark.timeout(1800)]

FEW = (
    *(override for override in SMALL if not override.startswith("benchmark.")),
    *("logger=csv", "evaluation.every_n_steps=0", "benchmark=none"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel, sdist = built(tmp_path_factory.mktemp("dist"))
    assert missing_in_wheel(wheel) == []
    assert missing_in_sdist(sdist) == []
    return wheel


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commands of an environment with the wheel, the pinned versions and the CPU build of torch."""
    version = str(torch.__version__)
    if not version.endswith("+cpu"):
        pytest.skip(f"torch {version} here: the CPU build is not installed beside it")
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    # without PYTHONPATH, below which pip may find this checkout and take it for installed
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"DS_BUILD_OPS": "0"}
    first = subprocess.run(
        [*pip, f"torch=={version}"], env=environment, capture_output=True, text=True, check=False
    )
    if first.returncode:
        pytest.skip(f"torch {version} cannot be had here: {first.stderr.strip()[-200:]}")
    pins = tmp_path_factory.mktemp("pins") / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins.write_text("\n".join(line for line in lines if not line.startswith("torch==")))
    subprocess.run(
        [*pip, "--constraint", str(pins), f"torch=={version}", str(wheel)],
        env=environment,
        check=True,
    )
    return home / "bin"


@pytest.fixture(scope="module")
def run(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """Runs a command of that environment in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    environment = quiet_environment(folder)
    environment.pop("PYTHONPATH", None)  # the wheel, not this checkout

    def run(*words: str) -> Result:
        command, *arguments = words
        process = subprocess.run(
            [str(binaries / command), *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Result(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="module")
def trained(run: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    result = run("quarry-train", *SMALL, "trainer.max_steps=5", f"hydra.run.dir={folder}")
    assert result.code == 0, result.err
    assert result.last_line.startswith("nDCG@10 ")
    assert "No plots: drawing needs matplotlib" in result.err
    assert (folder / "report.md").is_file()
    assert not (folder / "plots").exists()
    return folder


def test_help(run: Callable[..., Result]) -> None:
    result = run("python", "-m", "quarry", "--help")
    assert result.code == 0, result.err
    assert "studies" in result.out
    result = run("quarry-train", "--help")
    assert result.code == 0, result.err
    assert "qwen-coder" in result.out


def test_what_was_trained_is_evaluated(run: Callable[..., Result], trained: Path) -> None:
    result = run("quarry-eval", f"model.path={trained}", "benchmark.split=dev")
    assert result.code == 0, result.err
    assert result.last_line.startswith("nDCG@10 ")


def test_messages_name_commands_of_the_installation(
    run: Callable[..., Result], trained: Path
) -> None:
    result = run("quarry-train", *FEW, f"hydra.run.dir={trained}")
    assert result.code == 2
    assert f"quarry-train task=resume run={trained}" in result.err
    result = run("quarry-train", "task=export", f"run={trained}")
    assert result.code == 2
    assert result.err.strip().splitlines()[-1] == (
        "Error: task=export needs sentence-transformers. "
        "Fix: pip install 'quarry-retrieval[export]'"
    )
    result = run("python", "-m", "quarry", "studies")
    assert "python -m quarry train study=tiny " in result.out


def test_a_sweep_starts_its_jobs(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run(
        "quarry-train", "--multirun", *FEW, "trainer.max_steps=1", "seed=1,2",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.last_line == "study finished=2 failed=0 interrupted=0 queued=0"


def test_a_module_starts_its_other_ranks(run: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    result = run(
        "python", "-m", "quarry", "train", *FEW, "trainer.max_steps=1", "trainer.devices=2",
        "trainer.accelerator=cpu", "strategy=ddp", f"hydra.run.dir={folder}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (folder / "model" / "quarry_contract.json").is_file()


def test_configurations_of_the_user_are_found(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    result = run(
        "quarry-train", "--config-dir", str(tmp_path), "experiment=mine", "--cfg", "job",
        "--package", "seed",
    )  # fmt: skip
    assert (result.code, result.out.strip()) == (0, "7"), result.err
