"""What `auto` stands for in a run: chosen once, for all ranks, stored, and held against later."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.plans import GIB, setup
from quarry.config.instantiate import build
from quarry.config.memory_rules import memory_violations
from quarry.config.stored import read_stored_config
from quarry.distributed import world
from quarry.errors import UserError
from quarry.models.model_spec import ModelSpec
from quarry.planning.inputs import asked_choice
from quarry.planning.memory_fit import OPEN, thriftiest, with_choice
from quarry.planning.plan_task import plan
from quarry.planning.step_fit import KEYS, RECORD, StepFit, choose_anew
from quarry.planning.step_memory import step_memory
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.training.memory_choice import MemoryChoice

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SEVEN = ("model=qwen-coder", "data=msmarco", "benchmark=none")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture
def _numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is that of `helpers.plans`: nothing is read for it."""
    monkeypatch.setattr(StepFit, "_setup", lambda self: setup())


Free = Callable[[float], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets what is free on the GPU of this rank, in GiB."""

    def set_free(gib: float) -> None:
        monkeypatch.setattr(
            "quarry.planning.step_fit.free_device_bytes", lambda device: int(gib * GIB)
        )

    return set_free


@dataclass
class Recorded:
    """A logger that, as those of Lightning do, replaces a section that it gets again."""

    config: dict[str, Any] = field(default_factory=dict)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.config.update(params)


def started(folder: Path, **stated: Any) -> RunDirectory:
    """The files that are there when a run's ranks meet, with the keys that matter here.

    Args:
        stated: values in place of `auto`.
    """
    memory = {name.split(".")[1]: stated.get(name.split(".")[1], "auto") for name in KEYS}
    checkpointing, chunk = memory.values()
    return written(
        RunDirectory(folder),
        OmegaConf.create(
            {
                "model": {"gradient_checkpointing": checkpointing, "dtype": "${dtype}"},
                "data": {"grad_cache_chunk_tokens": chunk, "num_workers": 0},
                "trainer": {"strategy": None},
                "dtype": "bfloat16",
            }
        ),
    )


def written(run: RunDirectory, config: DictConfig) -> RunDirectory:
    run.path.mkdir(exist_ok=True)
    OmegaConf.save(config, run.config)
    OmegaConf.save(config, run.resolved_config, resolve=True)
    write_json(run.provenance, {"options": {"model": "qwen-tiny"}})
    return run


def without(run: RunDirectory, *keys: str) -> RunDirectory:
    """As a version wrote it, or with a model, that does not have these keys."""
    config = read_stored_config(run.config, trusted=())
    for key in keys:
        section, name = key.split(".")
        del config[section][name]
    return written(run, config)


def fit_of(run: RunDirectory) -> StepFit:
    """Of a run that is started, or resumed, with its stored configuration."""
    spec: Any = SimpleNamespace(gradient_checkpointing="auto")
    return StepFit(read_stored_config(run.config, trusted=()), run, spec)


def values(config: DictConfig) -> list[Any]:
    return [OmegaConf.select(config, key) for key in KEYS]


def record_of(run: RunDirectory) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(run.provenance.read_text(encoding="utf-8")).get(
        RECORD
    )
    return found


def files(run: RunDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir()}


def checkpointed(run: RunDirectory) -> RunDirectory:
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    return run


@pytest.mark.usefixtures("_numbers")
def test_the_choice_is_in_all_that_reads_it(
    free: Free, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = started(tmp_path)
    step_fit = fit_of(run)
    before: Any = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    loggers = [Recorded(dict(before)), Recorded(dict(before))]
    free(60)
    with caplog.at_level(logging.INFO):
        choice = step_fit(CUDA, loggers)  # type: ignore[arg-type]
    assert choice.gradient_checkpointing == "selective"
    assert choice.grad_cache_chunk_tokens is not None
    expected = [choice.gradient_checkpointing, choice.grad_cache_chunk_tokens]
    assert values(step_fit.config) == expected
    assert "${" in run.config.read_text(encoding="utf-8"), "interpolations stay"
    assert "${" not in run.resolved_config.read_text(encoding="utf-8")
    for path in (run.config, run.resolved_config):
        assert values(read_stored_config(path, trusted=())) == expected
    record = record_of(run)
    assert record is not None
    assert record["overrides"] == list(choice.overrides)
    assert record["open_keys"] == list(KEYS)
    assert record["free_bytes"] == 60 * GIB
    assert record["estimated_bytes"] <= 0.92 * 60 * GIB
    assert json.loads(run.provenance.read_text())["options"] == {"model": "qwen-tiny"}
    after = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    assert [each.config for each in loggers] == [after, after], "no section has lost a key"
    assert after["model"].keys() == before["model"].keys()  # type: ignore[index, call-overload]
    lines = [each.getMessage() for each in caplog.records if "auto" in each.getMessage()]
    assert len(lines) == 1
    assert " ".join(choice.overrides) in lines[0]
    assert "60.0 GiB" in lines[0]


@pytest.mark.usefixtures("_numbers")
@pytest.mark.parametrize("gathered", [[60, 140], [140, 60]])
def test_the_fullest_gpu_of_all_ranks_decides(
    gathered: list[int], free: Free, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(60)
    alone = fit_of(started(tmp_path / "alone"))(CUDA)
    free(140)
    assert fit_of(started(tmp_path / "other"))(CUDA) != alone
    monkeypatch.setattr(world, "gathered", lambda value: [number * GIB for number in gathered])
    assert fit_of(started(tmp_path / "joint"))(CUDA) == alone


@pytest.mark.usefixtures("_numbers")
def test_other_ranks_take_the_choice_of_the_first_and_write_nothing(
    free: Free, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(140)
    run = started(tmp_path)
    step_fit, before = fit_of(run), files(run)
    chosen = MemoryChoice(gradient_checkpointing=True, grad_cache_chunk_tokens=2048)
    record = {"open_keys": list(KEYS)}
    monkeypatch.setattr(world, "rank", lambda: 1)
    monkeypatch.setattr(world, "first_does", lambda action: (chosen, record))
    with caplog.at_level(logging.INFO):
        assert step_fit(CUDA) == chosen
    assert values(step_fit.config) == [True, 2048]
    assert files(run) == before
    assert not caplog.records


@pytest.mark.usefixtures("_numbers")
@pytest.mark.parametrize(("position", "stated"), [(0, True), (0, False), (1, 4000), (1, None)])
def test_what_is_stated_stays_and_the_other_key_is_chosen(
    position: int, stated: bool | int | None, free: Free, tmp_path: Path
) -> None:
    run = started(tmp_path, **{KEYS[position].split(".")[1]: stated})
    free(36)
    step_fit = fit_of(run)
    step_fit(CUDA)
    found = values(step_fit.config)
    assert found[position] == stated
    assert found[1 - position] != "auto"
    record = record_of(run)
    assert record is not None
    assert record["open_keys"] == [KEYS[1 - position]]
    anew = read_stored_config(run.config, trusted=())
    choose_anew(anew, run)
    assert values(anew)[position] == stated, "it was never open"
    assert values(anew)[1 - position] == "auto"


def test_a_run_that_states_both_is_left_alone(free: Free, tmp_path: Path) -> None:
    run = started(tmp_path, gradient_checkpointing="selective", grad_cache_chunk_tokens=4096)
    step_fit, before = fit_of(run), files(run)
    free(0)  # what was stated is tried, also when the run is resumed
    for device in (CUDA, CPU):
        choice = step_fit(device)
        assert choice.gradient_checkpointing == "selective"
        assert choice.grad_cache_chunk_tokens == 4096
    assert files(run) == before
    with pytest.raises(UserError, match=r"task\.chooses_memory_anew=true.*were stated"):
        choose_anew(step_fit.config, run)


@pytest.mark.usefixtures("_numbers")
def test_on_a_cpu_nothing_is_computed_twice_and_a_gpu_may_choose_anew(
    free: Free, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = started(tmp_path)
    step_fit = fit_of(run)
    with caplog.at_level(logging.INFO):
        step_fit(CPU)
    assert [each.getMessage().endswith("on a CPU") for each in caplog.records] == [True]
    for config in (step_fit.config, read_stored_config(run.config, trusted=())):
        assert values(config) == [False, None]
    free(16)
    fit_of(run)(CUDA)  # no estimate to hold against it
    resumed = fit_of(run)
    choose_anew(resumed.config, run)
    assert resumed(CUDA).gradient_checkpointing is True
    record = record_of(run)
    assert record is not None
    assert record["free_bytes"] == 16 * GIB


@pytest.mark.usefixtures("_numbers")
def test_a_choice_anew_on_a_cpu_replaces_the_record(free: Free, tmp_path: Path) -> None:
    run = started(tmp_path)
    free(36)
    fit_of(run)(CUDA)
    resumed = fit_of(run)
    choose_anew(resumed.config, run)
    resumed(CPU)
    record = record_of(run)
    assert record is not None
    assert record["estimated_bytes"] is None
    free(8)
    fit_of(run)(CUDA)


def test_a_model_without_the_key_does_not_get_it(tmp_path: Path) -> None:
    """As a class of a user's own may be; its key would be an argument that it does not take."""
    run = without(started(tmp_path), KEYS[0])
    step_fit = fit_of(run)
    step_fit(CPU)
    assert step_fit.config.data.grad_cache_chunk_tokens is None
    for config in (step_fit.config, read_stored_config(run.config, trusted=())):
        assert "gradient_checkpointing" not in config.model


def test_a_configuration_of_an_earlier_version_has_neither_key(free: Free, tmp_path: Path) -> None:
    run = without(started(tmp_path), *KEYS)
    config = read_stored_config(run.config, trusted=())
    plain = MemoryChoice(gradient_checkpointing=False, grad_cache_chunk_tokens=None)
    assert asked_choice(config).plain == plain
    assert list(memory_violations(config)) == []
    before = files(run)
    free(1)
    for device in (CUDA, CPU):
        assert fit_of(run)(device) == plain
    assert files(run) == before


@pytest.mark.usefixtures("_numbers")
def test_a_resumed_run_takes_its_choice_where_it_fits_and_is_refused_elsewhere(
    free: Free, tmp_path: Path
) -> None:
    run = started(tmp_path)
    free(60)
    choice = fit_of(run)(CUDA)
    checkpointed(run)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    for number in (60, 140):
        free(number)
        assert fit_of(run)(CUDA) == choice, "also where another one would be faster"
    free(40)
    with pytest.raises(UserError) as caught:
        fit_of(run)(CUDA)
    text = str(caught.value)
    for part in (*choice.overrides, "60.0 GiB", "40.0 GiB"):
        assert part in text
    assert f"task=resume run={run.path} task.chooses_memory_anew=true" in text
    after = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.usefixtures("_numbers")
def test_the_least_free_rank_decides_on_resume_too(
    free: Free, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(tmp_path)
    free(60)
    fit_of(run)(CUDA)
    monkeypatch.setattr(world, "gathered", lambda value: [value, 20 * GIB])
    with pytest.raises(UserError, match=r"20\.0 GiB are free"):
        fit_of(run)(CUDA)


@pytest.mark.usefixtures("_numbers")
def test_choosing_anew_fits_the_gpu_of_now_or_leaves_the_run_as_it_was(
    free: Free, tmp_path: Path
) -> None:
    run = started(tmp_path)
    free(60)
    first = fit_of(run)(CUDA)
    checkpointed(run)
    for number in (40, 24):  # it may be done again
        free(number)
        resumed = fit_of(run)
        choose_anew(resumed.config, run)
        choice = resumed(CUDA)
        assert choice != first
        assert values(read_stored_config(run.config, trusted=())) == values(resumed.config)
        record = record_of(run)
        assert record is not None
        assert record["free_bytes"] == number * GIB
        assert record["open_keys"] == list(KEYS)
    before = run.config.read_bytes(), run.provenance.read_bytes()
    free(10)
    resumed = fit_of(run)
    choose_anew(resumed.config, run)
    with pytest.raises(UserError) as caught:
        resumed(CUDA)
    assert "10.0 GiB are free" in str(caught.value)
    assert "What would run" not in str(caught.value), "overrides cannot be added to a resumed run"
    assert (run.config.read_bytes(), run.provenance.read_bytes()) == before


@pytest.fixture
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with a GPU and no hub, nothing in its cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("quarry.planning.plan_task.show", lambda *paragraphs, result_line: None)
    with planned_for_gpu():
        yield


def planned(config: DictConfig, file: Path, *, gib: float) -> dict[str, Any]:
    """The plan, whether it is refused or not."""
    with suppress(UserError):
        plan(
            config, gpu_memory_gib=gib, json=str(file), card=None, disk_gib=None,
            num_examples=None, tokens_per_query=None, tokens_per_s=None, num_jobs_at_once=1,
        )  # fmt: skip
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made


@pytest.mark.usefixtures("_away")
def test_the_choice_and_the_refusal_are_those_of_the_plan(free: Free, tmp_path: Path) -> None:
    config, file = composed("train", "task=plan", *SEVEN), tmp_path / "plan.json"
    run = written(RunDirectory(tmp_path / "run"), config)
    spec: ModelSpec = build(config.model)
    step = StepFit(config, run, spec)._setup()
    choice = thriftiest(step, OPEN)
    least = step_memory(with_choice(step, choice)).total / GIB
    made = planned(config, file, gib=least / 0.91)
    assert made["refusal"] is None
    free(least / 0.91)
    choice = StepFit(config.copy(), run, spec)(CUDA)
    assert made["gradient_checkpointing"] == choice.gradient_checkpointing
    assert made["grad_cache_chunk_tokens"] == choice.grad_cache_chunk_tokens
    record = record_of(run)
    assert record is not None
    assert made["memory_bytes_per_process"]["total"] == record["estimated_bytes"]
    refusal = planned(config, file, gib=least / 0.94)["refusal"]
    assert "auto uses 92% of it" in refusal
    before = files(run)
    free(least / 0.94)
    with pytest.raises(UserError) as caught:
        StepFit(config.copy(), run, spec)(CUDA)
    text = str(caught.value)
    assert text.startswith("model.gradient_checkpointing=auto and data.grad_cache_chunk_tokens=a")
    for part in (f"{least:.1f} GiB", f"{least / 0.94:.1f} GiB", "92%"):
        assert part in text
    assert text.split("What would run:")[1] == refusal.split("What would run:")[1]
    assert "model.size=tiny" in text
    assert files(run) == before


def test_a_factory_needs_no_word_on_checkpointing() -> None:
    config = composed("train")
    with open_dict(config):
        del config.model.gradient_checkpointing
    spec: ModelSpec = build(config.model)
    assert spec.options.gradient_checkpointing is False
