"""List a repository's files that a run reads, with sizes, from the Hub or from its cache."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten

import httpx
from huggingface_hub import HfApi, constants, get_cached_repo_tree
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from quarry.errors import UserError
from quarry.runtime.hub_files import MAIN, HubFiles, Kind

COMMIT = re.compile(r"[0-9a-f]{40}")
INDEX = ".safetensors.index.json"
"""Suffix of the file that names the shards of a model's weights."""

SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})")
TIMEOUT_S = 60.0


class CannotFetchError(UserError):
    """Error for a repository that the Hub or the cache cannot provide; others may be available."""


class UnreachableError(UserError):
    """Error for a Hub that does not answer at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFile:
    """A file of a repository.

    Attributes:
        name: relative to the repository.
        num_bytes: size as the Hub states it; for a cache without a listing, the size on disk.
        blob: name of its content in the Hub's cache; None: unknown.
    """

    name: str
    num_bytes: int
    blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of a repository that are read, at one commit.

    Attributes:
        repo, kind: name and kind of the repository.
        revision: the requested revision; None: the newest.
        commit: full hash.
        used_by: what reads them, for people.
        files: the files that are read.
        lacks: required files that do not exist, for people.
        is_gated: its files are given only to users who have accepted its terms.
    """

    repo: str
    kind: Kind
    revision: str | None
    commit: str
    used_by: tuple[str, ...]
    files: tuple[ListedFile, ...]
    lacks: tuple[str, ...] = ()
    is_gated: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the files in the Hub's cache, existing or not."""
        return cache_folder(self.repo, self.kind) / "snapshots" / self.commit

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    def num_missing_bytes(self) -> int:
        """Return the bytes that the Hub's cache lacks."""
        return sum(file.num_bytes for file in self.files if not self._is_here(file))

    def _is_here(self, file: ListedFile) -> bool:
        places = [self.folder / file.name]
        if file.blob is not None:  # as part of another commit
            places.append(cache_folder(self.repo, self.kind) / "blobs" / file.blob)
        return any(path.is_file() and path.stat().st_size == file.num_bytes for path in places)

    def flaws(self) -> list[str]:
        """Return what is wrong with the files in the Hub's cache, for people."""
        found = list(self.lacks)
        for file in self.files:
            path = self.folder / file.name
            if not path.is_file():
                found.append(f"{file.name} is missing")
            elif path.stat().st_size != file.num_bytes:
                found.append(
                    f"{path} has {path.stat().st_size:,} bytes (expected: {file.num_bytes:,}); "
                    f"delete {path.resolve()}"
                )
        return found + list(self._missing_shards())

    def _missing_shards(self) -> Iterator[str]:
        for file in self.files:
            index = self.folder / file.name
            if not file.name.endswith(INDEX) or not index.is_file():
                continue
            try:
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError):
                yield f"{file.name} names no shards"
                continue
            missing = sorted(shard for shard in shards if not (index.parent / shard).is_file())
            if missing:
                yield f"{', '.join(missing[:3])} of {file.name} missing ({len(missing)} in all)"


def list_on_hub(files: Sequence[HubFiles]) -> Listing:
    """Return the files of one repository as the Hub lists them.

    Args:
        files: files of that repository, see `hub_files.grouped`.

    Raises:
        CannotFetchError: there is no such repository or revision, the user has no access to files
            that the cache lacks, or required files do not exist.
        UnreachableError: the Hub does not answer.
    """
    first, api = files[0], HfApi()
    ask = api.model_info if first.kind == "model" else api.dataset_info
    try:
        info = ask(first.repo, revision=first.revision, files_metadata=True, timeout=TIMEOUT_S)
    except (HfHubHTTPError, HFValidationError, OSError, httpx.TransportError) as error:
        raise hub_refusal(error, files) from error
    available = {
        sibling.rfilename: ListedFile(
            name=sibling.rfilename,
            num_bytes=int((sibling.lfs.size if sibling.lfs else sibling.size) or 0),
            blob=sibling.lfs.sha256 if sibling.lfs else sibling.blob_id,
        )
        for sibling in info.siblings or ()
    }
    listing = _listing(files, available, commit=str(info.sha), is_gated=bool(info.gated))
    if listing.lacks:
        raise CannotFetchError(f"{repository_name(first)}: {'; '.join(listing.lacks)}.")
    if listing.is_gated and listing.num_missing_bytes():
        try:
            api.auth_check(first.repo, repo_type=first.kind)
        except (HfHubHTTPError, OSError, httpx.TransportError) as error:
            raise hub_refusal(error, files) from error
    return listing


