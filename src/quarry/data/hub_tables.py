"""The tables of a data set repository on the hub: its card says which files they are made of.

A repository is fetched file by file at one commit (`huggingface_hub`), so that what is in the cache
is what was pinned; `datasets` reads the card and says which files a configuration and split are
made of. Their records are read by `record_files`, as those on disk are: `datasets` would guess
types, and ids such as "007" would become numbers. No table is ever in memory as a whole.
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
}

LOCAL = (".", "/", "~")
"""How a path of a local copy begins; anything else is a name on the hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubTable:
    """One table of a repository: a corpus, queries or judgements.

    Attributes:
        repo: "owner/name", or a folder with a copy of such a repository, beginning with . / or ~.
        revision: a commit in full; None: the newest.
        configs, splits: names to look for, the first that is there is taken. Files without any say
            make up the configuration "default" and, by their names, the splits train, validation
            and test; `datasets` calls a split train where no name tells. No name of a
            configuration: "default", or the only one there is.
        skips: patterns of files that are not fetched.
        group: of the keys that name the repository, for messages: benchmark or data.
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
        """Whether the same files are read whenever it is asked for, as far as we can tell."""
        return self.is_local or re.fullmatch(r"[0-9a-f]{40}", self.revision or "") is not None

    @property
    def place(self) -> str:
        """Repository and commit; of a local copy the folder's name."""
        if self.is_local:
            return Path(self.repo).expanduser().resolve().name
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    def hub_files(self, *, used_by: str) -> tuple[HubFiles, ...]:
        """Return what `find_table_files` fetches from the hub: nothing of a local copy.

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
    """Return the table at a commit: its own, or today's newest, which is logged."""
    return table if table.is_pinned else replace(table, revision=newest_commit(table))


def newest_commit(table: HubTable) -> str:
    """The commit that a table without a pinned one is read at; its files are fetched.

    Raises:
        UserError: the hub cannot give the repository and its cache lacks it.
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
    """The files that a table is made of, fetched where they are not here already.

    Raises:
        UserError: the hub cannot give the repository and its cache lacks it; there is no such
            configuration or split; its files are not there.
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
    """The folder of the repository: a local copy, or the hub's cache at that commit."""
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
        # said aloud: for a commit that is pinned the hub would be asked for its list of files
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
    """What fills the hub's cache with a repository, all its tables at once."""
    commit = "" if table.revision is None else f" --revision {table.revision}"
    return f"hf download --repo-type dataset {table.repo}{commit}"


def _short(error: Exception) -> str:
    """The first sentence, whole words of it."""
    first, *_ = re.split(r"[.!] ", " ".join(str(error).split()), maxsplit=1)
    return shorten(first.rstrip("."), 300, placeholder=" ...")
