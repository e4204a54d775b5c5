"""Run calls ahead of their consumer in one background thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def run_ahead(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], *, num_ahead: int
) -> Generator[Result]:
    """Yield the results of `function` on each argument, in order; up to `num_ahead` run in advance.

    Pays if `function` mostly waits or works outside the interpreter (reads, copies, fast
    tokenizers). Its exceptions are raised here, at the place of its result. Closing the generator
    (or an exception in its consumer under `contextlib.closing`) drops the calls that have not
    begun and waits for the running one.
    """
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    try:
        for argument in arguments:
            pending.append(executor.submit(function, argument))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