def list_in_cache(files: Sequence[HubFiles]) -> Listing:
    """Return the files that the Hub's cache should have of one repository, without asking the Hub.

    Exact if the cache has the repository's listing, which `task=fetch` and `hf download` store
    there. Otherwise the files on disk count, and shards that are missing by the names of others.

    Raises:
        CannotFetchError: the cache has nothing of it.
    """
    first = files[0]
    folder = cache_folder(first.repo, first.kind)
    commit = _cached_commit(folder, first.revision)
    snapshot = folder / "snapshots" / (commit or "-")
    if commit is None or not snapshot.is_dir():
        raise CannotFetchError(f"{repository_name(first)}: nothing of it is there.")
    try:
        tree = get_cached_repo_tree(
            first.repo, repo_type=first.kind, revision=commit, cache_dir=constants.HF_HUB_CACHE
        )
        available = {f.path: ListedFile(name=f.path, num_bytes=f.size) for f in tree}
        return _listing(files, available, commit=commit)
    except CachedRepoTreeNotFoundError:
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*")]
        available = {
            name: ListedFile(name=name, num_bytes=(snapshot / name).stat().st_size)
            for name in names
            if (snapshot / name).is_file()
        }
    listing = _listing(files, available, commit=commit)
    gaps = [f"{name} is missing" for name in _gaps([file.name for file in listing.files])]
    return replace(listing, lacks=(*listing.lacks, *gaps))


def _listing(
    files: Sequence[HubFiles],
    available: dict[str, ListedFile],
    *,
    commit: str,
    is_gated: bool = False,
) -> Listing:
    names = sorted(set().union(*(each.chosen(available) for each in files)))
    lacking = [text for each in files for text in each.lacking(available)]
    lacks = [f"has no {text}" for text in dict.fromkeys(lacking)]
    first = files[0]
    return Listing(
        repo=first.repo,
        kind=first.kind,
        revision=first.revision,
        commit=commit,
        used_by=tuple(dict.fromkeys(each.used_by for each in files)),
        files=tuple(available[name] for name in names),
        lacks=tuple(lacks if names or lacks else ["has no file that would be read"]),
        is_gated=is_gated,
    )


def _cached_commit(folder: Path, revision: str | None) -> str | None:
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    reference = folder / "refs" / (revision or MAIN)
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _gaps(names: Collection[str]) -> Iterator[str]:
    """Yield the missing shards by names such as corpus-00000-of-00002.parquet."""
    found: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if shard := SHARD.match(name):
            found.setdefault((shard[1], shard[3]), set()).add(int(shard[2]))
    for (begin, number), indices in found.items():
        first = 0 if 0 in indices else 1
        for index in sorted(set(range(first, first + int(number))) - indices):
            yield f"{begin}{index:05}-of-{number}"


def cache_folder(repo: str, kind: Kind) -> Path:
    """Return the folder of a repository in the Hub's cache."""
    name = repo_folder_name(repo_id=repo, repo_type=kind)
    return Path(constants.HF_HUB_CACHE).expanduser() / name


def repository_name(files: HubFiles | Listing) -> str:
    """Return a repository's name for messages and for URLs of the Hub."""
    prefix = "" if files.kind == "model" else f"{files.kind}s/"
    revision = files.revision
    if revision is None:
        return prefix + files.repo
    return f"{prefix}{files.repo}@{revision[:8] if COMMIT.fullmatch(revision) else revision}"


def hub_refusal(error: Exception, files: Sequence[HubFiles] | Sequence[Listing]) -> UserError:
    """Return the UserError for an error of the Hub's library, with its meaning and a remedy."""
    first = files[0]
    if isinstance(error, OfflineModeIsEnabled | httpx.TransportError | ConnectionError):
        return UnreachableError(f"{constants.ENDPOINT} does not answer ({_reason(error)})")
    return CannotFetchError(f"{repository_name(first)}: {_meaning(error, first)}")


def _meaning(error: Exception, first: HubFiles | Listing) -> str:
    page = f"{constants.ENDPOINT}/{repository_name(first).partition('@')[0]}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return (
            "its files are given to those who have accepted its terms. Fix: accept them at "
            f"{page}, then give a token of that account: hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the hub has no such repository, or a private one. Fix: check the name at "
            f"{page}; of a private one: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {first.revision}. Fix: a branch, tag or commit of {page}"
    if isinstance(error, HFValidationError):
        return "neither a folder that is here nor a name on the hub. Fix: check the path"
    if status in (401, 403):
        return f"the hub refuses it (HTTP {status}). Fix: look at {page}, then hf auth login"
    return f"{_reason(error)}. Fix: run the command again"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return shorten(text, 200, placeholder=" ...").rstrip(".")
