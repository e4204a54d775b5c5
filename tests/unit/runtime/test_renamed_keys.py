from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest
from hydra.utils import get_object

from quarry.errors import UserError
from quarry.runtime.renamed_keys import (
    MOVED_MODULES,
    RENAMED,
    RENAMED_TARGETS,
    refuse_renamed_keys,
    renamed_override,
    renamed_target,
    with_new_names,
    with_renamed_keys,
)

STORED_TARGETS = [
    "data.msmarco.msmarco_examples",
    "data.prompts.Prompt",
    "data.stdlib_code.stdlib_code_examples",
    "data.stdlib_code.stdlib_code_texts",
    "data.train_examples.BeirExamples",
    "data.train_examples.read_train_jsonl",
    "data.train_files.read_train_files",
    "data.train_files.read_train_hub",
    "data.train_forms.TrainColumns",
    "distributed.data_parallel.data_parallel_strategy",
    "distributed.data_parallel.suggested_strategy",
    "distributed.zero.ZeroStrategy",
    "evaluation.benchmark.no_benchmark",
    "evaluation.benchmarks.folder.folder_benchmark",
    "evaluation.benchmarks.hub.hub_benchmark",
    "evaluation.benchmarks.stdlib_code.stdlib_benchmark",
    "evaluation.benchmarks.stdlib_code.stdlib_code_benchmark",
    "evaluation.benchmarks.suite.suite_benchmark",
    "evaluation.convention.Convention",
    "losses.info_nce.InfoNCE",
    "models.adapters.full.FullFineTuning",
    "models.adapters.lora.LoRA",
    "models.backbones.replica.QwenReplica",
    "models.backbones.replica.QwenVLReplica",
    "models.backbones.replica_tokenizer.ChatML",
    "models.backbones.replica_tokenizer.DeepSeekR1",
    "models.backbones.tiny_qwen.TinyQwen",
    "models.factory.BiEncoderFactory",
    "models.pooling.cls.Cls",
    "models.pooling.echo.Echo",
    "models.pooling.last_token.LastToken",
    "models.pooling.max.Max",
    "models.pooling.mean.Mean",
    "models.pooling.mean_sqrt_len.MeanSqrtLen",
    "models.pooling.weighted_mean.WeightedMean",
    "retrieval.bm25.BM25Retriever",
    "retrieval.bm25.CodeTokenizer",
    "retrieval.bm25.TextTokenizer",
    "retrieval.dense.DenseRetriever",
    "retrieval.fusion.HybridRetriever",
    "retrieval.fusion.reciprocal_rank_fusion",
    "retrieval.fusion.score_mixture",
    "retrieval.index.exact.ExactIndex",
    "retrieval.retriever.no_retriever",
    "retrieval.terms.CodeTokenizer",
    "retrieval.terms.TextTokenizer",
    "tasks.evaluate.evaluate",
    "tasks.export.export",
    "tasks.fetch.fetch",
    "tasks.plan.plan",
    "tasks.prompts.show_prompts",
    "tasks.report.report",
    "tasks.rescore.rescore",
    "tasks.resume.resume",
    "tasks.score.score",
    "tasks.study_start.StudyStart",
    "tasks.train.train",
    "tasks.verify.verify",
    "training.callbacks.best_model.BestModel",
    "training.callbacks.divergence.StopOnDivergence",
    "training.callbacks.last_checkpoint.LastCheckpoint",
    "training.callbacks.throughput.Throughput",
    "training.optim.constant_schedule",
    "training.optim.linear_schedule",
    "training.optim.log_warmup_schedule",
    "training.wandb_run.WandbRun",
]
"""Below `quarry.`, what conf/ has named in a `_target_` before modules moved (5dd0e46)."""


