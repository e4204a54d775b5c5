"""Every option of every group composes where it is used, resolves, and fits what it configures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pytest
from configurations import PRIMARIES, Case, cases, composed, files, opened
from omegaconf import OmegaConf

from quarry.config.instantiate import build
from quarry.config.signature_rules import signature_violations
from quarry.config.stored_targets import check_stored, packages_of
from quarry.config.validation import unresolved_values, validate
from quarry.config.value_ranges import range_of, range_violations

CASES = cases()


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def test_there_is_a_case_for_every_file() -> None:
    # read by models and by debug, never chosen itself
    parts = {"model/family/qwen", "model/family/published", "hydra/sweep/dry_run"}
    options = {file for file in files() if "/" in file} - parts
    assert {case.file for case in CASES} == options
    assert len(CASES) >= len(options) >= 35


ALONE = ("baseline", "experiment", "retriever@baseline", "task", "task/index@task.index")
"""Places whose options change what stands in others."""


def compositions() -> list[list[Case]]:
    """Return every case once, with as few compositions as the longest group needs.

    A composition takes a tenth of a second, and an option of each group fits in one: of every
    place the first option that is no default, then of every place the second, and so on.
    """
    found: list[list[Case]] = []
    for primary in PRIMARIES:
        own = [case for case in CASES if case.primary == primary]
        found.append([case for case in own if case.is_default])
        places: dict[str, list[Case]] = {}
        for case in own:
            if not case.is_default:
                places.setdefault(case.override.partition("=")[0], []).append(case)
        found += [[case] for place in ALONE for case in places.pop(place, [])]
        rows = zip_longest(*places.values())
        found += [[case for case in row if case is not None] for row in rows]
    return found


RULED_ELSEWHERE = {
    "data.max_examples", "model.adapter.r", "model.adapter.dropout", "trainer.devices",
    "trainer.num_nodes", "trainer.strategy.devices", "trainer.strategy.num_nodes",
}  # fmt: skip
"""Numbers with a rule that looks at more than one of them."""


def numbers(node: Any, path: str = "") -> Iterator[str]:
    """Yield the key of every number; those of a list share its key."""
    for key, value in node.items():
        where = f"{path}.{key}" if path else str(key)
        values = value if isinstance(value, list) else [value]
        if isinstance(value, dict):
            yield from numbers(value, where)
        elif any(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
            yield where


def test_every_case_is_in_one_composition() -> None:
    assert sorted(map(str, chain.from_iterable(compositions()))) == sorted(map(str, CASES))


@pytest.mark.parametrize("chosen", compositions(), ids=lambda chosen: str(chosen[0]))
def test_options_compose_resolve_and_fit_their_signatures(chosen: list[Case]) -> None:
    overrides = [
        each
        for case in chosen
        if case.needs or not case.is_default
        for each in (case.needs if case.is_default else case.overrides)
    ]
    config = composed(chosen[0].primary, *overrides)
    assert list(unresolved_values(config)) == []
    assert list(signature_violations(config)) == []
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    assert "_target_" in plain["task"]
    assert {key for key in numbers(plain) if range_of(key) is None} <= RULED_ELSEWHERE
    assert list(range_violations(config)) == []
    # what a run stores of it can be read back
    for stored in (config, OmegaConf.create(plain)):
        check_stored(stored, source=Path("config.yaml"), trusted=())
    assert packages_of(config) == ()


@pytest.mark.parametrize("primary", PRIMARIES)
def test_defaults_pass_every_rule(primary: str) -> None:
    validate(composed(primary), primary=primary)


def test_options_that_need_a_path_say_so() -> None:
    config = composed("train", "data=jsonl")
    with pytest.raises(ValueError, match=r"data\.path is not set"):
        validate(config, primary="train")
    validate(composed("train", "data=jsonl", "data.path=train.jsonl"), primary="train")


def test_model_brings_its_recipe_and_the_command_line_has_the_last_word() -> None:
    tiny, local = composed("train"), composed("train", "model=local")
    assert (tiny.optimizer.lr, local.optimizer.lr) == (3e-3, 1e-4)
    assert (tiny.loss.temperature, local.loss.temperature) == (0.05, 0.01)
    assert (tiny.prompt.max_document_length, local.prompt.max_document_length) == (64, 512)
    chosen = composed("train", "recipe.learning_rate=0.5", "loss.temperature=0.2")
    assert (chosen.optimizer.lr, chosen.loss.temperature) == (0.5, 0.2)


def test_a_suite_brings_its_measures_and_the_command_line_has_the_last_word() -> None:
    plain, deep = composed("eval", "benchmark=beir"), composed("eval", "benchmark=trec_dl")
    assert list(plain.evaluation.measures) == ["nDCG@10", "Recall@100", "MRR@10"]
    assert list(deep.evaluation.measures)[:3] == ["nDCG@10", "MAP", "Recall@1000"]
    assert (plain.evaluation.top_k, deep.evaluation.top_k) == (100, 1000)
    chosen = composed("eval", "evaluation.top_k=2000", "benchmark=trec_dl")
    assert chosen.evaluation.top_k == 2000


def test_hybrid_is_made_of_the_options_it_names() -> None:
    config = composed("eval", "retriever=hybrid")
    alone = composed("eval", "retriever=bm25")
    assert list(config.retriever.retrievers) == ["bm25", "dense"]
    assert config.retriever.retrievers.bm25 == alone.retriever


@pytest.mark.parametrize("name", [f for f in files() if f.startswith("retriever/")])
def test_every_retriever_can_be_built(name: str, tmp_path: Path) -> None:
    """What does not fit together, such as weights and retrievers, is told when they are made."""
    option = name.partition("/")[2]
    config = composed("eval", f"retriever={option}", f"paths.cache_dir={tmp_path}")
    retriever = build(config.retriever)
    assert retriever.uses_encoder is (option != "bm25")
    assert retriever.name == {"hybrid": "bm25+dense"}.get(option, option)


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("qwen-base", "Qwen/Qwen2.5-7B"),
        ("qwen-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen-coder", "Qwen/Qwen2.5-Coder-7B"),
        ("qwen-coder-instruct", "Qwen/Qwen2.5-Coder-7B-Instruct"),
        ("qwen-math", "Qwen/Qwen2.5-Math-7B"),
        ("qwen-math-instruct", "Qwen/Qwen2.5-Math-7B-Instruct"),
        ("qwen-r1", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("qwen-vl", "Qwen/Qwen2.5-VL-7B-Instruct"),
    ],
)
@pytest.mark.parametrize("primary", PRIMARIES)
def test_the_eight_are_seven_billion_by_default_and_bring_their_prompt(
    primary: str, name: str, hub_id: str
) -> None:
    config = composed(primary, f"model={name}")
    assert config.model.hub_id == hub_id
    assert config.prompt.query == "Query:{text}"
    assert config.prompt.is_chat is (name == "qwen-vl")
    assert config.prompt.end_token == ("<|endoftext|>" if name == "qwen-vl" else "auto")
    chosen = composed(primary, f"model={name}", "prompt=promptreps", "model.size=tiny")
    assert chosen.prompt.assistant == 'The word is: "'
    assert chosen.model.hub_id is None


@pytest.mark.parametrize("primary", PRIMARIES)
def test_the_convention_is_that_of_beir_unless_another_is_named(primary: str) -> None:
    assert composed(primary).convention.name == "beir"
    assert composed(primary, "convention=study").convention.missing_queries == "left_out"


def test_rescoring_knows_every_convention_and_each_has_the_name_of_its_file() -> None:
    names = {file.removeprefix("convention/") for file in files() if file.startswith("convention/")}
    config = composed("eval", "task=rescore")
    assert {key: entry.name for key, entry in config.task.conventions.items()} == {
        name: name for name in names
    }
    assert "_target_" not in config.benchmark
    assert composed("eval", "task=rescore", "benchmark.path=DIR").benchmark.path == "DIR"
