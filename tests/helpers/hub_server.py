"""A hub on this machine: an HTTP server with the part of huggingface.co's API that is used."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from quarry.runtime.hub_access import PROXIES

TOKEN = "hf_stand_in"


def commit_of(name: str) -> str:
    """Return a commit, 40 hexadecimal digits, that depends on the text alone."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


@dataclass
class StandInHub:
    """A hub and what was asked of it.

    Attributes:
        address: of the server.
        repositories: "models/OWNER/NAME" or "datasets/OWNER/NAME" -> commits, each with its folder.
        gated: repositories whose files need `TOKEN`.
        cut: names of files whose next download breaks off half-way.
        failing: names of files that the server fails to give.
        asked: method and path of every request.
        ranges: of downloads that went on where they had broken off.
    """

    address: str = ""
    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def add(self, name: str, folder: Path, *, kind: str = "models", commit: str = "") -> str:
        """Add a commit of a repository, which is its newest then; return it."""
        commit = commit or commit_of(name)
        self.repositories.setdefault(f"{kind}/{name}", {})[commit] = folder
        return commit

    def downloads(self) -> list[str]:
        """Return the names of the files that were asked for, in any order."""
        files = [line.partition("/resolve/")[2] for line in self.asked if line.startswith("GET")]
        return sorted(name.partition("/")[2] for name in files if name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, has_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith("api/"):
            self._api(path.removeprefix("api/").split("/"))
            return
        kind = "datasets" if path.startswith("datasets/") else "models"
        name, _, rest = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self._file(kind, name, revision, file, has_body=has_body)

    def _api(self, parts: list[str]) -> None:
        kind, name, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        found = self._commit(kind, name, rest[1] if len(rest) > 1 else "main")
        if found is None:
            return
        if rest == ["auth-check"]:
            if self._may_read(kind, name):
                self._json({})
        elif rest[:1] == ["tree"]:
            self._json([self._entry(*found, path=path) for path in _files(found[1])])
        else:
            key = f"{kind}/{name}"
            siblings = [self._sibling(*found, path=path) for path in _files(found[1])]
            gated: object = "manual" if key in self.hub.gated else False
            self._json({"id": name, "sha": found[0], "gated": gated, "siblings": siblings})

    def _commit(self, kind: str, name: str, revision: str) -> tuple[str, Path] | None:
        commits = self.hub.repositories.get(f"{kind}/{name}")
        if commits is None:
            self._refuse(401, "RepoNotFound")  # as the hub says it to those who are not logged in
            return None
        if revision == "main":
            revision = list(commits)[-1]
        if revision not in commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return revision, commits[revision]

    def _may_read(self, kind: str, name: str) -> bool:
        token = self.headers.get("Authorization")
        if f"{kind}/{name}" not in self.hub.gated or token == f"Bearer {TOKEN}":
            return True
        self._refuse(401 if token is None else 403, "GatedRepo")
        return False

    def _sibling(self, commit: str, folder: Path, *, path: str) -> dict[str, Any]:
        entry = self._entry(commit, folder, path=path)
        return {"rfilename": path, "size": entry["size"], "blobId": entry["oid"]} | (
            {"lfs": {"size": entry["size"], "sha256": entry["lfs"]["oid"], "pointerSize": 130}}
            if "lfs" in entry
            else {}
        )

    def _entry(self, _: str, folder: Path, *, path: str) -> dict[str, Any]:
        content = (folder / path).read_bytes()
        entry = {"type": "file", "path": path, "size": len(content), "oid": _git_blob(content)}
        if not _is_large(path):
            return entry
        sha256 = hashlib.sha256(content).hexdigest()
        return entry | {"lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}}

    def _file(self, kind: str, name: str, revision: str, file: str, *, has_body: bool) -> None:
        found = self._commit(kind, name, revision)
        if found is None or not self._may_read(kind, name):
            return
        commit, folder = found
        if not (folder / file).is_file():
            self._refuse(404, "EntryNotFound", commit=commit)
            return
        if has_body and Path(file).name in self.hub.failing:
            self._refuse(500, "")
            return
        content = (folder / file).read_bytes()
        begin = self._begin(len(content))
        self.send_response(206 if begin else 200)
        large = hashlib.sha256(content).hexdigest()
        self.send_header("ETag", f'"{large if _is_large(file) else _git_blob(content)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not has_body:
            return
        if Path(file).name in self.hub.cut:
            self.hub.cut.remove(Path(file).name)
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[begin:])

    def _begin(self, num_bytes: int) -> int:
        wanted = self.headers.get("Range")
        if wanted is None:
            return 0
        self.hub.ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").partition("-")[0])
        assert 0 < begin < num_bytes
        return begin

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, *, commit: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".parquet", ".gz"))


def _git_blob(content: bytes) -> str:
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@contextmanager
def served_hub() -> Iterator[StandInHub]:
    """Serve an empty hub on a port of this machine."""
    hub = StandInHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: StandInHub, cache: Path) -> None:
    """Make `hub` the one that this process asks, and `cache` its cache."""
    go_online(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "no-token"))
    for name in (*PROXIES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.address)


def go_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process ask the hub, as `conftest.py` does not."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def large_copies(folder: Path) -> Path:
    """Put forms of a model's weights beside it that nothing here reads."""
    for name in ("pytorch_model.bin", "model.gguf", "onnx/model.onnx", "onnx/model.safetensors",
                 "consolidated.safetensors", "tf_model.h5"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "config.json", folder / name)
    return folder
