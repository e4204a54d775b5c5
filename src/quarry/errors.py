"""Exceptions that end a run without a program error; entry points show their message alone."""

import signal


class UserError(ValueError):
    """Error for a wrong value, file or line; the message names it, the rule and the remedy."""


class ConfigurationError(UserError):
    """Error in the command line or configuration, which all ranks of a node find alike."""


class LostRankError(UserError):
    """Error of a rank that has lost another one; the message says which, if that is known."""


class SharedError(UserError):
    """Error that all ranks raise at the same time; rank 0 shows it."""


class MissingPathError(UserError, FileNotFoundError):
    """Error for a file or folder that was named and does not exist."""


class Interrupted(BaseException):
    """A signal stopped the run; the message says what is saved and how to continue.

    Not an `Exception`: it may come at any moment, and handlers that continue after a failure must
    not catch it.

    Args:
        number: the signal's number.
        is_shared: all ranks raise it at the same time.
    """

    def __init__(
        self, message: str, *, number: int = signal.SIGINT, is_shared: bool = True
    ) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
        self.is_shared = is_shared
