"""A stack without a live replica answers from somebody else's endpoint, says so, and knows to the last digit what it cost."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from e2e.box import Box, http
from freehold.testing.fake_engine import FakeEngine, start_fake_engine

CONFIG = """
version: 1
models:
  - {{name: m, engine: external, endpoints: ["{home}"]}}
fallback:
  - name: cloud
    url: {cloud}/v1
    upstream_model: big
    api_key_env: CLOUD_KEY
    price: {{input_usd_per_million_tokens: 0.15, output_usd_per_million_tokens: 0.6}}
    budget_usd_per_day: 1
"""
PRICE_IN, PRICE_OUT = Decimal("0.15") / 10**6, Decimal("0.6") / 10**6


@pytest.fixture
def cloud() -> Iterator[FakeEngine]:
    with start_fake_engine(model="big") as engine:
        yield engine


def test_a_stack_whose_replica_died_answers_from_the_fallback(box: Box, cloud: FakeEngine) -> None:
    with start_fake_engine(model="m") as home:
        box.write(CONFIG.format(home=home.url, cloud=cloud.url))
        without = box.run("up", "--json", "--listen", "127.0.0.1:0")
        assert (without.code, "CLOUD_KEY" in without.err + without.out) == (2, True)
        box.env["CLOUD_KEY"] = "sk-cloud"
        with box.foreground() as stack, http() as client:

            def ask(**headers: str) -> Any:
                body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7}
                return client.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers)

            assert "x-freehold-fallback" not in ask().headers
            home.kill()
            answers = [ask() for _ in range(3)]
            assert [(a.status_code, a.headers["x-freehold-fallback"]) for a in answers] == [
                (200, "cloud")
            ] * 3
            refused = ask(**{"x-freehold-fallback": "never"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            used = [a.json()["usage"] for a in answers]
            cost = sum(u["prompt_tokens"] * PRICE_IN + u["completion_tokens"] * PRICE_OUT for u in used)
            rows = box.run("usage", "--by", "endpoint", "--json").said["usage"]
            (there,) = [row for row in rows if row["endpoint"] == "fallback/cloud"]
            assert (there["requests"], Decimal(there["cost_usd"]), there["cost_unknown"]) == (3, cost, 0)
            health = client.get(f"{stack.url}/health").json()
            assert Decimal(health["fallback"]["cloud"]["spent_usd"]) == cost
            assert "sk-cloud" not in "".join(box.command_lines())
            assert stack.end() == 0
        table = box.run("usage", "--by", "model,day").out
        assert f"{cost:f}".rstrip("0") in table
        assert "cost USD" in table
        csv = box.run("usage", "--csv", "--by", "endpoint").out.splitlines()
        assert csv[0].endswith("priced,cost_usd,cost_unknown")
        assert [line.rsplit(",", 3)[1:] for line in csv[1:] if line.startswith("fallback/")] == [
            ["3", f"{cost:f}".rstrip("0"), "0"]
        ]
