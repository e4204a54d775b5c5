"""Absurd or wrong settings in somebody else's model folder are messages, within seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from helpers.earlier_run import Task, copied, tasks
from quarry.assembly.stored_model import open_stored_model
from quarry.errors import UserError
from quarry.models.building import build_bi_encoder

SECONDS = 10
"""Each takes about one by itself; other tests run beside it."""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    with tasks(tmp_path_factory.mktemp("cache")) as call:
        yield call


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is an adapter, and its base beside it."""
    return copied(tmp_path_factory.mktemp("asset") / "folder")


@pytest.fixture
def run(pristine: Path) -> Iterator[Path]:
    """The same, whose small files are as they were afterwards."""
    folders = (pristine / "model", pristine.parent / "base")
    files = [file for folder in folders for file in folder.iterdir() if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    yield pristine
    for file, content in before.items():
        file.write_bytes(content)


def edited(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | changes), encoding="utf-8")


def built(run: Path) -> None:
    """Load the run's adapter on its base, as evaluation and export do."""
    stored = open_stored_model(str(run), base_path=None)
    build_bi_encoder(stored.parts.spec, is_trained=False)


def refusal(run: Path, read: Callable[[Path], object] = built) -> str:
    begin = time.monotonic()
    with pytest.raises(UserError) as info:
        read(run)
    assert time.monotonic() - begin < SECONDS
    message = str(info.value)
    assert len(message) < 1200
    assert "Fix: " in message or "The folder must hold" in message
    return message


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "layer replications": ({"layer_replication": [[0, 1]] * 2000}, "layer_replication=[[0, 1]"),
    "a rank": ({"r": 10**9}, "shape: "),
    "a larger rank": ({"r": 10**15}, "shape: "),
    "a rank below 0": ({"r": -1}, "does not fit"),
    "a rank of text": ({"r": "x"}, "does not fit"),
    "patterns of ranks": ({"rank_pattern": {f"a{i}": 3 for i in range(50_000)}}, "rank_pattern"),
    "target layers": ({"target_modules": [f"a{i}" for i in range(50_000)]}, "target_modules"),
    "layers to save": ({"modules_to_save": [f"a{i}" for i in range(50_000)]}, "modules_to_save"),
    "an expression": ({"target_modules": "(a|" * 40_000}, "target_modules has a length"),
    "a large file": ({"x": "x" * 3_000_000}, "larger than"),
    "a wrong expression": ({"target_modules": "(("}, "cannot be applied"),
    "wrong exceptions": ({"exclude_modules": "(("}, "cannot be applied"),
    "a wrong pattern": ({"rank_pattern": {"((": 3}}, "cannot be applied"),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_absurd_or_wrong_adapter_is_a_message(run: Path, case: str) -> None:
    changes, expected = ADAPTERS[case]
    edited(run / "model" / "adapter_config.json", **changes)
    assert expected in refusal(run)


BASES: dict[str, tuple[dict[str, Any], str]] = {
    "layers": ({"num_hidden_layers": 10**6, "layer_types": None}, "num_hidden_layers=1000000"),
    "width": ({"hidden_size": 10**9}, "hidden_size=1000000000"),
    "rows": ({"vocab_size": 10**12}, "vocab_size=1000000000000"),
    "a width below 0": ({"intermediate_size": -1}, "intermediate_size=-1"),
    "no width": ({"hidden_size": 0}, "config.json"),
    "no heads": ({"num_attention_heads": 0}, "config.json"),
    "layers below 0": ({"num_hidden_layers": -1, "layer_types": None}, "config.json"),
    "layers of text": ({"num_hidden_layers": "x", "layer_types": None}, "config.json"),
    "rows of nothing": ({"vocab_size": None}, "config.json"),
    "an activation": ({"hidden_act": "os.system"}, "KeyError: 'os.system'"),
    "positions": ({"rope_scaling": {"type": "x"}, "rope_parameters": {"rope_type": "x"}}, "'x'"),
    "another width": ({"hidden_size": 7}, "does not fit"),
    "more layers": ({"num_hidden_layers": 3, "layer_types": None}, "does not fit"),
}


@pytest.mark.parametrize("case", BASES)
def test_wrong_sizes_in_a_configuration_are_a_message(run: Path, case: str) -> None:
    changes, expected = BASES[case]
    edited(run.parent / "base" / "config.json", **changes)
    assert expected in refusal(run)


def test_golden_vectors_of_another_width_are_a_message(task: Task, run: Path) -> None:
    file = run / "model" / "quarry_golden.safetensors"
    vectors = load_file(file)["embeddings"]
    save_file({"embeddings": vectors[:, :-3].contiguous()}, file)
    message = refusal(run, lambda folder: task("eval", "task=verify", f"run={folder}"))
    assert "width 29, and the model gives 32" in message


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{{ cycler.__init__.__globals__.os.popen('true') }}",
        "{{ range(10**8) }}",
    ],
)
def test_a_hostile_chat_template_is_a_message(task: Task, run: Path, template: str) -> None:
    """tests/unit/data/test_chat_template.py has many more."""
    edited(run.parent / "base" / "tokenizer_config.json", chat_template=template)
    message = refusal(
        run,
        lambda folder: task(
            "eval", "task=prompts", f"model.path={folder.parent / 'base'}", "prompt.is_chat=true"
        ),
    )
    assert "The chat template of" in message


def test_the_folder_itself_is_taken(pristine: Path) -> None:
    built(pristine)
