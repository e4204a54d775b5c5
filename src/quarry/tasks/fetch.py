"""Download everything that a command reads from the hub into the hub's cache."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import constants
from omegaconf import DictConfig
from transformers.utils.logging import enable_progress_bar

from quarry.config.overrides import warn_of_run_directory
from quarry.distributed import world
from quarry.errors import UserError
from quarry.runtime.hub_access import settle_offline
from quarry.runtime.hub_fetching import fetch_listed, free_cache_bytes
from quarry.runtime.hub_files import HubFiles, grouped
from quarry.runtime.hub_listing import (
    CannotFetchError,
    Listing,
    UnreachableError,
    list_in_cache,
    list_on_hub,
    repository_name,
)
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show, tell
from quarry.tasks.fetch_needs import hub_files_of
from quarry.tasks.fetch_page import listing_table, outcome_table, readable_size

logger = logging.getLogger(__name__)

Repositories = Sequence[tuple[HubFiles, ...]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of fetching one repository.

    Attributes:
        name: readable name.
        listing: its files; None if they could not be listed.
        result: in a word or two.
        failure: why it is not in the cache; None if it is.
        num_fetched: bytes that were downloaded.
    """

    name: str
    listing: Listing | None
    result: str
    failure: str | None = None
    num_fetched: int = 0


def fetch(config: DictConfig) -> dict[str, float]:
    """Fetch what the configuration reads from the hub into its cache, and check it.

    Raises:
        UserError: see `fetch_for`.
    """
    warn_of_run_directory(config, task="fetch")
    return fetch_for({"": config})


def fetch_for(configs: Mapping[str, DictConfig]) -> dict[str, float]:
    """Fetch what several runs read, each repository once.

    Args:
        configs: overrides of a job -> its configuration; "" for a single run.

    Returns:
        Numbers of repositories, files and bytes.

    Raises:
        UserError: a configuration is invalid or the disk is too small, and nothing was fetched; or
            some repositories failed, which the message names, and the others were fetched; or the
            hub is unreachable and its cache is incomplete.
    """
    quiet_libraries()
    if sys.stderr.isatty():
        enable_progress_bar()  # the hub library's, too: a download may take hours
    if not world.is_launched_first():
        return {}
    was_told = constants.HF_HUB_OFFLINE
    settle_offline()
    repositories = grouped(_needed(configs))
    if not repositories:
        show("Nothing of this command comes from the hub.", result_line=_line([]))
        return _numbers([])
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE=1" if was_told else f"{constants.ENDPOINT} does not answer"
        return _end([_cached(files) for files in repositories], offline=why)
    try:
        return _end(_fetched(repositories))
    except UnreachableError as error:
        return _end([_cached(files) for files in repositories], offline=str(error))


def _needed(configs: Mapping[str, DictConfig]) -> Iterator[HubFiles]:
    for name, config in configs.items():
        try:
            yield from hub_files_of(config)
        except UserError as error:
            raise UserError(f"The job {name}:\n{error}" if name else str(error)) from error


def _fetched(repositories: Repositories) -> list[Outcome]:
    """List all repositories, then fetch all.

    Raises:
        UserError: the disk is too small.
        UnreachableError: the hub stopped answering.
    """
    outcomes = [_listed(files) for files in repositories]
    listings = [each.listing for each in outcomes if each.listing is not None]
    missing = [listing.num_missing_bytes() for listing in listings]
    if listings:
        tell(listing_table(listings, missing), _room(sum(missing)))
    _refuse_small_disk(sum(missing))
    fetched = iter(
        _fetch_one(listing, num_missing, where=f"{number} of {len(listings)}")
        for number, (listing, num_missing) in enumerate(zip(listings, missing, strict=True), 1)
    )
    return [each if each.listing is None else next(fetched) for each in outcomes]


def _listed(files: Sequence[HubFiles]) -> Outcome:
    try:
        return Outcome(name=repository_name(files[0]), listing=list_on_hub(files), result="")
    except CannotFetchError as error:
        return Outcome(
            name=repository_name(files[0]), listing=None, result="FAILED", failure=str(error)
        )


