"""Upload a folder to the Hugging Face hub: only files that belong there, none with a secret."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from textwrap import shorten

import httpx
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from quarry.errors import UserError
from quarry.runtime.secret_values import without_secrets

ALLOWED = (
    "README.md", "LICENSE*", "NOTICE*", "config.json", "generation_config.json", "modules.json",
    "config_sentence_transformers.json", "sentence_bert_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "model.safetensors",
    "model-*-of-*.safetensors", "model.safetensors.index.json", "framed_transformer.py",
    "quarry_contract.json", "quarry_export.json", "quarry_golden.safetensors",
    "[0-9]_*/config.json", "[0-9]_*/model.safetensors",
)  # fmt: skip
"""Patterns of what an exported folder has; a * matches no slash. Nothing else is uploaded."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files of arbitrary pieces of text, which may look like anything."""

_TOKENS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|"
    r"github_pat_\w{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""Keys of well-known services."""

_PATH = re.compile(
    r"(?<![\w:/.<])/(?:home|Users|root|mnt|data|scratch|workspace|tmp|var)/[^\s\"']+"
)
"""Paths of any machine."""

_ABSOLUTE = re.compile(r"(?<![\w:/.<~])(?:/[\w.@+=,-]+){2,}")
"""What may be a path: it is one of this machine if something is there."""

_COMMON = ("/bin/", "/dev/", "/etc/", "/lib/", "/proc/", "/sbin/", "/sys/", "/usr/")
"""Folders that every machine has: what is there tells nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """The files of a folder that are uploaded.

    Attributes:
        files: names relative to the folder, with sizes in bytes, in order.
        left_out: names of other files there.
    """

    files: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(size for _, size in self.files)


def check_repo_name(repo: str) -> None:
    """Refuse what is no ORG/NAME of the hub.

    Raises:
        UserError: with the rule that it breaks.
    """
    try:
        validate_repo_id(repo)
        is_complete = repo.count("/") == 1
    except HFValidationError:
        is_complete = False
    if not is_complete:
        raise UserError(
            f"task.repo={repo}: no name of a repository (ORG/NAME of letters, digits, '-', '_' and "
            "'.', without '--' and '..', at most 96 characters). Fix: task.repo=ORG/NAME"
        )


def absolute_paths(text: str) -> set[str]:
    """Return what may be absolute paths of two or more parts."""
    return {match[0].rstrip(".,") for match in _ABSOLUTE.finditer(text)}


def list_upload(folder: Path, *, own_paths: Sequence[str] = ()) -> Upload:
    """List what of a folder is uploaded, after all of it was searched for secrets and paths.

    Args:
        own_paths: absolute paths of this machine that are searched too, with their parents of two
            or more parts; the working directory is always one.

    Raises:
        UserError: a file holds a secret or a path of this machine.
    """
    files, left_out = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        # a link may lead to any file of the user
        if stat.S_ISREG(mode) and any(_matches(name, pattern) for pattern in ALLOWED):
            files.append((name, path.stat().st_size))
        else:
            left_out.append(name)
    upload = Upload(files=tuple(files), left_out=tuple(left_out))
    own = _with_parents([*own_paths, str(Path.cwd()), str(Path.home())])
    found = [flaw for name, _ in upload.files for flaw in _flaws(folder / name, name, own)]
    if found:
        raise UserError(
            f"{folder}: not uploaded, since {'; '.join(found)}. Fix: take it out of the run's "
            "configuration or texts, remove the folder, and push again"
        )
    return upload


def upload(folder: Path, *, repo: str, names: Sequence[str], is_private: bool, token: str) -> str:
    """Upload files of a folder in one commit; return the commit's address.

    The repository is created if it does not exist.

    Args:
        names: relative to the folder.
        is_private: of a new repository; an existing public one is refused then.

    Raises:
        UserError: the hub refuses it or does not answer.
    """
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    try:
        api.create_repo(repo, private=is_private, exist_ok=True, repo_type="model")
        if is_private and not api.repo_info(repo, repo_type="model").private:
            raise UserError(
                f"task.repo={repo}: exists and is public, and task.private=true. Nothing was "
                "uploaded. Fix: task.private=false, or make it private on the hub"
            )
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="model",
            folder_path=folder,
            allow_patterns=[escape(name) for name in names],
            commit_message="Upload a dense retriever",
        )
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise _refusal(error, repo) from error
    return str(commit.commit_url)


def _refusal(error: Exception, repo: str) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, OfflineModeIsEnabled):
        what = "the hub's library is offline. Fix: unset HF_HUB_OFFLINE"
    elif status == 401:
        what = "the hub does not know the token (HTTP 401). Fix: hf auth login, or set HF_TOKEN"
    elif status == 403:
        owner = repo.partition("/")[0]
        what = (
            f"the token may not write there (HTTP 403). Fix: a token with write access to {owner}"
        )
    elif status == 404:
        what = f"the hub has no such organization or repository (HTTP 404). Fix: look at {page}"
    elif isinstance(error, httpx.TransportError | ConnectionError | TimeoutError):
        what = f"{constants.ENDPOINT} does not answer ({_reason(error)}). Fix: push again later"
    else:
        what = f"the hub refuses it ({_reason(error)}). Fix: look at {page}, and push again"
    return UserError(f"task.repo={repo}: {what}. Files that were uploaded before stay unreferenced")


def _reason(error: Exception) -> str:
    text = without_secrets(" ".join(str(error).split())) or type(error).__name__
    return shorten(text, 200, placeholder=" ...").rstrip(".")


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _with_parents(paths: Sequence[str]) -> list[str]:
    """Return absolute paths and their parents of two or more parts, the longest first."""
    found = {Path(path) for path in paths if path.startswith("/")}
    found |= {parent for path in found for parent in path.parents}
    home = Path.home()
    named = [str(path) for path in found if len(path.parts) > 2 or path == home != Path("/")]
    return sorted((path for path in named if not f"{path}/".startswith(_COMMON)), key=len)[::-1]


def _local_path(text: str, own: Sequence[str]) -> str | None:
    """Return a path of this machine that a text names."""
    local = _PATH.search(text)
    if local is not None:
        return local[0]
    for path in own:
        if re.search(rf"(?<![\w:/.<~-]){re.escape(path)}(?![\w-])", text) is not None:
            return path
    for candidate in absolute_paths(text):
        if not candidate.startswith(_COMMON) and os.path.lexists(candidate):
            return candidate
    return None


def _flaws(path: Path, name: str, own: Sequence[str]) -> Iterator[str]:
    """Yield why a file may not be uploaded."""
    if path.name in VOCABULARIES:
        return
    text = _header(path) if path.suffix == ".safetensors" else _text(path)
    if text is None:
        yield f"{name} is no text"
        return
    if without_secrets(text) != text:
        yield f"{name} holds a password, a token, or the value of a variable that is one"
    elif _TOKENS.search(text) is not None:
        yield f"{name} holds what looks like a key of a service"
    local = _local_path(text, own)
    if local is not None:
        yield f"{name} names a path of this machine ({shorten(local, 80, placeholder='...')})"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _header(path: Path) -> str | None:
    """Return the part of a safetensors file that is text."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:
            return None
        return file.read(length).decode("utf-8", "replace")
