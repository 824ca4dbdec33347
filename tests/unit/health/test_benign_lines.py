"""Lines of sound machines raise nothing: no event of trouble, no finding worse than healthy."""

from pathlib import Path

import pytest

from freehold.core.findings import Verdict
from freehold.health.checks import gpu_xid, storage_errors
from freehold.health.kernel_log.events import read_event, read_events
from freehold.health.kernel_log.formats import parse_log_file
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, Kernel, KernelLine, View, Volume

CORPUS = Path(__file__).parents[2] / "corpus" / "kernel_benign.txt"
LINES_LEAST = 300
GPU = Gpu(index=0, uuid="GPU-a", pci="00000000:9b:00.0")
BOOT_S = 1_700_000_000.0


def corpus() -> list[KernelLine]:
    text = "\n".join("" if line.startswith("#") else line for line in CORPUS.read_text().splitlines())
    lines, bad = parse_log_file(text, boot_at_s=BOOT_S)
    assert bad == []
    return lines


def test_there_are_enough_of_them_and_all_differ() -> None:
    texts = [line.text for line in corpus()]
    assert len(texts) >= LINES_LEAST
    assert len(set(texts)) >= LINES_LEAST
    assert any(line.facility for line in corpus())


@pytest.mark.parametrize("line", corpus(), ids=lambda line: str(line.sequence))
def test_each_line_for_itself_tells_of_no_trouble(line: KernelLine) -> None:
    event = read_event(line)
    assert event is None or not event.is_trouble, event


def test_all_of_them_together_tell_of_no_trouble() -> None:
    lines = corpus()
    assert [event for event in read_events(lines) if event.is_trouble] == []
    view = View(
        at_s=lines[-1].at_s,
        monotonic_s=lines[-1].at_s - BOOT_S,
        gpus=Gpus(gpus=(GPU,)),
        volumes=(Volume(path="/models", device="/dev/nvme0n1p2"),),
        kernel=Kernel(lines=tuple(lines)),
    )
    for probe in (gpu_xid.PROBE, storage_errors.PROBE):
        assert {finding.verdict for finding in probe.check([view], Expected())} == {Verdict.HEALTHY}
