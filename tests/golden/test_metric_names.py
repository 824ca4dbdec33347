from collections.abc import Callable

from freehold.telemetry.declared import AGENT, DECLARED


def test_metric_names_kinds_and_labels(golden: Callable[[str, str], None]) -> None:
    lines = [
        f"{row.name} {row.kind} {{{','.join(label.name for label in row.labels)}}}"
        for row in sorted((*DECLARED, *AGENT), key=lambda row: row.name)
    ]
    golden("metrics.txt", "\n".join(lines) + "\n")
