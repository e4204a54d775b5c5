"""Imports go one way, the way of the data, and heavy libraries load only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "quarry"

LEVELS = [
    {"types", "errors"},
    {"distributed"},
    {"runtime"},
    {"data", "models", "losses", "metrics"},
    {"retrieval"},
    {"mining"},
    {"evaluation"},
    {"stand_ins"},
    {"training"},
    {"config"},
    {"assembly"},
    {"planning"},
    {"encoding"},
    {"search"},
    {"serving"},
    {"tasks"},
    {"sweep"},
    {"study_report"},
    {"api"},
    {"cli"},
    {"__main__"},
]
KNOW_HYDRA = {
    "api", "config", "assembly", "planning", "encoding", "tasks", "sweep", "study_report", "cli",
}  # fmt: skip
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, those inside functions, too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found.append((node.lineno, node.module or ""))
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_every_file_is_looked_at() -> None:
    assert len(FILES) >= 60
    packages = {package(path) for path in FILES} - {"__init__"}
    assert packages == set(LEVEL)


def violations(path: Path) -> Iterator[str]:
    own = package(path)
    for line, module in imported(path):
        where = f"{path.relative_to(SOURCE)}:{line} imports {module}"
        parts = module.split(".")
        if parts[0] in ("hydra", "omegaconf"):
            shows_errors = path == SOURCE / "runtime" / "entry.py"
            if own not in KNOW_HYDRA and not shows_errors:
                yield f"{where}: only {sorted(KNOW_HYDRA)} may"
        if parts[0] == "lightning":
            yield f"{where}: use pytorch_lightning, mixed classes fail isinstance"
        if parts[0] != "quarry" or len(parts) < 2 or parts[1] == own or own == "__init__":
            continue
        if LEVEL[parts[1]] >= LEVEL[own]:
            yield f"{where}: {own} stands on no higher level"


def test_imports_go_down_the_road_only() -> None:
    assert [line for path in FILES for line in violations(path)] == []


def test_an_import_up_the_road_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVEL, "data", 0)
    found = [line for path in FILES for line in violations(path) if package(path) == "data"]
    assert any(line.startswith("data/") and "stands on no higher level" in line for line in found)


def loaded_with(path: Path) -> set[str]:
    """Libraries that a file imports as soon as it is imported itself."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        todo += ast.iter_child_nodes(node)
    return found


def test_slow_libraries_load_in_functions_or_in_the_one_file_that_is_about_them() -> None:
    slow = {"wandb", "bm25s", "deepspeed", "matplotlib", "datasets", "sentence_transformers"}
    found = {str(path.relative_to(SOURCE)): slow & loaded_with(path) for path in FILES}
    assert {file: names for file, names in found.items() if names} == {
        "retrieval/export/framed_transformer.py": {"sentence_transformers"},
    }


def test_training_and_encoding_do_not_load_what_they_do_not_use() -> None:
    code = (
        "import sys, quarry.training.module, quarry.retrieval.encoder, quarry.data.datamodule\n"
        "slow = {'wandb', 'bm25s', 'deepspeed', 'datasets', 'hydra', 'omegaconf', 'pytrec_eval',\n"
        "        'sentence_transformers'}\n"
        "heavy = slow & set(sys.modules)  # matplotlib is loaded by Lightning's torchmetrics\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_refused_run_loads_neither_lightning_nor_transformers(tmp_path: Path) -> None:
    """A run that is none, and a stored configuration that chooses code."""
    run = tmp_path / "foreign"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    for name in ("config.yaml", "config_resolved.yaml"):
        (run / name).write_text("loss:\n  _target_: os.system\n")
    code = (
        "import sys\n"
        "from quarry.cli import eval, train\n"
        "for program in (train, train, eval):\n"
        "    for run in ('nowhere', 'foreign'):\n"
        "        task = TASKS[run].pop(0)\n"
        "        sys.argv = ['x', f'task={task}', f'run={run}']\n"
        "        try:\n"
        "            program.main()\n"
        "        except SystemExit as end:\n"
        "            assert end.code == 2\n"
        "slow = {'pytorch_lightning', 'transformers', 'peft', 'pyarrow', 'pandas'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    tasks = {name: ["resume", "export", "rescore"] for name in ("nowhere", "foreign")}
    ended = subprocess.run(
        [sys.executable, "-c", f"TASKS = {tasks}\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ended.stdout.strip() == "[]"
    assert ended.stderr.count("Error: run=nowhere") == 3
    assert ended.stderr.count("loss._target_=os.system") == 3


def test_a_refused_command_loads_neither_lightning_nor_transformers(tmp_path: Path) -> None:
    """All that is wrong stands in one message, before the task and its libraries are imported."""
    code = (
        "import sys\n"
        "from quarry.cli.train import main\n"
        "sys.argv = ['train.py', 'trainer.max_steps=-5', '+loss.temprature=1', 'optimizer.lr=-1',\n"
        "    '+trainer.max_step=5', 'trainer.min_steps=1',\n"
        "    'callbacks.last_checkpoint.every_n_steps=x', 'hydra.run.dir=run']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2\n"
        "slow = {'pytorch_lightning', 'transformers', 'peft', 'pyarrow', 'pandas'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ended.stdout.strip() == "[]"
    for key in (
        "trainer.max_steps=-5",
        "trainer.max_step: ",
        "loss.temprature",
        "optimizer.lr=-1",
        "every_n_steps='x'",
    ):
        assert key in ended.stderr
    assert list(tmp_path.iterdir()) == []
