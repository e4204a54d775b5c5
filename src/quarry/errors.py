"""Ends of a run that are no fault of the program; entry points show their message alone."""


class UserError(ValueError):
    """A wrong value, file or line. The message names what, where, the rule and the remedy."""


class SharedError(UserError):
    """One that all processes of a run raise at the same time: the first one shows it."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that was named and is not there."""


class Interrupted(Exception):  # noqa: N818 (no error: what was asked for)
    """The user stopped the run and everything is saved; the message says where. Exit code 130."""
