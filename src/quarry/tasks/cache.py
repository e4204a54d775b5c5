"""List what the cache holds, and remove what is named, old, or too much."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.overrides import warn_of_run_directory
from quarry.distributed import world
from quarry.errors import UserError
from quarry.runtime.cache_use import IN_USE, unused
from quarry.runtime.files import remove_at_once as remove_path
from quarry.runtime.lock import locked_if_free
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show
from quarry.tasks.cache_kinds import KINDS, Folders, Kind, Origin
from quarry.tasks.cache_page import cache_table, readable_age
from quarry.tasks.fetch_page import readable_size

logger = logging.getLogger(__name__)

ALL = "all"
STATES = ("changed", "gone")
"""Words of `task.remove` for entries whose source is not what it was."""

DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of the cache.

    Attributes:
        name: its path below its folder, without a suffix.
        files: what it consists of.
        num_bytes: that it takes on disk.
        used_s: when it was used last, in seconds since 1970.
    """

    kind: Kind
    name: str
    path: Path
    files: tuple[Path, ...]
    num_bytes: int
    used_s: float
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Which entries were removed, and why others could not be."""

    removed: tuple[Entry, ...]
    reasons: Mapping[str, str]
    """Why an entry stays, by its name."""


def cache(
    config: DictConfig, *, remove: Sequence[str] | str | None, older_than_days: float | None
) -> dict[str, float]:
    """Remove entries of the cache where that is asked for, and list the rest.

    Args:
        remove: names or patterns of names, kinds, states of the source, or `all`. A text is one
            word; an empty list or text is null.
        older_than_days: only those that were not used for so long; alone: all of them.

    Returns:
        Numbers of entries and bytes, of those that are left and those that were removed.

    Raises:
        UserError: a word of `remove` fits no entry or is a mere wildcard, or a number is negative.
    """
    quiet_libraries()
    warn_of_run_directory(config, task="cache")
    if not world.is_launched_first():
        return {}
    if older_than_days is not None and not older_than_days >= 0:
        raise UserError(
            f"task.older_than_days={older_than_days}: must be at least 0. "
            "Fix: task.older_than_days=30"
        )
    folders, limit = folders_of(config), limit_of(config)
    entries = listed(folders)
    words = [remove] if isinstance(remove, str) and remove else remove
    chosen = _chosen(entries, words or None, older_than_days)
    asked = removed_of(chosen)
    left = [entry for entry in entries if entry not in asked.removed]
    shrunk = removed_of(_too_many(left, limit), until=limit, total=_size(left))
    left = [entry for entry in left if entry not in shrunk.removed]
    removed = (*asked.removed, *shrunk.removed)
    _show(left, removed, {**asked.reasons, **shrunk.reasons}, folders)
    return _numbers(left, removed)


def shrink(config: DictConfig) -> None:
    """Remove the least recently used entries over `paths.max_cache_gib`, if that is set.

    The run has succeeded, so a cache that cannot be made smaller is a warning.
    """
    if not world.is_launched_first():
        return
    try:
        limit = limit_of(config)
        if limit is not None:
            entries = listed(folders_of(config), states=False)
            removal = removed_of(_too_many(entries, limit), until=limit, total=_size(entries))
            for name, reason in removal.reasons.items():
                if reason != IN_USE:
                    logger.warning("%s stays in the cache: %s", name, reason)
    except (OSError, UserError) as error:
        logger.warning("the cache stays larger than paths.max_cache_gib: %s", error)


def folders_of(config: DictConfig) -> Folders:
    """Return the folders of the cache and the embedding store."""
    cache_dir, store_dir = config.paths.cache_dir, config.paths.store_dir
    return Folders(cache=Path(cache_dir).expanduser(), store=Path(store_dir).expanduser())


def limit_of(config: DictConfig) -> int | None:
    """Return the limit in bytes; None: there is none.

    Raises:
        UserError: it is negative, or no number.
    """
    limit = config.paths.get("max_cache_gib")
    if limit is None:
        return None
    if not float(limit) >= 0:
        raise UserError(f"paths.max_cache_gib={limit}: must be at least 0, or null (no limit).")
    return int(float(limit) * 2**30)


def listed(folders: Folders, *, states: bool = True) -> list[Entry]:
    """Return all entries, by kind, those that were used last first.

    Args:
        states: look at the sources, too, which takes some time.
    """
    entries: list[Entry] = []
    for kind in KINDS:
        found = [_entry(kind, path, folders, states=states) for path in kind.paths(folders)]
        entries += sorted((e for e in found if e is not None), key=lambda e: (-e.used_s, e.name))
    return entries


def removed_of(entries: Iterable[Entry], *, until: int | None = None, total: int = 0) -> Removal:
    """Remove entries that no process uses, in order.

    Args:
        until: stop when `total` has come down to so many bytes; None: remove all.
        total: bytes of all entries before.
    """
    removed: list[Entry] = []
    reasons: dict[str, str] = {}
    for entry in entries:
        if until is not None and total <= until:
            break
        reason = _remove(entry)
        if reason is None:
            removed.append(entry)
            total -= entry.num_bytes
        else:
            reasons[entry.name] = reason
    return Removal(removed=tuple(removed), reasons=reasons)


def _entry(kind: Kind, path: Path, folders: Folders, *, states: bool) -> Entry | None:
    try:
        files = kind.files_of(path)
        root: Path = getattr(folders, kind.root)
        stem = path.with_suffix("") if path.is_file() else path
        prefix = "embeddings/" if kind.root == "store" else ""
        return Entry(
            kind=kind,
            name=prefix
            + (path if kind.name == "unfinished" else stem).relative_to(root).as_posix(),
            path=path,
            files=tuple(files),
            num_bytes=sum(_size_on_disk(file) for file in files),
            used_s=path.stat().st_mtime,
            origin=kind.origin(path) if states else Origin(source="", state="-"),
        )
    except FileNotFoundError:  # another process has just removed it
        return None


def _size_on_disk(path: Path) -> int:
    """Return the bytes of a file or folder on disk: files of the store may have holes."""
    inside = path.rglob("*") if path.is_dir() else ()
    return sum(one.lstat().st_blocks * 512 for one in (path, *inside))


def _chosen(
    entries: Sequence[Entry], words: Sequence[str] | None, older_than_days: float | None
) -> list[Entry]:
    if words is None and older_than_days is None:
        return []
    known = tuple(dict.fromkeys((ALL, *STATES, *(kind.name for kind in KINDS))))
    for word in words or ():
        if not word.strip("*?"):
            raise UserError(
                f"task.remove={word}: fits everything. Fix: task.remove={ALL}. Nothing was removed."
            )
        if word not in known and not any(_fits(entry, word) for entry in entries):
            raise UserError(
                f"task.remove={word}: no entry of that name (allowed: names and patterns of "
                f"names, {', '.join(known)}). Fix: task=cache alone lists the names. "
                "Nothing was removed."
            )
    latest = time.time() - (older_than_days or 0) * DAY_S
    return [
        entry
        for entry in entries
        if (words is None or any(_fits(entry, word) for word in words))
        and (older_than_days is None or entry.used_s <= latest)
    ]


def _fits(entry: Entry, word: str) -> bool:
    words = (ALL, entry.kind.name, *(state for state in STATES if state == entry.origin.state))
    return word in words or fnmatchcase(entry.name, word)


def _too_many(entries: Sequence[Entry], limit: int | None) -> list[Entry]:
    """Return the entries in the order in which they are removed for the limit."""
    return [] if limit is None else sorted(entries, key=lambda entry: entry.used_s)


def _remove(entry: Entry) -> str | None:
    """Remove an entry; return why it cannot be removed, None if it is gone."""
    if not entry.path.exists():  # another process has just removed it
        return None
    if _age_s(entry.path) < entry.kind.rests_s:
        return "it may still be written"
    try:
        with ExitStack() as held:
            locks = sorted(entry.path.glob(entry.kind.locks)) if entry.kind.locks else []
            locks += [file for file in entry.files if file.suffix == ".lock"]
            are_free = [held.enter_context(locked_if_free(lock)) for lock in locks]
            reason = held.enter_context(unused(entry.path))
            if reason is not None or not all(are_free):
                return reason or IN_USE
            if not entry.kind.own([entry.path]):
                return "another process has changed it"
            for file in reversed(entry.files):  # a killed removal leaves the first, so all
                remove_path(file)
    except OSError as error:
        return str(error.strerror)
    return None


def _age_s(path: Path) -> float:
    """Return the seconds since the last change of a file, or of the names in a folder."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return 0.0


