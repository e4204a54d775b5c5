"""The embedded default model: the same for everyone, made once, and fluent in identifiers."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from quarry.models.backbones.huggingface import load_tokenizer
from quarry.stand_ins.tiny_qwen import END_TOKEN, TinyQwen, train_tokenizer

TEXTS = (
    "Read a line of text from the file and return it as a string",
    "def read_line(self, file_name): return self.openFile(file_name).readLine()",
    "class HTTPServer: parse the http response of a server",
) * 3


def recipe(cache_dir: Path, **more: Any) -> TinyQwen:
    settings = {
        "texts": lambda: TEXTS,
        "cache_dir": cache_dir,
        "vocab_size": 400,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_layers": 1,
        "num_heads": 2,
        "embedding_std": 0.2,
        "seed": 0,
    } | more
    return TinyQwen(**settings)


def digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }


def test_the_folder_is_an_ordinary_one_with_one_end_token(tmp_path: Path) -> None:
    folder = recipe(tmp_path).folder()
    model = AutoModel.from_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(tokenizer) <= 400
    assert tokenizer.eos_token == tokenizer.pad_token == END_TOKEN
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.embed_tokens.weight.std().item() == pytest.approx(0.2, rel=0.1)
    assert model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert folder.parent == tmp_path / "models"


def test_the_same_recipe_gives_the_same_files(tmp_path: Path) -> None:
    one = recipe(tmp_path / "one").folder()
    two = recipe(tmp_path / "two").folder()
    assert one.name == two.name
    assert digests(one) == digests(two)
    assert "model.safetensors" in digests(one)


def test_a_second_process_makes_the_same_files_and_finds_what_is_there(tmp_path: Path) -> None:
    here = recipe(tmp_path / "here").folder()
    script = (
        "import sys; from pathlib import Path\n"
        "from test_tiny_qwen import recipe\n"
        "for cache in sys.argv[1:]: print(recipe(Path(cache)).folder())\n"
    )
    before = digests(here), (here / "model.safetensors").stat().st_mtime_ns
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "there"), str(tmp_path / "here")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    there, found = (Path(line) for line in out.stdout.splitlines()[-2:])  # after what libraries say
    assert digests(there) == digests(here)
    assert found == here
    assert (digests(here), (here / "model.safetensors").stat().st_mtime_ns) == before


def test_the_cache_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quarry")
    recipe(tmp_path).folder()
    assert len(caplog.records) == 1
    recipe(tmp_path).folder()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"hidden_size": 32},
        {"vocab_size": 300},
        {"embedding_std": 0.1},
        {"texts": lambda: TEXTS[1:]},
    ],
)
def test_another_recipe_is_another_model(tmp_path: Path, change: dict[str, Any]) -> None:
    one, two = recipe(tmp_path).folder(), recipe(tmp_path, **change).folder()
    assert one != two
    assert digests(one) != digests(two)


def test_two_at_once_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is first: its folder stays, ours leaves nothing behind."""
    ours = recipe(tmp_path)

    def texts_and_meanwhile(*args: Any, **kwargs: Any) -> PreTrainedTokenizerFast:
        monkeypatch.undo()
        recipe(tmp_path).folder()
        return train_tokenizer(*args, **kwargs)

    monkeypatch.setattr("quarry.stand_ins.tiny_qwen.train_tokenizer", texts_and_meanwhile)
    folder = ours.folder()
    assert list((tmp_path / "models").iterdir()) == [folder]
    assert (folder / "model.safetensors").exists()


def test_making_it_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    recipe(tmp_path).folder()
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=500)


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("readLine", "read line"),
        ("read_line", "read line"),
        ("Read  line\n", "read line"),
        ("file_name", "file name"),
        ("HTTPServer", "http server"),
        ("__parseHTTP_response", "parse http response"),
        ("READ", "read"),
    ],
)
def test_identifiers_share_tokens_with_words(
    tokenizer: PreTrainedTokenizerFast, identifier: str, words: str
) -> None:
    assert tokenizer.encode(identifier) == tokenizer.encode(words) != []


def test_every_text_has_tokens_and_none_is_the_end_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for text in ("Ω ≠ 你好 🙂", "x+=1", "\x00", "naïve"):
        ids = tokenizer.encode(text)
        assert ids
        assert tokenizer.eos_token_id not in ids


def test_white_space_costs_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.encode(" \n\t ") == []
    assert tokenizer.encode("a\n        b") == tokenizer.encode("a b")


def test_the_tokenizer_that_is_loaded_is_the_one_that_was_trained(tmp_path: Path) -> None:
    # transformers' own choice for a Qwen2 folder is a class that drops normaliser and pre-tokenizer
    trained = train_tokenizer(TEXTS, vocab_size=400)
    loaded = load_tokenizer(str(recipe(tmp_path).folder()))
    for text in (*TEXTS, "readLine read_line HTTPServer2"):
        assert loaded.encode(text) == trained.encode(text)
    assert loaded.encode("readLine") == loaded.encode("read_line") == loaded.encode("Read line")
