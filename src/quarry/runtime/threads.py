"""Set how the threads of this process share the interpreter."""

from __future__ import annotations

import sys

SWITCH_INTERVAL_S = 0.0005
"""How long a thread keeps the interpreter once another asks for it; Python's default is 5 ms."""


def hand_over_quickly() -> None:
    """Keep threads that prepare data from delaying the thread that launches GPU work.

    A tokenizing or pinning thread that holds the interpreter for 5 ms stops the launches for as
    long. Small models finish what was launched before in less.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
