"""The matrix of what works through the gateway with each engine: it names real tests only, and docs/engines.md has it as it is."""

from pathlib import Path

from e2e import client_suite, client_table
from e2e.client_table import DIFFERENCES, ENGINES, ROWS, Instead

DOCS = Path(__file__).parents[2] / "docs" / "engines.md"


def test_the_documentation_has_the_matrix():
    assert client_table.matrix() in DOCS.read_text(), f"docs/engines.md must have:\n{client_table.matrix()}"


def test_every_difference_is_one_of_a_test():
    assert set(DIFFERENCES) == set(ENGINES)
    assert len(set(ROWS)) == len(ROWS)
    for differences in DIFFERENCES.values():
        assert set(differences) <= set(ROWS)
        for other in differences.values():
            assert not isinstance(other, Instead) or callable(
                getattr(client_suite.ClientSuite, other.method, None)
            )