@pytest.mark.parametrize("prefix", ["", "+", "++", "~"])
@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_refused_with_its_new_name(prefix: str, old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys(["--multirun", f"{prefix}{old}=true,false", "model=qwen-base"])
    assert f"this key is now {new}. Fix: {prefix}{new}=true,false" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_old_keys_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys([f"{old}=1" for old in RENAMED])
    assert len(str(caught.value).splitlines()) == len(RENAMED)


def test_keys_of_today_pass() -> None:
    refuse_renamed_keys([*(f"{new}=1" for new in RENAMED.values()), "task=plan", "--cfg", "job"])


def test_a_stored_configuration_gets_the_names_of_today() -> None:
    stored = {"data": {"num_tokens_per_chunk": 5, "path": "a"}, "model": {"size": "7B"}, "seed": 1}
    assert with_renamed_keys(stored) == {
        "data": {"grad_cache_chunk_tokens": 5, "path": "a"},
        "model": {"size": "7B"},
        "seed": 1,
    }
    assert stored["data"] == {"num_tokens_per_chunk": 5, "path": "a"}, "it is left as it is"
    assert with_renamed_keys({"data": None}) == {"data": None}


def test_a_stored_prompt_gets_the_arguments_that_came_later() -> None:
    prompt = {"_target_": "quarry.data.prompts.Prompt", "query": "{text}"}
    stored = {"prompt": prompt, "settings": {"prompt": prompt | {"strip": True}}, "other": {}}
    assert with_renamed_keys(stored) == {
        "prompt": prompt | {"strip": False},
        "settings": {"prompt": prompt | {"strip": True}},
        "other": {},
    }
    assert "strip" not in prompt, "it is left as it is"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_each_old_key_of_a_stored_configuration_is_read(old: str, new: str) -> None:
    part, _, name = old.partition(".")
    assert with_renamed_keys({part: {name: 3}}) == {part: {new.partition(".")[2]: 3}}
    assert with_renamed_keys({"settings": {old: True}}) == {"settings": {new: True}}, "dotted"


@pytest.mark.parametrize(("stored", "value"), [("plain", None), ("fp8", "fp8")])
def test_a_stored_value_of_an_old_key_is_read(stored: str, value: str | None) -> None:
    assert with_renamed_keys({"model": {"linear": stored}}) == {
        "model": {"linear_precision": value}
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.linear=plain", "model.linear_precision=null"),
        ("++model.linear=fp8", "++model.linear_precision=fp8"),
        ("model.linear=plain,fp8", "model.linear_precision=null,fp8"),
        ("model.linear=choice(fp8,plain)", "model.linear_precision=choice(fp8,null)"),
    ],
)
def test_an_old_value_is_refused_with_that_of_today(old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys([old])
    assert str(caught.value).endswith(f"Fix: {new}")


def test_overrides_of_today_stay_as_they_are() -> None:
    for override in ("scheduler=linear", "model.linear_precision=fp8", "--multirun", "data.path=a"):
        assert renamed_override(override) == override


def test_a_message_says_what_an_old_key_is_now() -> None:
    message = with_new_names("model.is_normalized: no such argument")
    assert message.endswith("(model.is_normalized is now model.normalize)")
    for other in ("model.linear_precision=x", "my.model.linear", "scheduler=linear"):
        assert with_new_names(other) == other


@pytest.mark.parametrize("stored", STORED_TARGETS)
def test_every_target_that_a_run_has_stored_is_still_found(stored: str) -> None:
    node = {"model": {"replica": {"_target_": f"quarry.{stored}"}}}
    target = with_renamed_keys(node)["model"]["replica"]["_target_"]
    assert callable(get_object(target))
    assert renamed_target(target) == target, "a name of today stays"


def test_what_was_moved_or_renamed_is_gone_where_it_was() -> None:
    for module in MOVED_MODULES:
        assert find_spec(module) is None, module
    for target in RENAMED_TARGETS:
        module, _, name = target.rpartition(".")
        is_there = find_spec(module) is not None
        assert not (is_there and hasattr(import_module(module), name)), target


def test_a_target_of_others_and_none_at_all_stay() -> None:
    stored = {"optimizer": {"_target_": "torch.optim.AdamW"}, "a": {"_target_": None}, "b": {}}
    assert with_renamed_keys(stored) == stored


def test_a_key_that_earlier_versions_did_not_have_is_added_to_complete_configurations() -> None:
    data = {"global_batch_size": 4}
    assert with_renamed_keys({"data": data, "trainer": {}})["data"] == data | {"max_examples": None}
    given = {"data": {"max_examples": 3}, "trainer": {}}
    assert with_renamed_keys(given) == given
    assert with_renamed_keys({"data": data}) == {"data": data}, "a part of one"
    assert with_renamed_keys({"trainer": {}}) == {"trainer": {}}, "an evaluation has no data"


def test_targets_and_keys_in_lists_are_current_too() -> None:
    old = "quarry.retrieval.bm25.TextTokenizer"
    stored = {"parts": [{"_target_": old, "names": ["a", "b"]}, 3, [{"_target_": old}]]}
    first, number, (last,) = with_renamed_keys(stored)["parts"]
    assert first == {"_target_": RENAMED_TARGETS[old], "names": ["a", "b"]}
    assert last["_target_"] == RENAMED_TARGETS[old]
    assert number == 3
    assert stored["parts"][0]["_target_"] == old, "not changed"
