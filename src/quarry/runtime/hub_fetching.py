"""Brings listed files into the hub's cache, and checks that they are what was listed."""

from __future__ import annotations

import shutil
from glob import escape
from pathlib import Path

import httpx
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from quarry.runtime.hub_listing import CannotFetchError, Listing, hub_refusal, repository_name


def fetch_listed(listing: Listing) -> None:
    """Download what the hub's cache lacks of a repository.

    Files that are complete stay. A connection that breaks is taken up again where it broke; a file
    whose download was killed begins anew, as the hub's library has it.

    Raises:
        CannotFetchError: the hub gives a file not, or another commit than the one that was listed;
            what is there then has another size than was listed.
        UnreachableError: the hub does not answer any more.
    """
    try:
        folder = snapshot_download(
            listing.repo,
            repo_type=listing.kind,
            revision=listing.revision,  # not the commit: the cache has to know what a branch is
            allow_patterns=[escape(file.name) for file in listing.files],
        )
    except (HfHubHTTPError, OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise hub_refusal(error, [listing]) from error
    if Path(folder).name != listing.commit:
        raise CannotFetchError(
            f"{repository_name(listing)}: commit {Path(folder).name} came (expected: "
            f"{listing.commit}, which was listed; it may have changed since). Fix: run the "
            "command again"
        )
    flaws = listing.flaws()
    if flaws:
        more = f" and {len(flaws) - 3} more" if len(flaws) > 3 else ""
        raise CannotFetchError(
            f"{repository_name(listing)}: {'; '.join(flaws[:3])}{more}. Fix: run the command again"
        )


def free_cache_bytes() -> int:
    """Return the free space of the file system that the hub's cache is on, or will be."""
    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
