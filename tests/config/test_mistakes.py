"""A mistake in a configuration is an error that names it: on the command line and in a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from configurations import CONF, composed, opened
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from helpers.commands import quiet_environment, run_forked
from helpers.preloaded import PreloadedPython
from quarry.config.validation import validate
from quarry.errors import UserError
from quarry.runtime.entry import error_text
from quarry.runtime.renamed_keys import RENAMED


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of conf/ to spoil."""
    return Path(shutil.copytree(CONF, tmp_path / "conf"))


@pytest.fixture
def _conf() -> Iterator[None]:
    with opened():
        yield


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "key"),
    [("lerning_rate: 1", "lerning_rate"), ("recipe:\n  temprature: 1", "recipe.temprature")],
)
def test_misspelt_key_in_an_experiment_does_not_compose(copy: Path, content: str, key: str) -> None:
    _write(copy / "experiment" / "spoilt.yaml", f"# @package _global_\n{content}\n")
    with (
        opened(copy),
        pytest.raises(ConfigCompositionException, match="experiment/spoilt") as caught,
    ):
        composed("train", "experiment=spoilt")
    assert f"full_key: {key}" in str(caught.value)


def test_an_old_key_in_an_experiment_is_refused_with_its_new_name(copy: Path) -> None:
    typed = "# @package _global_\ndata:\n  num_queries_per_update: 8\n"
    _write(copy / "experiment" / "typed.yaml", typed)
    _write(
        copy / "experiment" / "untyped.yaml",
        "# @package _global_\nloss:\n  num_contrast_queries: 4\nmodel:\n  linear: fp8\n"
        "  has_trusted_code: true\n  is_normalized: false\n"
        "recipe:\n  num_epochs: ${data.num_queries_per_update}\n",
    )
    with opened(copy):
        with pytest.raises(ConfigCompositionException) as refused:
            composed("train", "experiment=typed")
        config = composed("train", "experiment=untyped")
    assert "data.num_queries_per_update is now data.global_batch_size" in error_text(refused.value)
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    assert "data.num_queries_per_update is now data.global_batch_size" in str(caught.value)
    config.recipe.num_epochs = 1
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    for old, new in RENAMED.items():
        if old.startswith(("loss.", "model.")) and OmegaConf.select(config, old) is not None:
            assert f"- {old}: " in str(caught.value)
            assert f"({old} is now {new})" in str(caught.value)


def test_misspelt_keys_in_components_are_found_together(copy: Path) -> None:
    spoil = {
        "experiment/none": ("{}", "trainer:\n  max_stepz: 1", "trainer.max_stepz: "),
        "loss/info_nce": ("temperature:", "temprature:", "loss.temprature: "),
        "model/adapter/lora": ("alpha:", "alhpa:", "model.adapter.alhpa: "),
        "scheduler/linear": ("num_warmup_steps:", "warmup_steps:", "scheduler.warmup_steps: "),
        "callbacks/default": ("every_n_steps", "every_step", "callbacks.last_checkpoint.every_st"),
        "retriever/bm25": ("stemmer", "stemer", "baseline.tokenizers.text.stemer: "),
        "prompt/none": ("end_token", "end_tokem", "prompt.end_tokem: "),
        "benchmark/stdlib_code": ("quarry.", "quary.", "benchmark._target_=quary."),
    }
    for file, (old, new, _) in spoil.items():
        path = copy / f"{file}.yaml"
        head, body = path.read_text(encoding="utf-8").rsplit(old, 1)
        path.write_text(head + new + body, encoding="utf-8")
    with opened(copy):
        config = composed("train", "model/adapter=lora")
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    for _, _, named in spoil.values():
        assert f"- {named}" in str(caught.value)


