"""How many descriptors the gateway may have, and how many clients that is enough for.

A client is one, and its request under way at an engine another. Clients that idle must not take them all: a gateway that
cannot connect to its engines any more would take them for dead.
"""

import resource

CONNECTIONS_MAX = 20000
"""Client connections at once. Source: our own bound; twice the 10,000 idle connections that the design asks for."""
_OTHERS = 4096
"""Descriptors kept for all that is not a client. Source: our own bound: engines with some thousand slots, and 64 idle
connections to each of a few dozen."""
WANTED = 2 * CONNECTIONS_MAX + 1024
"""Enough for all clients at work at once, and some."""


def raise_limit() -> int:
    """Allow this process as many descriptors as it wants and the system lets it, and return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(soft, limit)


def connections_for(descriptors: int) -> int:
    """Return how many clients that many descriptors are enough for."""
    return min(CONNECTIONS_MAX, max(descriptors // 2, descriptors - _OTHERS))
