"""A run directory of somebody else is data: what its YAML names is not imported, nor called."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import pytest
import yaml

from helpers.earlier_run import Task, copied, tasks
from helpers.pickles import Bomb
from quarry.errors import UserError

Reader = Callable[[Task, Path], Any]

READERS: Mapping[str, tuple[str, str, Reader]] = {
    "rescore": (
        "config_resolved.yaml", "benchmark", lambda task, run: task(
            "eval", "task=rescore", f"run={run}"
        ),
    ),
    "resume": (
        "config.yaml", "model", lambda task, run: task("train", "task=resume", f"run={run}"),
    ),
    "export": (
        "config.yaml", "model", lambda task, run: task("train", "task=export", f"run={run}"),
    ),
}  # fmt: skip
"""What builds from a stored configuration -> its file, a node that it builds, how it is called."""

FLAG = "flag"
EVIL = "evil_module_of_a_stranger"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    with tasks(tmp_path_factory.mktemp("cache")) as call:
        yield call


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint and no model: who reads it consolidates it first."""
    run = copied(tmp_path_factory.mktemp("foreign") / "asset")
    shutil.rmtree(run / "model")
    return run


@pytest.fixture
def traps(unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of what the attacks would run: each makes `flag` in it."""
    flag = tmp_path / FLAG
    joblib.dump(Bomb(flag), tmp_path / "x.pkl")
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(flag)!r}, 'w')\n\ndef f(**_):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def poisoned(run: Path, file: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Change a YAML of the run in place; return what it was."""
    before = (run / file).read_text(encoding="utf-8")
    content = yaml.safe_load(before)
    change(content)
    (run / file).write_text(yaml.safe_dump(content), encoding="utf-8")
    return before


def refusal(
    task: Task, run: Path, traps: Path, reader: str, change: Callable[[dict[str, Any]], object]
) -> str:
    """Return the message with which a reader refuses a changed configuration; nothing has run."""
    file, _, read = READERS[reader]
    before = poisoned(run, file, change)
    try:
        with pytest.raises(UserError) as info:
            read(task, run)
    finally:
        (run / file).write_text(before, encoding="utf-8")
    assert not (traps / FLAG).exists(), "code of the stored configuration has run"
    return str(info.value)


def targets(traps: Path) -> dict[str, dict[str, Any]]:
    """Return ways to make the flag, by dotted names that lie outside or lead outside."""
    flag, touch = str(traps / FLAG), f"touch {traps / FLAG}"
    code = f"open({flag!r}, 'w')"
    return {
        "joblib.load": {"filename": str(traps / "x.pkl")},
        "quarry.runtime.entry.os.system": {"command": touch},
        "quarry.data.stdlib_code.os.system": {"command": touch},
        "quarry.training.trained_state.torch.load": {"f": flag, "weights_only": False},
        "quarry.sweep.job_process.run_process": {"command": ["touch", flag], "environment": {}},
        "quarry.models.model_spec.model_spec.__globals__": {},
        "quarry.config.instantiate.instantiate": {"config": {"_target_": "os.mkdir"}},
        "os.system": {"command": touch},
        "os.mkdir": {"path": flag},
        "builtins.exec": {"_args_": [code]},
        "builtins.eval": {"_args_": [code]},
        "builtins.open": {"file": flag, "mode": "w"},
        "subprocess.run": {"args": ["touch", flag]},
        "subprocess.Popen": {"args": ["touch", flag]},
        "runpy.run_path": {"path_name": str(traps / f"{EVIL}.py")},
        "importlib.import_module": {"name": EVIL},
        "shutil.copyfile": {"src": str(traps / "x.pkl"), "dst": flag},
        "torch.load": {"f": str(traps / "x.pkl"), "weights_only": False},
        "torch.save": {"obj": 1, "f": flag},
        "torch.optim.lr_scheduler.os.system": {"command": touch},
        "pytorch_lightning.Trainer.__init__.__globals__.os.system": {"command": touch},
        "yaml.unsafe_load": {"stream": f"!!python/object/apply:os.system ['{touch}']"},
        "logging.FileHandler": {"filename": flag},
        "functools.partial": {"_args_": [code]},
        "hydra.utils.get_method": {"path": f"{EVIL}.f"},
        "pathlib.Path.touch": {"_args_": [flag]},
        f"{EVIL}.f": {},
        f"{EVIL}.g.h": {},
        "eval": {"_args_": [code]},
        "${oc.env:HOME}": {},
    }


NAMES = list(targets(Path("/")))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_a_foreign_target_is_not_called(
    task: Task, unfinished: Path, traps: Path, reader: str, index: int
) -> None:
    target, arguments = list(targets(traps).items())[index]
    node = {"_target_": target, **arguments}
    place = READERS[reader][1]
    message = refusal(task, unfinished, traps, reader, lambda found: found.update({place: node}))
    assert READERS[reader][0] in message
    assert f"{place}._target_={target}" in message
    if target != "${oc.env:HOME}":
        assert "trusted_packages=[" in message


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """Return what puts a value at a dotted path."""

    def change(content: dict[str, Any]) -> None:
        *nodes, name = path.split(".")
        node: Any = content
        for key in nodes:
            node = node.setdefault(key, {})
        node[name] = value

    return change


LOAD = {"_target_": "joblib.load", "filename": "x.pkl"}
CARRIERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nested": (_set("model.adapter", LOAD), "model.adapter._target_=joblib.load"),
    "deeply nested": (
        _set("model.replica.texts", {"_target_": "os.system", "_partial_": True}),
        "model.replica.texts._target_=os.system",
    ),
    "partial": (_set("optimizer", {**LOAD, "_partial_": True}), "optimizer._target_=joblib.load"),
    "in a list": (_set("benchmark.sets", [[LOAD]]), "benchmark.sets.0.0._target_=joblib.load"),
    "as an argument": (
        _set("loss._args_", [LOAD]), "loss._args_.0._target_=joblib.load",
    ),
    "of a callback": (_set("callbacks.mine", LOAD), "callbacks.mine._target_=joblib.load"),
    "of a logger": (_set("logger.mine", LOAD), "logger.mine._target_=joblib.load"),
    "of a strategy": (_set("trainer.strategy", LOAD), "trainer.strategy._target_=joblib.load"),
    "of a profiler": (_set("trainer.profiler", LOAD), "trainer.profiler._target_=joblib.load"),
    "of a retriever": (_set("retriever.index", LOAD), "retriever.index._target_=joblib.load"),
    "of a baseline": (_set("baseline", LOAD), "baseline._target_=joblib.load"),
    "of a scheduler": (_set("scheduler", LOAD), "scheduler._target_=joblib.load"),
    "of the data": (_set("data.examples", LOAD), "data.examples._target_=joblib.load"),
    "of a task": (_set("task", LOAD), "task._target_=joblib.load"),
    "where nothing is built": (_set("recipe.precision", LOAD), "nothing is built there"),
    "at the top": (_set("_target_", "joblib.load"), "nothing is built there"),
    "in another place": (
        _set("model.pooling", {"_target_": "pytorch_lightning.Trainer"}),
        "no option of model.pooling names it",
    ),
    "brought by an interpolation": (
        _set("model.pooling", "${trainer}"),
        "model.pooling._target_=pytorch_lightning.Trainer",
    ),
    "brought by a resolver": (
        _set("model.pooling", "${on_gpu:${trainer},${trainer}}"),
        "model.pooling._target_=pytorch_lightning.Trainer",
    ),
    "interpolated": (_set("loss._target_", "${recipe.precision}"), "loss._target_=${recipe"),
    "made of text": (
        _set("loss", "${oc.create:{_target_:joblib.load,filename:x}}"), "the resolver oc.create",
    ),
    "decoded": (
        _set("loss", "${oc.decode:'{_target_: joblib.load}'}"), "the resolver oc.decode",
    ),
    "written in an interpolation": (
        _set("loss", "${hub_id:a,{a:{_target_:joblib.load,filename:x}}}"), "a mapping in an",
    ),
    "with a computed resolver": (_set("loss", "${oc.${seed}:a}"), "the resolver oc.${seed}"),
    "no text": (_set("loss._target_", ["joblib.load"]), "no dotted name"),
    "the model's own Python": (_set("model.trust_remote_code", True), "transformers_modules"),
    "the same, by its old name": (_set("model.has_trusted_code", True), "transformers_modules"),
    "the same, resolved later": (
        _set("model.trust_remote_code", "${oc.env:HOME}"), "transformers_modules",
    ),
    "trusted by itself": (
        lambda content: content.update(trusted_packages=["joblib"], loss=LOAD),
        "loss._target_=joblib.load",
    ),
}  # fmt: skip
"""How a target is carried -> the change, and what the message says."""