def _fetch_one(listing: Listing, num_missing: int, *, where: str) -> Outcome:
    name = repository_name(listing)
    if num_missing:
        logger.info("%s: %s, %s", where, name, readable_size(num_missing))
    try:
        fetch_listed(listing)
    except CannotFetchError as error:
        return Outcome(name=name, listing=listing, result="FAILED", failure=str(error))
    result = f"fetched {readable_size(num_missing)}" if num_missing else "was in the cache"
    return Outcome(name=name, listing=listing, result=result, num_fetched=num_missing)


def _cached(files: Sequence[HubFiles]) -> Outcome:
    """Check a repository in the cache, where the hub is unreachable."""
    name = repository_name(files[0])
    try:
        listing = list_in_cache(files)
    except CannotFetchError as error:
        return Outcome(name=name, listing=None, result="MISSING", failure=str(error))
    flaws = listing.flaws()
    if not flaws:
        return Outcome(name=name, listing=listing, result="is in the cache")
    failure = f"{name}: {'; '.join(flaws[:3])}" + (f" and {len(flaws) - 3} more" * (len(flaws) > 3))
    return Outcome(name=name, listing=listing, result="INCOMPLETE", failure=failure)


def _room(num_missing: int) -> str:
    return (
        f"To fetch: {readable_size(num_missing)}; free: {readable_size(free_cache_bytes())} "
        f"where the hub's cache is ({constants.HF_HUB_CACHE})"
    )


def _refuse_small_disk(num_missing: int) -> None:
    free = free_cache_bytes()
    if num_missing > free:
        raise UserError(
            f"HF_HUB_CACHE={constants.HF_HUB_CACHE}: {readable_size(num_missing)} are to be "
            f"fetched, and {readable_size(free)} are free there; nothing was fetched. Fix: "
            "HF_HOME=DIR, a folder on a larger disk (of this command and of the one that will "
            "run), or fetch less at a time"
        )


def _end(outcomes: Sequence[Outcome], *, offline: str | None = None) -> dict[str, float]:
    """Show the result of each repository.

    Args:
        offline: why the hub is unreachable; None if it answered.

    Raises:
        UserError: a repository is not completely in the cache.
    """
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    paragraphs = [outcome_table([(each.name, each.listing, each.result) for each in outcomes])]
    if offline is not None:
        paragraphs.append(f"The hub could not be asked: {offline}.")
    if not failures:
        paragraphs.append(
            f"All of it is in the hub's cache, {constants.HF_HUB_CACHE}: the command without "
            "task=fetch finds it there, also with HF_HUB_OFFLINE=1."
        )
    show(*paragraphs, result_line=_line(outcomes))
    if not failures:
        return _numbers(outcomes)
    lines = "\n".join(f"- {failure}" for failure in failures)
    if offline is None:
        raise UserError(
            f"{len(failures)} of {len(outcomes)} repositories did not come (the others are in the "
            f"hub's cache):\n{lines}"
        )
    raise UserError(
        f"{offline}: nothing can be fetched, and the hub's cache ({constants.HF_HUB_CACHE}) lacks "
        f"{len(failures)} of {len(outcomes)} repositories. Fix: the same command where the hub can "
        f"be reached, then copy the cache (HF_HOME):\n{lines}"
    )


def _numbers(outcomes: Sequence[Outcome]) -> dict[str, float]:
    listings = [each.listing for each in outcomes if each.listing is not None]
    return {
        "fetch/num_repositories": len(outcomes),
        "fetch/num_files": sum(len(listing.files) for listing in listings),
        "fetch/num_bytes": sum(listing.num_bytes for listing in listings),
        "fetch/num_fetched_bytes": sum(each.num_fetched for each in outcomes),
        "fetch/num_failed": sum(each.failure is not None for each in outcomes),
    }


def _line(outcomes: Sequence[Outcome]) -> str:
    numbers = _numbers(outcomes)
    pairs = (f"{key.partition('/num_')[2]}={int(value)}" for key, value in numbers.items())
    return f"fetch {' '.join(pairs)}"
