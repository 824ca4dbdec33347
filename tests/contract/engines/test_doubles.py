"""SGLang and TensorRT-LLM against doubles of them: the kit, what they tell, what older versions lack, how they end."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.engines import all_engines
from freehold.engines.base import Capacity, Engine, ExitKind, Option, Placement, Value
from freehold.engines.sglang import FLAGS as SGLANG_FLAGS
from freehold.engines.shared.flag_list import FlagList
from freehold.engines.tensorrt_llm import FLAGS as TENSORRT_FLAGS
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.probe import HttpProber
from freehold.health.collectors.engines import EngineOptions, EnginesReader
from freehold.health.model.targets import EngineTarget
from freehold.testing.check_engine import _values
from freehold.testing.check_running_engine import GRACE_S, EngineChild, check_running_engine, start_child
from freehold.testing.flag_parser import flag_parser
from waiting import wait_until

SGLANG, TENSORRT = all_engines()["sglang"], all_engines()["tensorrt-llm"]
LISTS = {"sglang": SGLANG_FLAGS, "tensorrt-llm": TENSORRT_FLAGS}
Place = Callable[..., Placement]


@pytest.fixture
def place(tmp_path: Path, free_port: int) -> Place:
    """Give `place(engine, its flags for the double, options)`: a placement whose program is a double."""

    def put(engine: Engine, *double: str, **options: Value) -> Placement:
        program = tmp_path / "serve-program"
        words = [sys.executable, "-P", "-m", "freehold.testing.engine_doubles", engine.name, *double, "--"]
        program.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        program.chmod(0o755)
        weights = tmp_path / "weights"
        weights.mkdir(exist_ok=True)
        return Placement(
            model="some-model",
            weights=weights,
            host="127.0.0.1",
            port=free_port,
            options={"program": str(program), **options},
        )

    return put


PACE = ("--tokens-per-s", "100", "--answer-tokens", "64", "--context-tokens", "2048")


def test_sglang_keeps_its_word(place: Place) -> None:
    run = check_running_engine(SGLANG, place(SGLANG, *PACE, context_length=2048, max_running_requests=4))
    assert run.end_s < GRACE_S


def test_tensorrt_llm_keeps_its_word(place: Place) -> None:
    run = check_running_engine(TENSORRT, place(TENSORRT, "--gauges", *PACE, max_seq_len=2048))
    assert run.end_s < GRACE_S


def told(child: EngineChild) -> Capacity:
    capacity = Capacity()
    for page in child.engine.capacity_pages:
        capacity = capacity.filled(page.read(child.client.get(page.path).content, child.placement.model))
    return capacity


def test_sglang_tells_what_it_can_take(place: Place) -> None:
    with start_child(SGLANG, place(SGLANG, *PACE, max_total_tokens=4096)) as child:
        child.wait_ready()
        assert told(child) == Capacity(slots=48, kv_tokens=4096, max_context_tokens=2048)


def test_an_older_tensorrt_llm_is_read_from_its_iterations(place: Place) -> None:
    with start_child(TENSORRT, place(TENSORRT, *PACE)) as child:
        child.wait_ready()
        after = child.metrics()
        assert after["decode_steps_total"] > 0
        assert "generated_tokens_total" not in after
        assert child.metrics() == {}  # each iteration is told once: that nobody moved is not nought
        child.client.post("/v1/completions", json={"model": "some-model", "prompt": "hi", "max_tokens": 3})
        assert child.metrics()["decode_steps_total"] == after["decode_steps_total"] + 3


def test_tensorrt_llm_calls_the_model_by_its_name_and_counts(place: Place) -> None:
    placement = place(TENSORRT, *PACE, llm_args='{"kv_cache_config": {"dtype": "fp8"}}')
    assert TENSORRT.command is not None
    command = TENSORRT.command(placement)
    assert command.links == {"some-model": str(placement.weights)}
    (text,) = command.files.values()
    assert json.loads(text) == {
        "return_perf_metrics": True,
        "enable_iter_perf_stats": True,
        "kv_cache_config": {"dtype": "fp8"},
    }


@pytest.mark.parametrize("engine", [SGLANG, TENSORRT], ids=lambda engine: engine.name)
def test_a_flag_of_another_version_is_told_as_such(engine: Engine, place: Place, tmp_path: Path) -> None:
    placement = place(engine)
    assert engine.command is not None
    program = Path(str(placement.options["program"]))
    program.write_text(program.read_text().replace('"$@"', '"$@" --no-such-flag=1'))
    with start_child(engine, placement) as child:
        wait_until(lambda: child.process.poll() is not None, timeout_s=30, what="its end")
        cause = engine.explain_exit(child.process.returncode, child.log_lines)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_OPTION, False)
    assert "--no-such-flag" in cause.summary


def test_tensorrt_llm_without_a_folder_is_bad_weights(place: Place) -> None:
    placement = place(TENSORRT)
    assert placement.weights is not None
    placement.weights.rmdir()
    with start_child(TENSORRT, placement) as child:
        wait_until(lambda: child.process.poll() is not None, timeout_s=30, what="its end")
        cause = TENSORRT.explain_exit(child.process.returncode, child.log_lines)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False)


def own_words(engine: Engine, options: dict[str, Value]) -> list[str]:
    assert engine.command is not None
    place = Placement(model="m", weights=Path("/w"), host="127.0.0.1", port=4321, options=options)
    return [
        word
        for word in engine.command(place).argv
        if word.startswith("--") or not word.startswith(("/", "{"))
    ]


@pytest.mark.parametrize("engine", [SGLANG, TENSORRT], ids=lambda engine: engine.name)
def test_every_option_is_in_the_recorded_list(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option with each of its values is rendered, and the program's list of flags takes it with that value."""
    flags: FlagList = LISTS[engine.name]
    parser, walked = flag_parser(flags), 0
    by_name = {flag.name: flag for flag in flags.flags}
    for option in engine.options:
        for value in _values(option):
            words = own_words(engine, {option.name: value})
            words = words[next(at for at, word in enumerate(words) if word.startswith("--")) :]
            got = vars(parser.parse_args(words))
            walked += 1
            if option.name in by_name:
                heard = bool(got[option.name]) if option.type == "bool" else got[option.name]
                assert heard == expected(option, value, by_name[option.name].type), option.name
    assert walked > len(flags.flags)
    assert not capsys.readouterr().err


