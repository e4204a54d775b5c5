"""Ends of a run that are no fault of the program; entry points show their message alone."""

import signal


class UserError(ValueError):
    """A wrong value, file or line. The message names what, where, the rule and the remedy."""


class SharedError(UserError):
    """One that all processes of a run raise at the same time: the first one shows it."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that was named and is not there."""


class Interrupted(BaseException):
    """A signal stopped the run; the message says what is saved and how to continue.

    No `Exception`: it may come at any moment, and is not for those who go on after a failure.

    Args:
        number: of the signal.
        is_shared: all ranks raise it at the same time.
    """

    def __init__(
        self, message: str, *, number: int = signal.SIGINT, is_shared: bool = True
    ) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
        self.is_shared = is_shared
