"""A run becomes a folder for the hub, with nothing of this machine in it; uploaded with a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from helpers.earlier_run import copied
from quarry.errors import UserError
from quarry.runtime import secret_values
from quarry.tasks.push import LICENSE_NOTE, push
from quarry.tasks.verify import verify

REPO = "me/my-retriever"
UPLOADED: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("push")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    return copied(home / "made")


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither of this machine's accounts, nor what other tests have remembered."""
    monkeypatch.setattr(secret_values, "_known", {})
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    UPLOADED.clear()


def of(run: Path | None) -> DictConfig:
    return OmegaConf.create({"run": None if run is None else str(run)})


def test_without_a_token_all_that_would_be_uploaded_is_listed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = push(of(run), repo=REPO)
    out = capsys.readouterr().out
    hub = run / "hub"
    names = sorted(p.relative_to(hub).as_posix() for p in hub.rglob("*") if p.is_file())
    assert result["push/num_files"] == len(names)
    assert all(f"  {name}\n" in out for name in names)
    assert "Nothing was uploaded: there is no token of the hub" in out
    assert f"It would go to {REPO} (private)." in out
    assert {"README.md", LICENSE_NOTE, "model.safetensors", "quarry_contract.json"} <= set(names)
    assert not any("ckpt" in name or "wandb" in name for name in names)
    # nothing of this machine, and the folder is a model that verifies itself
    for name in names:
        assert str(run.parent).encode() not in (hub / name).read_bytes(), name
    contract = json.loads((hub / "quarry_contract.json").read_text())
    assert (contract["base"]["source"], contract["exported_from"]["source"]) == ("base", "model")
    assert min(verify(of(hub), export=None).values()) > 1 - 1e-6
    card = ModelCard.load(hub / "README.md")
    assert card.data.model_name == REPO
    assert f'SentenceTransformer("{REPO}"' in card.text
    assert [r.metric_type for r in card.data.eval_results]


def test_a_prepared_folder_of_the_same_weights_is_used_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(of(run), repo=REPO)
    (run / "hub" / "LICENSE").write_text("mine")
    before = (run / "hub" / "model.safetensors").stat().st_ino
    monkeypatch.setattr("quarry.tasks.push.exported_folder", None)
    push(of(run), repo="me/other", private=False)
    assert (run / "hub" / "model.safetensors").stat().st_ino == before
    assert (run / "hub" / "LICENSE").read_text() == "mine"
    assert 'SentenceTransformer("me/other"' in (run / "hub" / "README.md").read_text()


def test_one_of_other_weights_is_made_anew_and_foreign_folders_are_left_alone(
    tmp_path: Path,
) -> None:
    run = copied(tmp_path / "made")
    push(of(run), repo=REPO, dtype="bfloat16")
    weights = run / "hub" / "model.safetensors"
    assert {t.dtype for t in load_file(weights).values()} == {torch.bfloat16}
    adapter = run / "model" / "adapter_model.safetensors"
    state = {name: 1.5 * tensor for name, tensor in load_file(adapter).items()}
    save_file(state, adapter, metadata={"format": "pt"})
    before = weights.read_bytes()
    push(of(run), repo=REPO, dtype="bfloat16")
    assert weights.read_bytes() != before
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(UserError, match=r"mine exists and is no folder that task=push made"):
        push(of(run), repo=REPO, folder=str(mine))
    assert list(mine.iterdir()) == []


def test_with_a_token_it_is_uploaded(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = "hf_of_a_stand_in_for_the_hub"

    def uploaded(folder: Path, **settings: Any) -> str:
        UPLOADED.append(settings)
        return "https://hub/commit"

    monkeypatch.setattr("quarry.tasks.push.upload", uploaded)
    monkeypatch.setenv("HF_TOKEN", token)
    push(of(run), repo=REPO)
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    push(of(run), repo=REPO, dry_run=True)
    assert "Nothing was uploaded: task.dry_run=true" in capsys.readouterr().out
    assert UPLOADED == []
    push(of(run), repo=REPO, private=False)
    (settings,) = UPLOADED
    assert (settings["repo"], settings["is_private"], settings["token"]) == (REPO, False, token)
    assert LICENSE_NOTE in settings["names"]
    out = capsys.readouterr().out
    assert "Uploaded to https://hub/commit" in out
    assert token not in out


SECRET = "planted-in-the-environment"


def test_planted_secrets_do_not_get_into_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(tmp_path / "made")
    monkeypatch.setenv("MY_API_KEY", SECRET)
    caveats = [
        "read from https://me:planted-in-a-url@host/x", f"with {SECRET}", "of /mnt/planted/x.jsonl"
    ]  # fmt: skip
    (run / "summary.json").write_text(json.dumps({"caveats": caveats}))
    (run / "wandb_run.json").write_text('{"id": "planted-id"}')
    (run / "model" / "optimizer.pt").write_text("planted")
    push(of(run), repo=REPO)
    files = [path for path in (run / "hub").rglob("*") if path.is_file()]
    assert not any(b"planted" in path.read_bytes() for path in files)
    assert "- Note: of x.jsonl." in (run / "hub" / "README.md").read_text()
    assert SECRET not in capsys.readouterr().out
    (run / "hub" / "modules.json").write_text(json.dumps([SECRET]))
    with pytest.raises(UserError, match=r"modules\.json holds a password, a token") as refused:
        push(of(run), repo=REPO)
    assert SECRET not in str(refused.value)


def test_paths_of_the_runs_configuration_end_the_command(tmp_path: Path) -> None:
    run = copied(tmp_path / "made")
    with (run / "config.yaml").open("a") as file:
        file.write("more: {cache_dir: /lustre/team/planted/cache}\n")
    push(of(run), repo=REPO)
    for path in ("/lustre/team/planted/cache/x", "/lustre/team/planted", str(run)):
        (run / "hub" / "modules.json").write_text(json.dumps(["of", path]))
        with pytest.raises(UserError, match=r"modules\.json names a path of this machine"):
            push(of(run), repo=REPO)


def test_options_are_checked_first(run: Path) -> None:
    with pytest.raises(UserError, match=r"task\.repo is not set.*task\.repo=ORG/NAME"):
        push(of(run), repo=None)
    with pytest.raises(UserError, match=r"task\.repo=model: no name of a repository"):
        push(of(run), repo="model")
    with pytest.raises(UserError, match=r"task\.dtype=int8 is not one of"):
        push(of(run), repo=REPO, dtype="int8")
    with pytest.raises(UserError, match="run is not set"):
        push(of(None), repo=REPO)
