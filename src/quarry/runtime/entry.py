"""What surrounds every entry point: a user's mistake is shown as its message, nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from quarry.errors import Interrupted, UserError


@contextmanager
def shows_user_errors() -> Iterator[None]:
    """Ends the process with the message of a UserError or a configuration error, exit code 2.

    Any other exception is ours to mend and keeps its traceback, as all do with HYDRA_FULL_ERROR=1.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    # Hydra's own reporting would cut tracebacks and call exit itself
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Interrupted as interruption:
        sys.stderr.write(f"\nInterrupted: {interruption}\n")
        sys.exit(130)
    except InstantiationException:
        raise  # a class of ours failed to import or to take its arguments
    except (UserError, HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"\nError: {_message(error)}\n")
        sys.exit(2)


def _message(error: BaseException) -> str:
    """A UserError's message; of other errors also what caused them (Hydra's own may be empty)."""
    if isinstance(error, UserError):
        return str(error)
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in known for known in messages):
            messages.append(text)
        cause = cause.__cause__
    return "\n".join(messages) or type(error).__name__
