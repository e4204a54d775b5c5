"""Tell which rank has ended, where the others notice only a closed connection."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.distributed import DistBackendError, DistNetworkError

from quarry.errors import LostRankError

Children = Sequence["subprocess.Popen[Any]"]

HANG_S = 20.0
"""How long a process may take to notice that a child has ended: collectives of GPUs never do."""

POLL_S = 0.2
EXIT_CODE = 1

_CLOSED = re.compile(r"[Cc]onnection (was )?(closed|reset)|Broken pipe")


def ended_rank(children: Children) -> str | None:
    """Return a sentence on the child of Lightning's launcher that has failed first, None if none.

    Children that a signal ended cannot say so themselves.
    """
    codes = {rank: child.poll() for rank, child in enumerate(children, start=1)}
    failed = {rank: code for rank, code in codes.items() if code}
    if not failed:
        return None
    rank, code = min(failed.items(), key=lambda item: (item[1] > 0, item[0]))
    if code > 0:
        return f"Rank {rank} of this node has ended with code {code}; its own message is above."
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    why = " (often because the memory was full)" if name == "SIGKILL" else ""
    return f"Rank {rank} of this node was ended by {name}{why}."


def lost_rank(error: BaseException, children: Children) -> LostRankError | None:
    """Return the error to show in place of one that comes from the end of another rank.

    Args:
        children: of Lightning's launcher; other launchers say themselves which rank has ended.

    Returns:
        None: the error has another cause.
    """
    is_closed = isinstance(error, RuntimeError) and _CLOSED.search(str(error)) is not None
    is_network = isinstance(error, DistBackendError | DistNetworkError)
    sentence = ended_rank(children)
    if not (is_closed or (is_network and sentence is not None)):
        return None
    return LostRankError(
        f"{sentence or 'Another rank of this run has ended; its own output says why.'} All ranks "
        "are ended. Fix: look at its messages, then start or resume the run."
    )


@contextmanager
def watches_children(children: Callable[[], Children]) -> Iterator[None]:
    """End this process with a message if a child has ended and this one does not notice.

    It takes the place of Lightning's observer, which kills this process without a word within
    five seconds, also while it writes its message.

    Args:
        children: returns those of Lightning's launcher, which start inside the block.
    """
    from pytorch_lightning.strategies.launchers import subprocess_script

    launcher: Any = subprocess_script
    is_over = threading.Event()
    observer = launcher._launch_process_observer
    launcher._launch_process_observer = lambda child_processes: None
    threading.Thread(
        target=_watch, args=(children, is_over), daemon=True, name="watches-children"
    ).start()
    try:
        yield
    finally:
        is_over.set()
        launcher._launch_process_observer = observer


def _watch(children: Callable[[], Children], is_over: threading.Event) -> None:
    sentence = None
    while sentence is None:
        if is_over.wait(POLL_S):
            return
        sentence = ended_rank(children())
    if is_over.wait(HANG_S):
        return
    sys.stderr.write(f"\nError: {sentence} All ranks are ended.\n")
    sys.stderr.flush()
    for child in children():
        child.kill()
    time.sleep(POLL_S)
    os._exit(EXIT_CODE)
