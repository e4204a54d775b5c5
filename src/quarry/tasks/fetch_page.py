"""Format the tables that `task=fetch` prints, before it fetches and at the end."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.runtime.hub_listing import Listing, repository_name

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
ALIGNED_RIGHT = ("files", "size", "in the cache", "to fetch")


def readable_size(num_bytes: int) -> str:
    """Return a size with the unit that fits it."""
    power = min(max(num_bytes.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{num_bytes / 2 ** (10 * power):,.{1 if power else 0}f} {UNITS[power]}"


def listing_table(listings: Sequence[Listing], missing: Sequence[int]) -> str:
    """Return the table of the repositories that the commands read.

    Args:
        missing: bytes of each repository that the cache lacks.
    """
    header = ("repository", "commit", "files", "size", "in the cache", "to fetch", "read by")
    rows = [
        (
            *_identity(each),
            readable_size(each.num_bytes - num_missing),
            readable_size(num_missing),
            _readers(each),
        )
        for each, num_missing in zip(listings, missing, strict=True)
    ]
    num_bytes, num_missing = sum(each.num_bytes for each in listings), sum(missing)
    total = (
        "total", "", str(sum(len(each.files) for each in listings)), readable_size(num_bytes),
        readable_size(num_bytes - num_missing), readable_size(num_missing), "",
    )  # fmt: skip
    return aligned_table(header, [*rows, *([total] if len(rows) > 1 else [])])


def outcome_table(outcomes: Sequence[tuple[str, Listing | None, str]]) -> str:
    """Return the table of the result of each repository.

    Args:
        outcomes: (name, listing or None, result) of each repository.
    """
    rows = [
        (*((name, "-", "-", "-") if listing is None else _identity(listing)), outcome)
        for name, listing, outcome in outcomes
    ]
    return aligned_table(("repository", "commit", "files", "size", "result"), rows)


def _identity(listing: Listing) -> tuple[str, str, str, str]:
    name = repository_name(listing).partition("@")[0]
    return name, listing.commit[:8], str(len(listing.files)), readable_size(listing.num_bytes)


def _readers(listing: Listing) -> str:
    """Return all readers, or the first three and the number of the rest."""
    first, rest = listing.used_by[:3], listing.used_by[3:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in ALIGNED_RIGHT else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ).rstrip()
        for line in lines
    )
