"""The world's failures, as two exceptions that say whether to try again.

A user's mistake is no exception but a value (`freehold.core.problems.Problem`); our own mistake is an assert.
Third-party exceptions are mapped to these once, in the file that owns the client, always `from exc`.
"""


class FreeholdError(Exception):
    """A failure of the world around Freehold; `hint` is the next thing to do, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Temporary(FreeholdError):
    """May pass by itself: try again after `retry_after_s` seconds (None: the caller's own back-off)."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Permanent(FreeholdError):
    """Will not pass by itself: trying again gives the same answer until somebody acts on `hint`."""
