"""How the threads of this process share the interpreter."""

from __future__ import annotations

import sys

SWITCH_INTERVAL_S = 0.0005
"""For how long another thread keeps the interpreter once one asks for it; Python's own is 5 ms."""


def hand_over_quickly() -> None:
    """Keeps the thread that launches work for a GPU from waiting for those that prepare data.

    A tokenising or pinning thread that holds the interpreter for 5 ms stops the launches for as
    long, and small models are done with what was launched before in less.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
