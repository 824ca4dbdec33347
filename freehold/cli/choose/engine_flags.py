"""What a team wants of an engine and its own load tests, on the command line of `plan` and `size`: from a file, or from a bench.

It chooses no engine.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from freehold.core.problems import Problem
from freehold.cost.intake.flags import FlagReader

if TYPE_CHECKING:  # a command's help need not wait for these
    from freehold.sizing.fleet.advise import Wish
    from freehold.sizing.replica.answer import MeasuredSpeed


def read_engine_flags(
    given: dict[str, Any], reader: FlagReader, *, gpus: Collection[str]
) -> "tuple[Wish, tuple[MeasuredSpeed, ...]]":
    """Return the wish and the load tests that the flags of [engine] name; problems are in the reader. `gpus` are the catalog's ids."""
    from freehold.bench.load_tests import rows_from_bench  # noqa: PLC0415 - see above
    from freehold.cost.intake.load_tests import read_load_tests, read_wish  # noqa: PLC0415 - see above

    wish = read_wish(given, reader)
    found = [
        each
        for param, read in (("measured", read_load_tests), ("bench", rows_from_bench))
        if given.get(param) is not None
        for each in read(given[param], gpus=gpus)
    ]
    reader.problems += [each for each in found if isinstance(each, Problem)]
    return wish, tuple(each for each in found if not isinstance(each, Problem))
