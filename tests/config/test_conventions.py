"""What users of Hydra and Lightning type works, or is answered with what to type instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from configurations import composed, files, opened, primaries_of
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from quarry.config import logger_rules
from quarry.config.dry_run import dry_run_of
from quarry.config.validation import validate
from quarry.errors import UserError
from quarry.tasks.build_training import check_callbacks

EXPERIMENTS = [
    file.partition("/")[2]
    for file in files()
    if file.startswith("experiment/") and "train" in primaries_of(file)
]


@pytest.fixture(autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def _with_hydra(primary: str, *overrides: str) -> DictConfig:
    return compose(config_name=primary, overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize(
    ("primary", "name"),
    [("train", "fast"), ("eval", "fast"), ("train", "overfit"), ("train", "profile")],
)
def test_a_dry_run_is_valid_over_an_experiment_and_is_marked(primary: str, name: str) -> None:
    experiment = "tiny_sft" if primary == "train" else "tiny_zero_shot"
    config = composed(primary, f"experiment={experiment}", f"debug={name}")
    validate(config, primary=primary)
    assert dry_run_of(config) == f"debug={name}"
    assert config.logger == {}
    assert config.benchmark._target_.endswith(
        "stdlib_code_benchmark" if name == "fast" else "no_benchmark"
    )
    assert 0 < config.trainer.max_steps <= 200


@pytest.mark.parametrize("override", ["debug=fast", "trainer.fast_dev_run=true"])
def test_the_directories_of_a_dry_run_say_so(override: str) -> None:
    directory = _with_hydra("train", override).hydra.sweep.dir
    assert directory.rpartition("/")[2].startswith("debug_")
    assert "debug_" not in _with_hydra("train").hydra.sweep.dir
    # the choices of the groups are known to a command alone
    text = OmegaConf.to_container(_with_hydra("train").hydra.run, resolve=False)
    assert "/${dry_run_prefix:${debug},${trainer.fast_dev_run}}" in text["dir"]


def test_a_study_that_is_tried_leaves_its_folder_alone() -> None:
    assert "/study/" not in _with_hydra("train", "study=tiny", "debug=fast").hydra.sweep.dir
    assert _with_hydra("train", "task=export", "debug=fast").hydra.run.dir == "."


@pytest.mark.parametrize("callbacks", ["best_model", "early_stopping", "top_checkpoints"])
def test_a_fast_dry_run_evaluates_within_training(callbacks: str) -> None:
    config = composed("train", "experiment=tiny_sft", f"callbacks={callbacks}", "debug=fast")
    validate(config, primary="train")
    check_callbacks(config)


@pytest.mark.parametrize("name", ["overfit", "profile"])
def test_what_waits_for_an_evaluation_is_refused_in_a_dry_run_without_one(name: str) -> None:
    waiting = ["callbacks=best_model", "optimized_metric=mean/ndcg_at_10"]
    config = composed("train", *waiting, f"debug={name}")
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    callback, metric = str(caught.value).splitlines()[1:]
    assert callback.startswith("- callbacks.best_model.monitor=val/mean/ndcg_at_10: ")
    assert metric.startswith("- optimized_metric=mean/ndcg_at_10: ")
    for line in (callback, metric):
        assert f"debug={name}" in line
        assert "debug=fast" in line.partition("Fix: ")[2]
    evaluated = composed("train", *waiting, f"debug={name}", "benchmark=stdlib_code")
    validate(evaluated, primary="train")


def test_a_batch_of_an_overfit_has_its_examples_whatever_the_experiment_says() -> None:
    config = composed("train", "experiment=sft_msmarco", "data.path=FILE", "debug=overfit")
    validate(config, primary="train")
    assert (config.loss.contrastive_batch_size, config.data.global_batch_size) == (None, 32)
    smaller = composed("train", "debug=overfit", "loss.contrastive_batch_size=8")
    validate(smaller, primary="train")
    with pytest.raises(UserError, match=r"contrastive_batch_size=64: debug=overfit .*32 examples"):
        validate(
            composed("train", "debug=overfit", "loss.contrastive_batch_size=64"), primary="train"
        )


def test_fast_dev_run_is_a_dry_run_of_training_alone() -> None:
    config = composed("train", "trainer.fast_dev_run=true")
    validate(config, primary="train")
    assert dry_run_of(config) == "trainer.fast_dev_run=true"
    assert dry_run_of(composed("train")) is None
    with pytest.raises(UserError, match=r"trainer\.fast_dev_run=true: .*Fix: debug=fast"):
        validate(composed("eval", "trainer.fast_dev_run=true"), primary="eval")


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("limit_train_batches=5", "trainer.max_steps=N"),
        ("overfit_batches=1", "debug=overfit"),
        ("limit_val_batches=5", "benchmark.sets=[NAME]"),
        ("limit_test_batches=5", "benchmark.sets=[NAME]"),
        ("val_check_interval=5", "evaluation.every_n_steps=N"),
        ("check_val_every_n_epoch=1", "evaluation.every_n_steps=N"),
        ("accumulate_grad_batches=2", "data.global_batch_size"),
        ("default_root_dir=x", "hydra.run.dir=DIR"),
        ("enable_checkpointing=false", "callbacks=none"),
    ],
)
def test_arguments_of_the_trainer_are_answered(override: str, answer: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(composed("train", f"++trainer.{override}"), primary="train")
    (line,) = str(caught.value).splitlines()[1:]
    assert f"trainer.{override}" in line
    assert answer in line


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_an_adapter_goes_with_every_experiment(experiment: str, adapter: str) -> None:
    more = ["data.path=FILE"] if experiment == "sft_msmarco" else []
    choice = [f"experiment={experiment}", f"model/adapter={adapter}", *more]
    config = composed("train", *choice)
    validate(config, primary="train")
    name = {"none": "FullFineTuning", "lora": "LoRA"}[adapter]
    assert config.model.adapter._target_.endswith(f".{name}")


@pytest.mark.parametrize(
    ("logger", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")]
)
def test_a_logger_without_its_package_is_refused_with_the_command(
    logger: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("train", f"logger={logger}")
    monkeypatch.setattr(logger_rules, "find_spec", lambda name: None)
    fix = rf"logger\.{logger} needs {package}\. Fix: pip install 'quarry-retrieval\[loggers\]'"
    with pytest.raises(UserError, match=fix):
        validate(config, primary="train")
    monkeypatch.setattr(logger_rules, "find_spec", lambda name: name)
    validate(config, primary="train")


@pytest.mark.parametrize("member", ["logger.x=5", "callbacks.x=null_", "logger.x.offline=true"])
def test_a_member_of_a_group_that_is_no_class_is_refused(member: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(composed("train", "logger=none", f"+{member}"), primary="train")
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"- {member.partition('.')[0]}.x=")
    assert "_target_" in line


def test_many_loggers_are_three() -> None:
    assert sorted(composed("train", "logger=many").logger) == ["csv", "tensorboard", "wandb"]


@pytest.mark.parametrize(
    ("primary", "override", "answer"),
    [
        ("train", "run=resume", "task=resume run=DIR"),
        ("eval", "model.path=qwen-coder", "model=qwen-coder"),
        ("eval", "benchmark.path=beir", "benchmark=beir"),
        ("train", "+optimizer.learning_rate=1", "optimizer.lr"),
        ("train", "+model.adapter.r=4", "~model.adapter.r"),
    ],
)
def test_a_name_for_a_path_and_a_key_that_is_near(primary: str, override: str, answer: str) -> None:
    more = ["benchmark=folder"] if override.startswith("benchmark.path") else []
    with pytest.raises(UserError) as caught:
        validate(composed(primary, override, *more), primary=primary)
    assert answer in str(caught.value)


def test_tags_are_a_list_of_words() -> None:
    assert composed("eval", "tags=[a,b]").tags == ["a", "b"]
