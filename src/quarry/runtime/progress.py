"""Show the progress of long work: a bar on a terminal, elsewhere timed lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sized
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from tqdm import tqdm

from quarry.distributed import world

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
"""Seconds between two lines; shorter work has none."""

BAR_DELAY_S = 0.5
"""Delay of a bar: shorter work would only flicker."""

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mark:
    """State of the work at one time; `excluded_s` is left out of rates."""

    time_s: float
    num_done: int
    num_tokens: int = 0
    excluded_s: float = 0.0


class Progress:
    """Progress display on rank 0.

    On a terminal this is a tqdm bar. Elsewhere `add` logs a line at most every `INTERVAL_S`, and
    `close` logs the last state if the work took longer than that.

    Args:
        label: name of the work, "scifact corpus"; without one a line begins "step 3 of 7".
        total: number of units, including those done before; None: unknown.
        units: plural of the unit, "texts".
        num_done: units that were done before.
        num_ranks: ranks that do as much as this one at the same time; each `add` counts for all.
        details: returns name -> value, "loss" -> "0.412". Called only when something is shown: it
            may wait for a GPU.
        is_bar: a bar or lines; None: a bar if stderr is a terminal.
        clock: returns seconds.
    """

    def __init__(
        self,
        *,
        label: str = "",
        total: int | None,
        units: str,
        num_done: int = 0,
        num_ranks: int = 1,
        details: Callable[[], dict[str, str]] = dict,
        is_bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._units = units
        self._num_ranks = num_ranks
        self._details = details
        self._clock = clock
        self._is_open = world.is_launched_first()
        self._start = self._shown = _Mark(time_s=clock(), num_done=num_done)
        self._first: _Mark | None = None  # after the first units, which include a warm-up
        self._num_done = num_done
        self._num_tokens = 0
        self._excluded_s = 0.0
        has_bar = sys.stderr.isatty() if is_bar is None else is_bar
        self._bar: tqdm[Any] | None = None
        if self._is_open and has_bar:
            self._bar = tqdm(
                total=total,
                initial=num_done,
                desc=label or None,
                unit=f" {units}",
                leave=False,
                dynamic_ncols=True,
                delay=BAR_DELAY_S,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._num_ranks > 1 and self._total is not None:
            self._num_done = self._total  # the other ranks' shares were estimates
        self.close()

    def add(self, num_units: int, *, num_tokens: int = 0, shows_details: bool = False) -> None:
        """Count what was done since the last call; log a line or move the bar if it is due.

        Args:
            num_units: 0 counts tokens alone.
            shows_details: update the bar's details.
        """
        if not self._is_open:
            return
        before = self._num_done
        self._num_done += num_units * self._num_ranks
        if self._total is not None:
            self._num_done = min(self._num_done, self._total)
        self._num_tokens += num_tokens * self._num_ranks
        if num_units == 0:
            return
        is_due = self._clock() - self._shown.time_s >= INTERVAL_S
        if self._bar is not None:
            if is_due or shows_details:
                self._bar.set_postfix(self._details(), refresh=False)
                self._shown = self._mark()
            self._bar.update(self._num_done - before)
        elif is_due:
            self._log(self._parts_now())
            self._shown = self._mark()
        if self._first is None:
            self._first = self._mark()

    def exclude(self, seconds: float) -> None:
        """Leave time that other work took out of the rate; it still counts for the time left."""
        self._excluded_s += seconds

    def relabel(self, label: str) -> None:
        """Rename the bar; log lines keep their label."""
        if self._bar is not None and self._bar.desc != f"{label}: ":
            self._bar.set_description(label, refresh=False)

    def close(self) -> None:
        """Remove the bar, or log the last state of long work. A second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        if self._bar is not None:
            self._bar.close()
            return
        seconds = self._clock() - self._start.time_s
        if seconds >= INTERVAL_S:
            self._log([self._rate(self._start), f"after {duration(seconds)}"])

    def _mark(self) -> _Mark:
        return _Mark(
            time_s=self._clock(),
            num_done=self._num_done,
            num_tokens=self._num_tokens,
            excluded_s=self._excluded_s,
        )

    def _log(self, parts: list[str]) -> None:
        named = [f"{name} {value}" for name, value in self._details().items()]
        logger.info("%s", ", ".join([self._position(), *named, *parts]))

    def _position(self) -> str:
        """Return "step 120 of 3,836 (3.1 %)", or "scifact corpus: 12 of 80 texts (15.0 %)"."""
        of = "" if self._total is None else f" of {self._total:,}"
        share = f" ({100 * self._num_done / self._total:.1f} %)" if self._total else ""
        if not self._label:
            return f"{self._units.removesuffix('s')} {self._num_done:,}{of}{share}"
        return f"{self._label}: {self._num_done:,}{of} {self._units}{share}"

    def _parts_now(self) -> list[str]:
        is_first_line = self._shown is self._start
        since = self._first if is_first_line and self._first is not None else self._shown
        left = self._seconds_left()
        return [self._rate(since), *([] if left is None else [f"{duration(left)} left"])]

    def _rate(self, since: _Mark) -> str:
        excluded_s = self._excluded_s - since.excluded_s
        seconds = max(self._clock() - since.time_s - excluded_s, 1e-9)
        if self._num_tokens:
            return f"{_number((self._num_tokens - since.num_tokens) / seconds)} tokens/s"
        return f"{_number((self._num_done - since.num_done) / seconds)} {self._units}/s"

    def _seconds_left(self) -> float | None:
        since = self._first or self._start
        num_done = self._num_done - since.num_done
        if self._total is None or num_done == 0:
            return None
        return (self._total - self._num_done) * (self._clock() - since.time_s) / num_done


def tracked(items: Iterable[Item], *, label: str, units: str, **settings: Any) -> Generator[Item]:
    """Yield the items, and show the progress through them.

    Args:
        label, units: see `Progress`, as for all other settings; the total is the length, if known.
    """
    total = len(items) if isinstance(items, Sized) else None
    with Progress(label=label, total=total, units=units, **settings) as progress:
        for item in items:
            yield item
            progress.add(1)


def duration(seconds: float) -> str:
    """Return a time for people: "40 s", "58 min", "3 h 20 min", "2 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Log handler that writes to a terminal above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line in place of the bars, and draw them again below it."""
        if not self.stream.isatty():
            super().emit(record)
            return
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)
