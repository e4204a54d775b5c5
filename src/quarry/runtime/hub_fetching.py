"""Download listed files into the Hub's cache, and check that they are as listed."""

from __future__ import annotations

import shutil
from glob import escape
from pathlib import Path

import httpx
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from quarry.runtime.hub_listing import CannotFetchError, Listing, hub_refusal, repository_name


def fetch_listed(listing: Listing) -> None:
    """Download the files of a repository that the Hub's cache lacks.

    Complete files stay. A broken connection is resumed where it broke; a file whose download was
    killed begins again, as the Hub's library has it.

    Raises:
        CannotFetchError: the Hub refuses a file or provides another commit than the listed one, or
            a file has another size than listed.
        UnreachableError: the Hub does not answer any more.
    """
    try:
        folder = snapshot_download(
            listing.repo,
            repo_type=listing.kind,
            revision=listing.revision,  # not the commit: the cache must record what a branch is
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
    """Return the free space of the file system that holds, or will hold, the Hub's cache."""
    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
