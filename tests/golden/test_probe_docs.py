"""docs/health-probes.md is what the probes say of themselves: every threshold with its source, every reason with its meaning."""

from collections.abc import Callable

from freehold.health.model.probe import Probe
from freehold.health.registry import all_probes

HEAD = """\
# Probes

What each probe of the agent sees, by what numbers it judges and who says so, and what each of its reasons means. Written
from the probes themselves (`pytest tests/golden --golden-update`); how they are run and what they do not see: docs/health.md.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def section(probe: Probe) -> str:
    thresholds = "".join(f"| `{t.name}` | {t.value:g} | {cell(t.source)} |\n" for t in probe.thresholds)
    reasons = "".join(f"| `{name}` | {cell(meaning)} |\n" for name, meaning in probe.reasons.items())
    return (
        f"\n## {probe.name}\n{probe.summary}\n\nReads {', '.join(probe.reads)}; looks back {probe.window_s:g} s; believed worse "
        f"after {probe.confirm} and better after {probe.clear} looks.\n"
        + (f"\n| threshold | value | source |\n|---|---|---|\n{thresholds}" if thresholds else "")
        + f"\n| reason | means |\n|---|---|\n{reasons}"
    )


def test_the_page_on_probes_is_what_they_say(golden: Callable[[str, str], None]) -> None:
    golden("../../docs/health-probes.md", HEAD + "".join(map(section, all_probes().values())))
