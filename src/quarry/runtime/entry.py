"""Wrap every entry point: show the message of a user's error without a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from quarry.distributed import world
from quarry.distributed.launch import settle_launcher
from quarry.errors import (
    ConfigurationError,
    Interrupted,
    LostRankError,
    SharedError,
    UserError,
)
from quarry.runtime.disk_errors import disk_message
from quarry.runtime.extras import with_missing_plugin
from quarry.runtime.hiding import hide_secrets_of_process, hides_secrets_in_errors
from quarry.runtime.interruption import end_interrupted
from quarry.runtime.renamed_keys import with_new_names

NULL_GROUP = "Config group override must be a string or a list"
"""Beginning of the bare ValueError that Hydra 1.3 raises on `group=null`."""

APPEND = "To append to your config use +"
"""Beginning of Hydra's advice on a key that is not in the configuration."""

FAILED_CODE = 1
"""Exit code of a run that failed through no mistake of the user's."""

OURS = "QUARRY_SET_HYDRA_FULL_ERROR"
"""Tells child processes that Quarry, not the user, has set HYDRA_FULL_ERROR."""


@contextmanager
def shows_user_errors() -> Iterator[None]:
    """End the process with the message of a UserError or configuration error and exit code 2.

    Any other exception is a program error and keeps its traceback, as all do with
    HYDRA_FULL_ERROR=1. Secrets are hidden in all of them.
    """
    settle_launcher()
    settle_allocator()
    hide_secrets_of_process()
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and OURS not in os.environ:
        yield
        world.leave()
        return
    # Hydra's own reporting would cut tracebacks and call exit itself
    os.environ["HYDRA_FULL_ERROR"] = os.environ[OURS] = "1"
    # DeepSpeed's launcher passes as an argument what the environment says, too
    sys.argv[1:] = [arg for arg in sys.argv[1:] if not re.match(r"--local[_-]rank=", arg)]
    try:
        with hides_secrets_in_errors():
            yield
        world.leave()
    except KeyboardInterrupt:
        sys.exit(130)
    except (Interrupted, SharedError) as error:
        if isinstance(error, Interrupted) and not error.is_shared:
            end_interrupted(error)
        world.leave()  # all ranks have come here
        if not world.is_launched_first():
            sys.exit(0)  # rank 0 prints the message, and its exit code is that of the run
        if isinstance(error, SharedError):
            end_with_error(str(error))
        sys.stderr.write(f"\nInterrupted: {error}\n")
        sys.exit(error.exit_code)
    except InstantiationException as error:
        _end_for_a_disk(error)
        raise  # a class of ours failed to import or to take its arguments
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _end_by(error)
    except OSError as error:  # Hydra makes the run directory before any task begins
        _end_for_a_disk(error)
        raise
    except ValueError as error:
        if not str(error).startswith(NULL_GROUP):
            raise
        nulls = [arg for arg in sys.argv[1:] if re.fullmatch(r"[^.=]+(@[^=]+)?=null", arg, re.I)]
        end_with_error(
            f"{', '.join(nulls) or 'null'}: a group cannot be null, it takes one of its options "
            "(--help lists them). Where it may be left out, that is the option none."
        )


def settle_allocator() -> None:
    """Let torch grow segments of GPU memory in place, unless the user configures the allocator.

    Batches of changing size otherwise fragment the memory, and a step that was sized to fill it
    does not fit. Call this before CUDA is used.
    """
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def end_with_error(message: str, *, code: int = 2) -> NoReturn:
    """End the process with a message; exit code 2 means a user's error."""
    sys.stderr.write(f"\nError: {message}\n")
    sys.exit(code)


def _end_by(error: BaseException) -> NoReturn:
    """End the process with the error's message, unless another rank prints the same one."""
    if isinstance(error, LostRankError):
        if not world.is_launched_first():
            sys.exit(FAILED_CODE)
        end_with_error(str(error), code=FAILED_CODE)
    is_shared = isinstance(error, ConfigurationError) or not isinstance(error, UserError)
    if is_shared and world.repeats_the_first():
        sys.exit(0)  # another code could make the launcher end the rank that prints
    end_with_error(error_text(error))


def _end_for_a_disk(error: Exception) -> None:
    """End the process with a message if a disk is full or read-only."""
    if (message := disk_message(error)) is not None:
        end_with_error(message)


def error_text(error: BaseException) -> str:
    """Return a UserError's message, or another error's and its causes' (Hydra's may be empty)."""
    if isinstance(error, UserError):
        return str(error)
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in known for known in messages):
            messages.append(text)
        cause = cause.__cause__
    text = with_new_names(with_missing_plugin("\n".join(messages))) or type(error).__name__
    notes = getattr(error, "__notes__", [])
    if not notes:
        return text
    # with what was meant, "+" is no advice: a key that nothing reads is refused next
    lines = [line for line in text.splitlines() if not line.startswith(APPEND)]
    return "\n".join([*lines, *notes])
