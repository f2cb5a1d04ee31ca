"""Errors that a user can act on; each class carries its exit code (DESIGN 4.5)."""

from __future__ import annotations


class FerryError(Exception):
    """Base of all expected errors: a message for the user, no traceback.

    ``remedy`` says what the user can do; it is printed on a line of its own.
    """

    exit_code = 1
    word = "error"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(FerryError):
    """The command line is wrong."""

    exit_code = 2
    word = "usage"


class RefusedError(FerryError):
    """The source or the target is not fit; nothing was written."""

    exit_code = 3
    word = "refused"


class DifferentError(FerryError):
    """The contents of the two sides differ."""

    exit_code = 4
    word = "different"


class ServerError(FerryError):
    """Connection or server error; nothing was written, it is safe to run again."""

    exit_code = 5
    word = "server"
