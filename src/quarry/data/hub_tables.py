"""Find the files of a table in a dataset repository on the hub; the repository's card lists them.

A repository is fetched file by file at one commit (`huggingface_hub`), so that the cache holds
what was pinned. `datasets` reads the card and tells the files of a configuration and split.
`record_files` reads their records, as from disk: `datasets` would guess types, and turn ids
such as "007" into numbers. No table is ever in memory completely.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import shorten

from quarry.errors import UserError
from quarry.runtime.hub_access import settle_offline
from quarry.runtime.hub_files import HubFiles

logger = logging.getLogger(__name__)

_ELSEWHERE = {
    "benchmark": "a BEIR folder: benchmark.path=DIR",
    "data": "files of your own: data=file data.path=FILE",
    "task": "files of your own: task.corpus=PATH",
}

LOCAL = (".", "/", "~")
"""Prefixes of a path to a local copy; anything else is a name on the hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubTable:
    """Location of one table of a repository: a corpus, queries or judgements.

    Attributes:
        repo: "owner/name", or a folder with a copy of such a repository, beginning with . / or ~.
        revision: full hash of a commit; None: the newest.
        configs, splits: names to look for; the first that exists is used. Files without a
            configuration belong to "default" and, by their names, to the splits train, validation
            and test; `datasets` uses train where no name tells. No name of a configuration:
            "default", or the only one.
        skips: patterns of files that are not fetched.
        group: configuration group that names the repository, for messages: benchmark, data or task.
    """

    repo: str
    revision: str | None = None
    configs: tuple[str, ...] = ("default",)
    splits: tuple[str, ...]
    skips: tuple[str, ...] = ()
    group: str = "benchmark"

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision[:8]}"

    @property
    def is_local(self) -> bool:
        return self.repo.startswith(LOCAL)

    @property
    def is_pinned(self) -> bool:
        """Whether every read uses the same files, as far as this can be known."""
        return self.is_local or re.fullmatch(r"[0-9a-f]{40}", self.revision or "") is not None

    @property
    def place(self) -> str:
        """Repository and commit; for a local copy the folder's name."""
        if self.is_local:
            return Path(self.repo).expanduser().resolve().name
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    def hub_files(self, *, used_by: str) -> tuple[HubFiles, ...]:
        """Return what `find_table_files` fetches from the hub: nothing for a local copy.

        Args:
            used_by: what reads the table, for people.
        """
        if self.is_local:
            return ()
        return (
            HubFiles(
                repo=self.repo,
                kind="dataset",
                revision=self.revision,
                used_by=used_by,
                skips=self.skips,
            ),
        )


def pinned(table: HubTable) -> HubTable:
    """Return the table at a commit: its own, or the newest of today, which is logged."""
    return table if table.is_pinned else replace(table, revision=newest_commit(table))


def newest_commit(table: HubTable) -> str:
    """Fetch a table without a pinned commit; return the commit that it is read at.

    Raises:
        UserError: the hub cannot provide the repository, and its cache lacks it.
    """
    commit = _fetch(table).name  # the cache has a folder for each commit, named after it
    own = " (of judgements of their own: benchmark.qrels_revision)"
    logger.warning(
        "%s is not pinned: the numbers are those of its commit %s. Give that as "
        "%s.revision%s, or they cannot be made again once it has a newer one",
        table,
        commit,
        table.group,
        own if table.group == "benchmark" else "",
    )
    return commit


def find_table_files(table: HubTable) -> list[Path]:
    """Return the files of a table; fetch those that are not in the cache.

    Raises:
        UserError: the hub cannot provide the repository, and its cache lacks it; the configuration
            or split does not exist; its files are missing.
    """
    from datasets import get_dataset_config_names, load_dataset_builder

    folder = _fetch(table)
    try:
        configs = get_dataset_config_names(str(folder))
        wanted = table.configs or (configs if len(configs) == 1 else ("default",))
        config = _first_of(wanted, configs, "configuration", table)
        splits = dict(load_dataset_builder(str(folder), config).config.data_files)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{table}: its files cannot be found ({_short(error)}); fetch the repository again, in "
            "full"
        ) from error
    split = _first_of(table.splits, [str(name) for name in splits], "split", table)
    return [Path(file) for file in splits[split]]


def _fetch(table: HubTable) -> Path:
    """Return the repository's folder: a local copy, or the hub's cache at that commit."""
    if table.is_local:
        folder = Path(table.repo).expanduser()
        if not folder.is_dir():
            raise UserError(f"{table.repo}: no such folder; name a copy of a repository of the hub")
        return folder.resolve()
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    settle_offline()
    fetch = partial(
        snapshot_download,
        table.repo,
        repo_type="dataset",
        revision=table.revision,
        ignore_patterns=list(table.skips) or None,
    )
    try:
        # explicit: for a pinned commit the hub would otherwise be asked for its list of files
        snapshot = fetch(local_files_only=constants.HF_HUB_OFFLINE)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"{table}: this data set is not in the hub's cache and the hub could not give it "
            f"({_short(error)}). Fetch it where there is a network, {_fetch_command(table)}, or "
            f"give {_ELSEWHERE[table.group]}."
        ) from error
    return Path(snapshot)


def _first_of(wanted: Sequence[str], found: Sequence[str], kind: str, table: HubTable) -> str:
    for name in wanted:
        if name in found:
            return name
    raise UserError(
        f"{table}: no {kind} {' or '.join(map(repr, wanted))}; it has {', '.join(found)}"
    )


def _fetch_command(table: HubTable) -> str:
    """Return the command that fetches all tables of a repository into the hub's cache."""
    commit = "" if table.revision is None else f" --revision {table.revision}"
    return f"hf download --repo-type dataset {table.repo}{commit}"


def _short(error: Exception) -> str:
    """Return the first sentence of an error, shortened between words."""
    first, *_ = re.split(r"[.!] ", " ".join(str(error).split()), maxsplit=1)
    return shorten(first.rstrip("."), 300, placeholder=" ...")
