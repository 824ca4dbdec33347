"""docs/health-probes.md is made from the probes: every threshold with its source, every reason with its meaning."""

from collections.abc import Callable

from freehold.health.model.probe import Probe
from freehold.health.registry import all_probes

HEAD = """\
# Probes

For each probe: what it detects, its thresholds with their sources, and the meaning of its reasons. This page is generated
from the probes (`pytest tests/golden --golden-update`). How they run, and what they do not see: docs/health.md.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def checks(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks in a row"


def section(probe: Probe) -> str:
    thresholds = "".join(f"| `{t.name}` | {t.value:g} | {cell(t.source)} |\n" for t in probe.thresholds)
    reasons = "".join(f"| `{name}` | {cell(meaning)} |\n" for name, meaning in probe.reasons.items())
    return (
        f"\n## {probe.name}\n{probe.summary}\n\nReads {', '.join(probe.reads)}. Looks back {probe.window_s:g} s. A worse verdict needs "
        f"{checks(probe.confirm)}, a better one {checks(probe.clear)}.\n"
        + (f"\n| threshold | value | source |\n|---|---|---|\n{thresholds}" if thresholds else "")
        + f"\n| reason | means |\n|---|---|\n{reasons}"
    )


def test_the_page_on_probes_is_what_they_say(golden: Callable[[str, str], None]) -> None:
    golden("../../docs/health-probes.md", HEAD + "".join(map(section, all_probes().values())))
