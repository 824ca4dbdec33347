"""patterns.yaml is read strictly, and no form of a line in it is without a line in the tests or the corpora."""

import re
from pathlib import Path

import msgspec
import pytest

from freehold.health.kernel_log import patterns
from freehold.health.kernel_log.events import read_events
from freehold.health.model.view import KernelLine

TESTS = Path(__file__).parents[2]
SHOWN = (*TESTS.glob("unit/health/test_*.py"), *TESTS.glob("corpus/**/*"))
STARTS = re.compile(r"(?:^|[\"'\]:] ?|- )(?=[\w/<{(\[])")

FURTHER = [
    ("NVRM: The NVIDIA GPU 0000:9b:00.0 (PCI ID: 10de:2330) NVRM: installed in this system requires use of the NVIDIA open kernel modules.", "driver_refused", "0000:9b:00"),
    ("mce: [Hardware Error]: Corrected error, no action required.", "memory_corrected", ""),
    ("traps: VLLM::EngineCor[4711] general protection fault ip:7f0 sp:7f1 error:0 in libfoo.so.1[7f0000+1000]", "crash", ""),
    ("mlx5_core 0000:86:00.0: Unable to change power state from D3cold to D0, device inaccessible", "nic_failed", "0000:86:00"),
    ("BTRFS warning (device nvme0n1p2): csum failed root 5 ino 257 off 0 csum 0x8941f998 expected csum 0x93413794 mirror 1", "file_system_error", "nvme0n1p2"),
    ("bonding: bond0: link status definitely down for interface eth1, disabling it", "nic_link_down", "eth1"),
    ("ceph: mds0 hung", "server_silent", "mds0"),
]  # fmt: skip
"""Forms that no other test and no corpus shows."""


@pytest.mark.parametrize(("text", "kind", "device"), FURTHER)
def test_a_further_form(text: str, kind: str, device: str) -> None:
    (event,) = read_events([KernelLine(at_s=1.0, text=text)])
    assert (event.kind, event.device) == (kind, device)


def shown_lines() -> set[str]:
    """Return each text in the tests and corpora from each word on: where a kernel line may begin."""
    words = [word for word, _ in patterns._forms()]
    found: set[str] = set()
    for path in SHOWN:
        text = path.read_text(errors="replace").replace("\\n", "\n") if path.is_file() else ""
        lines = [line for line in text.splitlines() if any(word in line for word in words)]
        found |= {line[at.end() :] for line in lines for at in STARTS.finditer(line[:300])}
    return found


def test_every_form_is_shown_by_a_line() -> None:
    lines = shown_lines()
    forms = {form.line.pattern: form for _, forms in patterns._forms() for form in forms}.values()
    missing = [
        form.line.pattern
        for form in forms
        if not any(patterns._read(form, line) for line in lines if form.pattern.match(line))
    ]
    assert missing == []


@pytest.mark.parametrize("group", [{"kinds": "xid"}, {"kind": "xid", "pattern": "x", "lowered": ["a"]}])
def test_an_unknown_key_is_refused(group: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(
            {"parts": {}, "details": {}, "groups": [{"source": "", "words": [], "lines": [group]}]},
            patterns._Patterns,
        )