@pytest.mark.usefixtures("_conf")
def test_rules_between_keys_are_reported_together() -> None:
    config = composed(
        "train",
        "trainer.devices=0",
        "evaluation.every_n_steps=-1",
        "evaluation.max_tokens_per_batch=0",
        "evaluation.store=true",
        "evaluation.store_dtype=float8",
        "data.global_batch_size=100",
        "data.num_hard_negatives=-1",
        "data.grad_cache_chunk_tokens=0",
        "loss.contrastive_batch_size=7",
        "+trainer.accumulate_grad_batches=2",
        "trainer.max_epochs=-1",
        "+trainer.max_time=abc",
        "evaluation.measures=[nDCG@10,nDCG@0]",
    )
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    lines = str(caught.value).splitlines()[1:]
    names = [
        "trainer.devices=0",
        "evaluation.max_tokens_per_batch",
        "evaluation.store=true",
        "evaluation.store_dtype=float8",
        "evaluation.every_n_steps",
        "data.global_batch_size=100",
        "data.num_hard_negatives",
        "data.grad_cache_chunk_tokens=0",
        "trainer.accumulate_grad_batches",
        "trainer.max_epochs",
        "trainer.max_time=abc",
        "evaluation.measures: measure 'nDCG@0'",
    ]
    assert len(lines) == len(names)
    for name in names:
        assert sum(name in line for line in lines) == 1, name


@pytest.mark.usefixtures("_conf")
def test_one_query_needs_a_hard_negative_and_with_null_the_examples_decide() -> None:
    one = ("train", "data=jsonl", "data.path=FILE", "data.global_batch_size=1")
    assert composed(*one).data.num_hard_negatives is None
    for fine in ((), ("data.num_hard_negatives=null",), ("data.num_hard_negatives=1",)):
        validate(composed(*one, *fine), primary="train")
    with pytest.raises(UserError, match="num_hard_negatives=0: .* always 0"):
        validate(composed(*one, "data.num_hard_negatives=0"), primary="train")
    for data, number in (("folder", None), ("msmarco", 15), ("stdlib_code", 0)):
        assert composed("train", f"data={data}").data.num_hard_negatives == number


