"""What is uploaded, what is not, and what the hub's refusals mean."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from safetensors.torch import save_file

from quarry.errors import UserError
from quarry.runtime import secret_values
from quarry.runtime.hub_access import PROXIES
from quarry.runtime.hub_upload import check_repo_name, list_upload, upload


@pytest.fixture(autouse=True)
def _no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_values, "_known", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", "config.json", "tokenizer.json", "1_Pooling/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": "/api/v1", "b": "https://host/home/page"}')
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", ["me/model", "My-Org/a_model.v1-2"])
def test_names(name: str) -> None:
    check_repo_name(name)


@pytest.mark.parametrize(
    "name", ["model", "", "a/b/c", "me/mo del", "me/a--b", "me/..", "/model", "me/", "me/x.git",
             "https://huggingface.co/me/model", "me/" + "x" * 100, "-me/model", "../me"],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match=r"^task\.repo=.*Fix: task\.repo=ORG/NAME"):
        check_repo_name(name)


def test_only_files_of_an_export_are_listed(folder: Path, tmp_path: Path) -> None:
    unwanted = [
        ".env", "optimizer.pt", "wandb_run.json", "wandb/run.json", ".cache/huggingface/x.lock",
        "checkpoints/last.ckpt", "config.yaml", "run.log", "other.py", "pytorch_model.bin",
        "sub/model.safetensors",
    ]  # fmt: skip
    for name in unwanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("hf_abcdefghijklmnopqrstuvwxyz")
    (folder / "LICENSE").symlink_to("/etc/passwd")
    listed = list_upload(folder)
    assert [name for name, _ in listed.files] == [
        "1_Pooling/config.json", "README.md", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert sorted(listed.left_out) == sorted([*unwanted, "LICENSE"])
    assert listed.num_bytes == sum((folder / name).stat().st_size for name, _ in listed.files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf_abcdefghijklmnopqrstuvwxyz", "key of a service"),
        ("AKIAABCDEFGHIJKLMNOP", "key of a service"),
        ("-----BEGIN RSA PRIVATE KEY-----", "key of a service"),
        ("planted-in-the-run", "password, a token"),
        ("https://someone:secret@host/x", "password, a token"),
        ('{"source": "/home/someone/models/mine"}', r"path of this machine \(/home/someone/m"),
        ("see /scratch/run7/model", "path of this machine"),
    ],
)
def test_a_secret_or_a_path_in_any_text_is_found(folder: Path, text: str, message: str) -> None:
    secret_values.remember("planted-in-the-run")
    for name in ("README.md", "config.json", "1_Pooling/config.json"):
        before = (folder / name).read_text()
        (folder / name).write_text(before + text)
        with pytest.raises(UserError, match=f"{name} .*{message}"):
            list_upload(folder)
        (folder / name).write_text(before)
    list_upload(folder)
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors", metadata={"from": text})
    with pytest.raises(UserError, match="model.safetensors"):
        list_upload(folder)


@pytest.mark.parametrize(
    "text",
    [
        "/nfs/team/models/base", "in /nfs/team/models.", '"/nfs/team"', "/gpfs/p1/cache/x.bin",
        "{folder}/README.md", "{cwd}/conf",
    ],
)  # fmt: skip
def test_paths_of_this_machine_are_found(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they begin with: the patterns of well-known folders are off."""
    monkeypatch.setattr("quarry.runtime.hub_upload._PATH", re.compile("(?!)"))
    monkeypatch.chdir(folder / "1_Pooling")
    shown = text.format(folder=folder, cwd=Path.cwd())
    own = ("/nfs/team/models/base", "/gpfs/p1/cache", "relative", "")
    (folder / "README.md").write_text(f"a model, {shown}")
    with pytest.raises(UserError, match="README.md names a path of this machine"):
        list_upload(folder, own_paths=own)


def test_what_only_looks_like_a_path_is_no_flaw(folder: Path) -> None:
    (folder / "README.md").write_text(
        "/v1/embeddings /nfs/team2/x /usr/bin/python3 #!/bin/sh https://host/nfs/team/models "
        "a/b/c and/or `src/nfs/team` 1/2/3 </nfs/team> /nfs"
    )
    list_upload(folder, own_paths=("/nfs/team/models", "/usr/bin"))


class StandIn:
    """The part of HfApi that is used."""

    calls: list[tuple[str, dict[str, Any]]]
    error: Exception | None
    is_private: bool

    def __init__(self, **settings: Any) -> None:
        self._call("api", settings)

    def _call(self, name: str, settings: dict[str, Any]) -> None:
        type(self).calls.append((name, settings))

    def create_repo(self, repo: str, **settings: Any) -> None:
        self._call("create", {"repo": repo, **settings})
        if self.error is not None:
            raise self.error

    def repo_info(self, repo: str, **_: Any) -> Any:
        return SimpleNamespace(private=self.is_private)

    def upload_folder(self, **settings: Any) -> Any:
        self._call("upload", settings)
        return SimpleNamespace(commit_url="https://hub/me/model/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    hub = type("Hub", (StandIn,), {"calls": [], "error": None, "is_private": True})
    monkeypatch.setattr("quarry.runtime.hub_upload.HfApi", hub)
    return hub


def uploaded(folder: Path, *, is_private: bool = True) -> str:
    return upload(
        folder, repo="me/model", names=["README.md", "a[1].json"], is_private=is_private,
        token="hf_stand_in",
    )  # fmt: skip


def test_a_private_repository_is_created_and_the_names_alone_are_uploaded(
    hub: type[StandIn], folder: Path
) -> None:
    assert uploaded(folder) == "https://hub/me/model/commit/1"
    names, settings = zip(*hub.calls, strict=True)
    assert names == ("api", "create", "upload")
    assert settings[0]["token"] == "hf_stand_in"
    assert (settings[1]["private"], settings[1]["exist_ok"]) == (True, True)
    assert settings[2]["allow_patterns"] == ["README.md", "a[[]1].json"]
    assert settings[2]["folder_path"] == folder


def test_nothing_private_goes_to_a_public_repository(hub: type[StandIn], folder: Path) -> None:
    hub.is_private = False
    with pytest.raises(UserError, match=r"exists and is public.*task\.private=false"):
        uploaded(folder)
    assert [name for name, _ in hub.calls] == ["api", "create"]
    uploaded(folder, is_private=False)
    assert hub.calls[-1][0] == "upload"


def http_error(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    request = httpx.Request("POST", "https://hub/api/repos/create")
    return kind(f"{status} for hf_x", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(401), r"does not know the token \(HTTP 401\).*hf auth login"),
        (http_error(401, RepositoryNotFoundError), r"does not know the token \(HTTP 401\)"),
        (http_error(403), r"may not write there \(HTTP 403\).*write access to me"),
        (http_error(404), r"no such organization or repository \(HTTP 404\)"),
        (http_error(500), "the hub refuses it .*push again"),
        (httpx.ConnectError("no route"), r"does not answer \(no route\)"),
        (httpx.ReadTimeout("slow"), r"does not answer \(slow\)"),
        (OSError("no space"), r"refuses it \(no space\)"),
    ],
)
def test_refusals_have_their_meaning(
    hub: type[StandIn], folder: Path, error: Exception, message: str
) -> None:
    hub.error = error
    with pytest.raises(UserError, match=f"^task.repo=me/model: .*{message}"):
        uploaded(folder)


def test_a_hub_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own client, on a port where nobody listens."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    with pytest.raises(UserError, match="offline.*unset HF_HUB_OFFLINE"):
        uploaded(folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=f"{url} does not answer"):
        uploaded(folder)
