"""Saved models come back the same, replace older ones as a whole, and carry their contract."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from helpers.models import letter_ids, letter_tokenizer, tiny_bi_encoder, tiny_qwen
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_backbone
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean
from quarry.models.saved import (
    CONTRACT_FILE,
    check_base,
    describe_base,
    read_contract,
    save_model,
)

TOKENS = pack([[5, 6, 7, 8], [9], [3, 4]])
CONTRACT = {"format": 1, "settings": {"prompt": {"query": "Q:{text}"}}, "temperature": None}


def save(folder: Path, *, model: BiEncoder | None = None, **contract: object) -> BiEncoder:
    model = model or tiny_bi_encoder()
    save_model(folder, model=model, tokenizer=letter_tokenizer(), contract=contract or CONTRACT)
    return model


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_saved_model_gives_the_same_embeddings(tmp_path: Path, is_causal: bool) -> None:
    model = save(tmp_path / "model", model=tiny_bi_encoder(is_causal=is_causal))
    backbone = load_backbone(str(tmp_path / "model"), dtype=torch.float32)
    again = BiEncoder(backbone=backbone, pooling=Mean(), is_causal=is_causal).eval()
    with torch.inference_mode():
        assert torch.equal(again(TOKENS), model(TOKENS))


@pytest.mark.parametrize("is_causal", [True, False])
def test_plain_transformers_loads_it_with_its_direction(tmp_path: Path, is_causal: bool) -> None:
    model = save(tmp_path / "model", model=tiny_bi_encoder(is_causal=is_causal))
    plain = AutoModel.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.encode("ab") == letter_ids("ab")
    with torch.inference_mode():
        states = plain(input_ids=torch.tensor([[5, 6, 7, 8]])).last_hidden_state[0]
        ours = model.token_states(TOKENS)[:4]
    torch.testing.assert_close(states, ours, atol=1e-5, rtol=0)  # another attention kernel


def test_an_older_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "model"
    save(folder, version=1)
    (folder / "leftover").write_text("of an older version")
    save(folder, version=2)
    assert read_contract(folder) == {"version": 2}
    assert not (folder / "leftover").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_older_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(folder, version=1)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(TypeError):
        save(folder, version=torch.nn.Linear(1, 1))  # no JSON
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_everyone_who_sees_the_folder_may_read_it(tmp_path: Path) -> None:
    save(tmp_path / "model")
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755
    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "model").iterdir()
    }
    assert "model.safetensors" in modes
    assert set(modes.values()) == {0o644}


def test_a_folder_of_chat_templates_stays_open(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages }}", "rag": "{{ documents }}"}
    save_model(tmp_path / "model", model=tiny_bi_encoder(), tokenizer=tokenizer, contract={})
    folders = [path for path in (tmp_path / "model").iterdir() if path.is_dir()]
    assert folders
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o500 == 0o500 for path in folders)


def test_the_contract_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "model")
    assert read_contract(tmp_path / "model") == CONTRACT
    assert read_contract(str(tmp_path / "model")) == CONTRACT


def test_no_contract(tmp_path: Path) -> None:
    assert read_contract(tmp_path) is None
    assert read_contract("Qwen/Qwen2.5-0.5B") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b'"text"'])
def test_a_damaged_contract_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONTRACT_FILE).write_bytes(content)
    with pytest.raises(
        UserError, match=rf"{CONTRACT_FILE}: (not valid JSON|must hold a JSON object)"
    ):
        read_contract(tmp_path)


def test_the_contract_is_readable_json(tmp_path: Path) -> None:
    save(tmp_path / "model", prompt="Frage: {text} – né")
    text = (tmp_path / "model" / CONTRACT_FILE).read_text(encoding="utf-8")
    assert "Frage: {text} – né" in text
    assert json.loads(text) == {"prompt": "Frage: {text} – né"}


def test_golden_vectors_come_from_the_finished_folder_and_take_their_place_with_it(
    tmp_path: Path,
) -> None:
    def add(folder: Path) -> None:
        assert (folder / "model.safetensors").exists()
        assert not (tmp_path / "model").exists()
        (folder / "golden").write_text("vectors")

    save_model(
        tmp_path / "model",
        model=tiny_bi_encoder(),
        tokenizer=letter_tokenizer(),
        contract=CONTRACT,
        add_golden=add,
    )
    assert (tmp_path / "model" / "golden").read_text() == "vectors"


def test_other_weights_under_an_adapter_are_refused(tmp_path: Path) -> None:
    base, other, adapter = tmp_path / "base", tmp_path / "other", tmp_path / "adapter"
    tiny_qwen().save_pretrained(base)
    changed = tiny_qwen()
    with torch.no_grad():
        changed.layers[0].mlp.up_proj.weight[0, 0] += 1
    changed.save_pretrained(other)
    described = describe_base(str(base), revision=None, commit=None)
    save(adapter, base=described)
    check_base(str(adapter), str(base), revision=None)
    with pytest.raises(UserError, match=rf"trained on {base}.*{other} holds other.*base_path=DIR"):
        check_base(str(adapter), str(other), revision=None)


def test_an_adapter_without_contract_is_trusted(tmp_path: Path) -> None:
    tiny_qwen().save_pretrained(tmp_path)
    check_base(str(tmp_path / "none"), str(tmp_path), revision=None)


def test_the_contract_of_an_earlier_version_is_read_with_the_names_of_today(tmp_path: Path) -> None:
    stored = {"model.is_causal": True, "model.is_normalized": False}
    save(tmp_path / "model", format=2, settings=stored)
    assert read_contract(tmp_path / "model") == {
        "format": 2,
        "settings": {"model.is_causal": True, "model.normalize": False},
    }


def test_a_link_in_the_place_of_a_model_is_replaced_and_its_folder_stays(tmp_path: Path) -> None:
    victim = tmp_path / "thesis"
    victim.mkdir()
    for name in ("model", ".model.old"):
        (tmp_path / name).symlink_to(victim)
    save(tmp_path / "model")
    assert (tmp_path / "model" / CONTRACT_FILE).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "thesis"]
