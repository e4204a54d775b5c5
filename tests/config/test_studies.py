"""Every study composes to jobs that can run, and says in its header what it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from configurations import PRIMARIES, ROOT, composed, opened
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from quarry.assembly.evaluation_parts import build_evaluator
from quarry.config.sweep_overrides import all_jobs, fixed_keys, has_all_jobs_known, job_name
from quarry.config.validation import validate
from quarry.sweep.listing import composed_sweep, study_files
from quarry.tasks.optimized_metric import check_optimized_metric
from quarry.training.evaluation_log import metric_names

FILES = sorted((ROOT / "sweeps" / "study").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
EIGHT = {
    "qwen-base", "qwen-instruct", "qwen-coder", "qwen-coder-instruct", "qwen-math",
    "qwen-math-instruct", "qwen-r1", "qwen-vl",
}  # fmt: skip
NUM_JOBS = {
    "methods": 4,
    "methods_64": 2,
    "negatives": 8,
    "pooling_attention": 6,
    "prompt": 6,
    "size": 4,
    "specialisation_sft": 8,
    "specialisation_zero_shot": 16,
    "temperature_lr": 20,
    "tiny": 8,
    "tiny_zero_shot": 8,
}


GROUPS = ("study", "model", "benchmark", "prompt", "experiment")
"""Swept groups, whose options are no values of a key."""


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def primary_of(name: str) -> str:
    text = (ROOT / "sweeps" / "study" / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("# primary: ")[2].split("\n")[0]


def job_config(sweep: DictConfig, overrides: tuple[str, ...]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_sweep_config(sweep, ["paths.run_dir=RUN_DIR", *overrides])
    with open_dict(config):
        del config["hydra"]
    return config


def test_the_list_has_every_study_and_its_jobs() -> None:
    assert {one.name: one.num_jobs for one in study_files()} == NUM_JOBS
    assert set(NUM_JOBS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_has_purpose_and_command(name: str) -> None:
    text = (ROOT / "sweeps" / "study" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n# primary: ")
    assert f"#   python {primary_of(name)}.py study={name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_job_composes_and_passes_all_rules(name: str) -> None:
    primary = primary_of(name)
    sweep = composed_sweep(primary, f"study={name}")
    assert sweep.study.name == name
    assert sweep.hydra.sweep.dir.endswith(f"/study/{name}")
    if has_all_jobs_known(sweep.hydra.sweeper):
        jobs = all_jobs(sweep)
    else:
        low = {"loss.temperature": "0.005", "optimizer.lr": "0.0003"}
        assert set(low) == set(sweep.hydra.sweeper.params)
        jobs = [(*(f"{key}={value}" for key, value in low.items()), f"study={name}")]
    names = {job_name(job, fixed=fixed_keys(sweep)) for job in jobs}
    assert len(names) == len(jobs)
    plain = composed(primary)
    for job in jobs[:: max(1, len(jobs) // 8)]:
        config = job_config(sweep, job)
        # tables have a row of BM25; a search has no tables
        assert config.baseline.get("_target_").endswith("BM25Retriever") or name == "temperature_lr"
        validate(config, primary=primary)
        for override in OverridesParser.create().parse_overrides(list(job)):
            key = override.key_or_group
            if "/" not in key and key not in GROUPS:
                assert OmegaConf.select(config, key) == override.value()
        assert config != plain


def test_the_search_looks_at_held_out_training_modules_and_knows_its_metric() -> None:
    sweep = composed_sweep("train", "study=temperature_lr")
    config = job_config(sweep, ("study=temperature_lr",))
    assert config.benchmark.split == "dev"
    evaluator = build_evaluator(config)
    assert evaluator is not None
    check_optimized_metric(config.optimized_metric, metric_names(evaluator))
    assert (sweep.hydra.sweeper.direction, sweep.hydra.sweeper.sampler.seed) == ("maximize", 42)
    assert "early_stopping" in config.callbacks


@pytest.mark.parametrize(
    "name", ["specialisation_sft", "specialisation_zero_shot", "tiny", "tiny_zero_shot"]
)
def test_the_study_has_its_eight_models(name: str) -> None:
    sweep = composed_sweep(primary_of(name), f"study={name}")
    models = {one.removeprefix("model=") for job in all_jobs(sweep) for one in job}
    assert models >= EIGHT


@pytest.mark.parametrize("primary", PRIMARIES)
def test_an_unknown_study_is_refused_with_those_that_there_are(primary: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        composed(primary, "study=nope")
    message = str(caught.value)
    assert "Could not find 'study/nope'" in message
    assert all(f"\t{name}" in message for name in ["none", *NAMES])