@pytest.mark.usefixtures("_conf")
def test_values_that_a_class_cannot_take_are_reported_together() -> None:
    config = composed(
        "train",
        "+foo=1",
        "+recipe.bar=2",
        "baseline._target_=null",
        "model.pooling=null",
        "loss.temperature=hot",
        "loss.contrastive_batch_size=1.5",
        "optimizer.lr=null",
    )
    with pytest.raises(UserError) as caught:
        validate(config, primary="train")
    text = str(caught.value)
    assert "- foo: there is no such key; the top level has " in text
    assert "- recipe.bar: there is no such key; recipe has learning_rate, " in text
    assert "- baseline={" in text
    assert "names no class: choose an option of its group" in text
    assert "- model.pooling=null: quarry.models.model_spec.model_spec takes Pooling" in text
    assert "- loss.temperature='hot': quarry.losses.info_nce.InfoNCE takes float" in text
    assert (
        "- loss.contrastive_batch_size=1.5: quarry.losses.info_nce.InfoNCE takes int | None" in text
    )
    assert "- optimizer.lr=null: torch.optim.AdamW takes float | torch.Tensor" in text
    assert len(text.splitlines()) == 1 + 7


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize(
    ("primary", "override", "message"),
    [
        ("train", "scheduler._target_=null", "names no class"),
        ("train", "data.examples=null", "data.examples=null names no class"),
        ("eval", "model.adapter=null", "model_spec takes Adapter"),
        ("eval", "retriever.index=null", "DenseRetriever takes ExactIndex"),
        ("eval", "convention.ties=random", "takes Literal['descending', 'ascending']"),
        ("eval", "convention.title=yes", "takes Literal['set', 'joined', 'none']"),
        ("eval", "benchmark.sets=scifact", "folder_benchmark takes Sequence[str] | None"),
        ("train", "evaluation.store_dtype=float16", "no effect with evaluation.store=false"),
        ("train", "evaluation.corpus_on_disk=maybe", "corpus_on_disk=maybe: unknown value"),
        ("train", "evaluation.corpus_on_disk=1", "corpus_on_disk=1: unknown value"),
        ("train", "evaluation.corpus_dtype=bfloat16", "unknown value (float32, float16)"),
        ("eval", "evaluation.before_training=false", "no effect on task=evaluate"),
        ("eval", "evaluation.corpus_on_disk=true", "no effect with evaluation.store=true"),
        ("eval", "evaluation.corpus_dtype=float16", "Fix: evaluation.store_dtype=float16, or"),
        ("train", "~loss", "loss has no value"),
        ("train", "~loss.temperature", "loss.temperature is needed by"),
        ("train", "paths.cache_dir=${oc.env:QUARRY_NOT_SET}", "paths.cache_dir: KeyError raised"),
    ],
)
def test_what_a_component_lacks_is_a_clear_error(primary: str, override: str, message: str) -> None:
    more = ["benchmark=folder"] if override.startswith("benchmark.sets") else []
    config = composed(primary, override, *more)
    with pytest.raises(UserError) as caught:
        validate(config, primary=primary)
    assert message in str(caught.value)


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize("on_disk", ["true", "false", "auto"])
def test_what_is_said_of_a_corpus_stands_without_a_store(on_disk: str) -> None:
    keys = [f"evaluation.corpus_on_disk={on_disk}", "evaluation.corpus_dtype=float16"]
    validate(composed("train", *keys, "evaluation.before_training=false"), primary="train")
    validate(composed("eval", *keys, "evaluation.store=false"), primary="eval")


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize("primary", ["train", "eval"])
def test_a_size_that_was_never_published_is_one_error_with_those_that_were(primary: str) -> None:
    config = composed(primary, "model=qwen-coder", "model.size=9B")
    with pytest.raises(UserError) as caught:
        validate(config, primary=primary)
    (line,) = str(caught.value).splitlines()[1:]
    sizes = "0.5B, 1.5B, 3B, 7B, 14B, 32B and tiny"
    assert f"model.size=9B was never published; there are {sizes}" in line


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize("override", ["seed=tuesday", "evaluation.top_k=all", "run=[a]"])
def test_a_typed_key_refuses_another_type(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match=override.split("=", maxsplit=1)[0]):
        composed("eval", override)


@pytest.mark.usefixtures("_conf")
def test_training_under_the_wrong_primary_names_the_right_one() -> None:
    config = composed("eval", "task=train")
    with pytest.raises(UserError, match=r"This task trains.*Fix: python train\.py"):
        validate(config, primary="train")


@pytest.mark.parametrize(
    ("script", "arguments", "parts"),
    [
        ("train.py", ["loss.temprature=0.1"], ["loss.temprature"]),
        ("eval.py", ["retreiver=bm25"], ["retreiver"]),
        ("train.py", ["loss=info_nec"], ["loss/info_nec", "info_nce"]),
        ("train.py", ["loss=null"], ["loss=null", "takes one of its options"]),
        ("train.py", ["--config-dir=.", "experiment=spoilt"], ["experiment/spoilt", "lerning"]),
    ],
    ids=["key", "group", "option", "null", "experiment"],
)
def test_command_line_names_the_mistake_and_nothing_runs(
    preloaded_python: PreloadedPython, tmp_path: Path, script: str, arguments: list[str],
    parts: list[str],
) -> None:  # fmt: skip
    _write(tmp_path / "experiment" / "spoilt.yaml", "# @package _global_\nlerning: 1\n")
    environment = quiet_environment(tmp_path)
    environment.pop("HYDRA_FULL_ERROR", None)
    result = run_forked(preloaded_python, script, *arguments, environment=environment, timeout_s=60)
    assert result.code == 2, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    assert [part for part in parts if part not in result.err] == []
    assert not (tmp_path / "runs").exists()
