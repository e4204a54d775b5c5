"""The two errors that are a user's to mend; entry points show their message alone, no traceback."""


class UserError(ValueError):
    """A wrong value, file or line. The message names what, where, the rule and the remedy."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that was named and is not there."""
