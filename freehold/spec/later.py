"""Keys that the design has and this release has not: refused by name instead of being called unknown.

A key leaves this list in the change that builds it. Values of that kind (`runtime: ray`) stand with their field.
"""

LATER_KEYS = frozenset({("observability",)})


def is_later(path: tuple[str | int, ...]) -> bool:
    """Return whether `path` is, or lies under, a key of a later release; list positions do not matter."""
    words = tuple(part for part in path if isinstance(part, str))
    return any(words[:end] in LATER_KEYS for end in range(1, len(words) + 1))