def _size(entries: Iterable[Entry]) -> int:
    return sum(entry.num_bytes for entry in entries)


def _show(
    left: Sequence[Entry],
    removed: Sequence[Entry],
    reasons: Mapping[str, str],
    folders: Folders,
) -> None:
    now = time.time()
    rows = [
        (e.name, e.kind.name, readable_size(e.num_bytes), readable_age(now - e.used_s),
         e.origin.state, e.origin.source)
        for e in left
    ]  # fmt: skip
    total = f"{len(left)} entries, {readable_size(_size(left))} in {folders.cache}"
    if not folders.store.is_relative_to(folders.cache):
        total += f" and {folders.store}"
    paragraphs = [cache_table(rows), total] if rows else [total]
    if removed:
        names = ", ".join(entry.name for entry in removed)
        paragraphs.append(f"Removed {readable_size(_size(removed))}: {names}")
    for reason in sorted(set(reasons.values())):
        names = ", ".join(name for name, why in reasons.items() if why == reason)
        paragraphs.append(f"Cannot be removed ({reason}): {names}")
    numbers = _numbers(left, removed)
    pairs = (f"{key.partition('/num_')[2]}={int(value)}" for key, value in numbers.items())
    show(*paragraphs, result_line=f"cache {' '.join(pairs)}")


def _numbers(left: Sequence[Entry], removed: Sequence[Entry]) -> dict[str, float]:
    return {
        "cache/num_entries": len(left),
        "cache/num_bytes": _size(left),
        "cache/num_removed": len(removed),
        "cache/num_removed_bytes": _size(removed),
    }