@pytest.mark.parametrize("reader", ["resume", "export"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_carrier_brings_a_foreign_target_in(
    task: Task, unfinished: Path, traps: Path, carrier: str, reader: str
) -> None:
    change, expected = CARRIERS[carrier]
    assert expected in refusal(task, unfinished, traps, reader, change)


PLACES = {
    "callbacks.last_checkpoint.path": "last.ckpt",
    "callbacks.best_model": {
        "_target_": "quarry.training.callbacks.best_model.BestModel",
        "_partial_": True,
        "folder": "papers",
    },
    "callbacks.top": {
        "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
        "dirpath": "papers",
    },
    "logger.csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "papers"},
    "logger.wandb": {
        "_target_": "quarry.training.wandb_run.WandbRun",
        "settings": {"base_url": "https://example.org"},
    },
}
"""Place -> what a stranger writes there; `papers` and paths lie outside of the run."""


@pytest.mark.parametrize("place", PLACES)
def test_a_resumed_run_writes_and_logs_nowhere_else(
    task: Task, unfinished: Path, traps: Path, place: str
) -> None:
    (traps / "papers").mkdir()
    (traps / "papers" / "thesis").touch()
    text = yaml.safe_dump(PLACES[place]).replace("papers", str(traps / "papers"))
    node = yaml.safe_load(text)
    if isinstance(node, str):
        node = str(traps / node)
    message = refusal(task, unfinished, traps, "resume", _set(place, node))
    assert f"- {place}" in message
    assert (traps / "papers" / "thesis").exists()


@pytest.mark.parametrize("value", [{"_target_": "joblib.load"}, "${oc.create:{_target_:a.b}}"])
def test_the_base_that_a_run_names_is_text(
    task: Task, tmp_path: Path, traps: Path, value: Any
) -> None:
    run = copied(tmp_path / "asset")
    if isinstance(value, dict):
        value = {**value, "filename": str(traps / "x.pkl")}
    poisoned(run, "config_resolved.yaml", _set("model.base_path", value))
    for name in ("verify", "export"):
        with pytest.raises(UserError, match="model.base_path=.*no plain text"):
            task("train" if name == "export" else "eval", f"task={name}", f"run={run}")
    assert not (traps / FLAG).exists()


def test_a_report_imports_no_foreign_retriever(task: Task, tmp_path: Path, traps: Path) -> None:
    run = copied(tmp_path / "asset")

    def evaluation(content: dict[str, Any]) -> None:
        del content["optimizer"]
        content["retriever"] = {"_target_": f"{EVIL}.f"}

    poisoned(run, "config_resolved.yaml", evaluation)
    arguments = ("eval", "task=report", f"runs=[{run}]", f"task.folder={tmp_path / 'report'}")
    with pytest.raises(UserError, match=rf"trusted_packages=\[{EVIL}\]"):
        task(*arguments)
    assert not (traps / FLAG).exists()
    with pytest.raises(UserError):  # it is no retriever, and is imported to find that out
        task(*arguments, f"trusted_packages=[{EVIL}]")
    assert (traps / FLAG).exists(), "the attack itself works"


def test_a_trusted_package_is_built_from(task: Task, tmp_path: Path, traps: Path) -> None:
    """The other side: with trust the same node is called, so the tests above can fail."""
    run = copied(tmp_path / "asset")
    node = {"_target_": "joblib.load", "filename": str(traps / "x.pkl")}
    poisoned(run, "config_resolved.yaml", lambda content: content.update(benchmark=node))
    with pytest.raises(Exception):  # noqa: B017, PT011 (what it returns is no benchmark)
        task("eval", "task=rescore", f"run={run}", "trusted_packages=[joblib]")
    assert (traps / FLAG).exists()


def test_a_trusted_name_may_not_lead_elsewhere(
    task: Task, unfinished: Path, traps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (traps / "mine_of_a_user.py").write_text("import os\n")
    node = {"_target_": "mine_of_a_user.os.mkdir", "path": str(traps / FLAG)}
    before = poisoned(unfinished, "config.yaml", lambda content: content.update(loss=node))
    try:
        with pytest.raises(UserError, match="leads to posix.mkdir, which is in no trusted package"):
            task("train", "task=resume", f"run={unfinished}", "trusted_packages=[mine_of_a_user]")
    finally:
        (unfinished / "config.yaml").write_text(before)
    assert not (traps / FLAG).exists()


@pytest.mark.parametrize(
    "text", ["- 1", "a: [", "a: !!python/object/apply:os.getcwd []", "a: b: c"]
)
def test_a_file_that_is_no_configuration_is_named(task: Task, unfinished: Path, text: str) -> None:
    before = (unfinished / "config.yaml").read_text()
    (unfinished / "config.yaml").write_text(text)
    try:
        with pytest.raises(UserError, match=r"config\.yaml"):
            task("train", "task=resume", f"run={unfinished}")
    finally:
        (unfinished / "config.yaml").write_text(before)
