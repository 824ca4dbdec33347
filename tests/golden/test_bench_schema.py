"""The JSON schema of a bench's results file: what reads such files relies on it."""

import json
from collections.abc import Callable

from freehold.bench.analysis.results import schema


def test_schema(golden: Callable[[str, str], None]) -> None:
    golden("bench_schema.json", json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")
