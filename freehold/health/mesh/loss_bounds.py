"""How many lost datagrams are too many: Poisson bounds, computed from how many were sent.

Percentages of a few hundred datagrams mean nothing, counts do. A healthy network loses one in
10,000; the least number that such a network would lose with a chance of at most 1 in 10,000 is the limit. The same way tells a loss that
ended from one that continues. Pure arithmetic; it knows no peers and no verdicts.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from freehold.health.model.view import LossWindow

BACKGROUND = 1e-4
"""Loss of a healthy network: 1e-5 to 1e-4 (Pingmesh's published figures; not checked by us)."""
FALSE_ALARM = 1e-4
"""Chance that a healthy network reaches the limit within one window. Our own choice."""
WAYS = 4
"""Ways, two peers in two directions, that each have that chance; more of them share what these have, so that a large mesh does not
raise false alarms more often than one of three nodes. Our own choice: the bound is for one way, and was tried on three nodes."""
CORROBORATION = 1e-2
"""The same for what others lose besides, next to an alarm that met the first bound; our own choice."""
ENDED = 1e-2
"""Chance below which "none of late" means that a loss is over; our own choice."""
NODE_ODDS = 10.0
"""Odds, before any witness, that a lossy way is its node's fault and not that of this one path: cable, port and NIC serve all
paths of a node, and a fault of one path alone needs a fabric with several. Our own choice."""
UNDECIDED = 0.1
"""Odds below which it is the path: between this and 1 neither is named yet; our own choice."""
JUDGED_S = (60, 300, 600)
"""Windows that are judged: 1 %, 0.5 % and 0.1 % of loss are found in them (computed by these bounds)."""

_LOG_MOST = 500.0
"""Where odds stop growing: e to the 500th is still a float."""


def poisson_below(count: int, mean: float) -> float:
    """Return the chance of fewer than `count` events where `mean` are expected."""
    term = total = math.exp(-mean)
    for index in range(1, count):
        term *= mean / index
        total += term
    return min(1.0, total) if count > 0 else 0.0


@lru_cache(maxsize=4096)
def limit(sent: int, chance: float = FALSE_ALARM, background: float = BACKGROUND) -> int:
    """Return the least number lost that a healthy network reaches with at most that chance; at least 1."""
    mean = sent * background
    count = 1
    while 1 - poisson_below(count, mean) > chance:
        count += 1
    return count


def is_over(sent: int, lost: int, *, sent_late: int, lost_late: int) -> bool:
    """Return whether the last `sent_late` lost too few for a loss at the whole window's rate to be going on."""
    expected = lost / sent * sent_late if sent else 0.0
    return poisson_below(lost_late + 1, expected) < ENDED


def odds_of_node(own: int, other: int, sent: int) -> float:
    """Return the odds that two witnesses, who lost `own` and `other` of `sent` each to a node, see the node and not a path.

    The node: both lose at one rate, best guessed as their mean. The path: the first loses at its own, the other has the
    background.
    """
    background = max(sent, 1) * BACKGROUND
    mean = max((own + other) / 2, background)
    node = _log_chance(own, mean) + _log_chance(other, mean)
    path = _log_chance(own, max(own, background)) + _log_chance(other, background)
    return NODE_ODDS * math.exp(min(node - path, _LOG_MOST))


def _log_chance(count: int, mean: float) -> float:
    return count * math.log(mean) - mean - math.lgamma(count + 1)


def alarm_chance(peers: int) -> float:
    """Return the chance per way and window that a node with so many peers allows."""
    return FALSE_ALARM * min(1.0, WAYS / max(1, 2 * peers))


def lossy_window(
    windows: Sequence[LossWindow], *, back: bool, chance: float = FALSE_ALARM
) -> LossWindow | None:
    """Return the shortest window whose loss in that direction is too much and continues; None where there is none."""
    for window in windows:
        if window.seconds not in JUDGED_S and len(windows) > 1:
            continue
        sent, lost = counts(window, back=back)
        later = [counts(other, back=back) for other in windows if other.seconds < window.seconds]
        if lost >= limit(sent, chance) and not any(
            is_over(sent, lost, sent_late=late[0], lost_late=late[1]) for late in later
        ):
            return window
    return None


def counts(window: LossWindow, *, back: bool) -> tuple[int, int]:
    """Return (settled, lost) of one direction."""
    return (window.settled_back, window.lost_back) if back else (window.settled_out, window.lost_out)


def small_counts(window: LossWindow, *, back: bool) -> tuple[int, int]:
    """Return (settled, lost) of one direction without the large ones."""
    if back:
        return window.settled_back - window.large_back, window.lost_back - window.large_lost_back
    return window.settled_out - window.large_out, window.lost_out - window.large_lost_out