def expected(option: Option, value: Value, kind: str) -> object:
    if kind == "list":
        return [{"int": int, "float": float}.get(option.items, str)(item) for item in str(value).split()]
    return json.loads(str(value)) if option.json else value


@pytest.mark.parametrize("engine", [SGLANG, TENSORRT], ids=lambda engine: engine.name)
def test_every_flag_is_an_option_or_has_a_reason_why_not(engine: Engine) -> None:
    names = {flag.name for flag in LISTS[engine.name].flags}
    options = {option.name for option in engine.options}
    assert names <= options | set(engine.reserved)
    assert not options & set(engine.reserved)


def readings(engine: Engine, url: str) -> tuple[float | None, float | None]:
    """Return what the fleet and what health read of a replica's progress."""
    plan = ReplicaPlan(id="m-0", model="some-model", engine=engine)
    target = EngineTarget(
        replica="m-0", engine=engine.name, model="some-model", url=url, pid=0, running=1, progress=0
    )

    async def ask() -> tuple[float | None, float | None]:
        prober = HttpProber(FleetSettings(log_dir=Path("/nowhere")))
        reader = EnginesReader(EngineOptions(deadline_s=10.0), all_engines())
        reader.targets = [target]
        try:
            fleet = await prober.measure(plan, url)
            (view,) = await reader.read()
        finally:
            await reader.close()
            await prober.close()
        seen = view.tokens_total.value
        return fleet.running, float(seen) if isinstance(seen, int | float) else None

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("engine", "double"),
    [(SGLANG, PACE), (TENSORRT, ("--gauges", *PACE))],
    ids=["sglang", "tensorrt-llm"],
)
def test_fleet_and_health_read_the_same_pages(engine: Engine, double: tuple[str, ...], place: Place) -> None:
    with start_child(engine, place(engine, *double)) as child:
        child.wait_ready()
        child.client.post("/v1/completions", json={"model": "some-model", "prompt": "hi", "max_tokens": 3})
        running, progress = readings(engine, f"http://127.0.0.1:{child.placement.port}")
    assert running == 0.0
    assert progress is not None
    assert progress >= 4  # tokens of the ready check and of the request


def test_an_older_tensorrt_llm_is_read_by_whoever_asks_first(place: Place) -> None:
    with start_child(TENSORRT, place(TENSORRT, *PACE)) as child:
        child.wait_ready()
        url = f"http://127.0.0.1:{child.placement.port}"
        running, progress = readings(TENSORRT, url)
        assert (running, progress) == (0.0, None)  # the fleet asked first: for health nothing has moved since
        assert readings(TENSORRT, url) == (None, None)
