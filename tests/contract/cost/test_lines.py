import pytest

import cost_samples as samples
from check_cost_line import check_cost_line
from freehold.cost.lines import all_lines

LINES = {line.name: line for line in all_lines()}


def test_the_folder_holds_the_lines_that_a_plan_needs():
    assert set(LINES) == {
        "api_tokens",
        "capital",
        "colocation",
        "egress",
        "electricity",
        "failures",
        "hardware",
        "host_ram",
        "insurance",
        "maintenance",
        "network",
        "rental",
        "spares",
        "staff",
        "storage",
    }


@pytest.mark.parametrize("name", LINES)
def test_a_line_keeps_its_contract(name: str):
    cases = [
        *(samples.case(offer) for offer in (samples.bought(), samples.rented(), samples.called())),
        samples.case(samples.bought(), fallback=None),
        samples.case(samples.bought(samples.fleet(replicas=4, spare_replicas=4))),
        samples.case(samples.bought(), site="on-premises"),
        samples.case(samples.bought(), own=samples.exact_own()),
    ]
    assert check_cost_line(LINES[name], cases) == []
