"""What differs between two files: each change named with what it takes, and what cannot change refused by name."""

from typing import Any

import pytest

from freehold.core.places import dotted
from freehold.spec.changes import LIVE, Changes, How, compare
from freehold.spec.load import load_text
from freehold.spec.model import Spec

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model(name: str = "a", more: str = "") -> str:
    return f"  - {{name: {name}, engine: llama-cpp, source: 'file:///w.gguf', sha256: {SHA}{more}}}\n"


def spec(models: str = model(), more: str = "") -> Spec:
    loaded = load_text(
        f"version: 1\nmodels:\n{models}{more}", name="f", engines=("llama-cpp", "external"), env={}
    )
    assert loaded.spec is not None, loaded.problems
    return loaded.spec


def between(old: Spec, new: Spec) -> Changes:
    return compare(old, new, dotted)


def hows(found: Changes) -> list[tuple[How, str]]:
    return [(change.how, change.what) for change in found.changes]


def test_the_same_file_changes_nothing_however_it_is_written() -> None:
    found = between(spec(), spec(model(more=", replicas: 1"), "gateway: {queue: {max_wait: 20s}}\n"))
    assert found == Changes(changes=(), problems=())


def test_models_come_go_and_change() -> None:
    old = spec(model("a") + model("b"))
    new = spec(model("c") + model("b", ", replicas: 3, engine_options: {n_ctx: 64}"))
    found = between(old, new)
    assert hows(found) == [
        (How.REMOVE, "models.a"),
        (How.SCALE, "models.b.replicas"),
        (How.ROLL, "models.b.engine_options.n_ctx"),
        (How.ADD, "models.c"),
    ]
    assert [str(change) for change in found.changes] == [
        "- model a: no new requests, its streams finish",
        "~ models.b.replicas: 1 -> 3",
        "~ models.b.engine_options.n_ctx: nothing -> 64 (its replicas are replaced one by one)",
        "+ model c",
    ]


def test_a_price_replaces_no_replica() -> None:
    text = (
        'version: 1\nmodels: [{name: a, engine: external, endpoints: ["http://h:1"], '
        "price: {input_usd_per_million_tokens: %s, output_usd_per_million_tokens: 2}}]\n"
    )
    old, new = (load_text(text % cents, name="f", engines=["external"], env={}) for cents in ("1", "1.5"))
    assert old.spec is not None
    assert new.spec is not None
    found = compare(old.spec, new.spec, new.where)
    assert hows(found) == [(How.LIVE, "models.a.price.input_usd_per_million_tokens")]


def test_how_the_gateway_treats_a_model_is_taken_over_as_it_is() -> None:
    found = between(spec(), spec(model(more=", stall: 9s, affinity: none, resume: off")))
    assert {change.how for change in found.changes} == {How.LIVE}
    assert {change.what for change in found.changes} == {
        "models.a.stall",
        "models.a.affinity",
        "models.a.resume",
    }
    assert hows(between(spec(model(more=", stall: 9s")), spec())) == [(How.LIVE, "models.a.stall")]


def test_the_order_of_models_means_nothing() -> None:
    assert hows(between(spec(model("a") + model("b")), spec(model("b") + model("a")))) == []


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("gateway: {queue: {max_wait: 3s}}", "gateway.queue.max_wait"),
        ("gateway: {timeouts: {total: 3s}}", "gateway.timeouts.total"),
        ("gateway: {access_log: {enabled: false}}", "gateway.access_log.enabled"),
        ("gateway: {max_body: 1MiB}", "gateway.max_body"),
        ("gateway: {upload_memory: 1MiB}", "gateway.upload_memory"),
        ("gateway: {drain_grace: 1s}", "gateway.drain_grace"),
        ("fleet: {stop_grace: 1s}", "fleet.stop_grace"),
        ("fleet: {ready_timeout: 1s}", "fleet.ready_timeout"),
    ],
)
def test_settings_that_change_in_place(more: str, what: str) -> None:
    found = between(spec(), spec(more=f"{more}\n"))
    assert hows(found) == [(How.LIVE, what)]
    assert not found.problems


def test_what_cannot_change_is_refused_all_at_once_with_its_place() -> None:
    new = spec(more="gateway: {listen: '127.0.0.1:1', auth: keys, queue: {max_requests: 1}}\n")
    found = between(spec(), new)
    assert [(problem.where, problem.message) for problem in found.problems] == [
        (
            "gateway.listen",
            "gateway.listen cannot change from 127.0.0.1:8000 to 127.0.0.1:1 while the stack runs",
        ),
        ("gateway.auth", "gateway.auth cannot change from none to keys while the stack runs"),
    ]
    assert all("freehold down" in problem.hint for problem in found.problems)


def test_a_section_that_comes_or_goes_is_only_what_it_sets() -> None:
    tls = spec(more="gateway: {tls: {certificate: c.pem, key: k.pem}}\n")
    for old, new in ((spec(), tls), (tls, spec())):
        problems = between(old, new).problems
        assert [problem.where for problem in problems] == ["gateway.tls.certificate", "gateway.tls.key"]
        assert all("freehold down, then freehold up" in problem.hint for problem in problems)


def test_every_key_that_changes_in_place_is_a_key() -> None:
    fields: Any = spec().model_dump()
    for path in LIVE:
        inner = fields
        for part in path:
            inner = inner[part]
