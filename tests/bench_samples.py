"""Benches with figures of a test's choosing: for the table, the page, the choice and the file."""

from freehold.bench.analysis.figures import Distribution, Figures, SloBounds
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.results import (
    VERSION,
    BenchFile,
    Candidate,
    Conditions,
    Machine,
    Resources,
    Result,
    Through,
)

LOAD = Load(kind="concurrency", value=4)


def some(value: float) -> Distribution:
    return Distribution(
        count=10, mean=value, p50=value, p90=value, p95=2 * value, p99=2 * value, most=2 * value
    )


def result(name: str, run: int, tokens: float, through: Through = "direct", ttft_s: float = 0.1) -> Result:
    return Result(
        candidate=name,
        through=through,
        load=LOAD,
        run=run,
        figures=Figures(
            window_s=10,
            requests=10,
            whole=9,
            refused=0,
            errors={"timeout": 1},
            output_tokens_per_s=tokens,
            goodput_tokens_per_s=tokens,
            slo_share=0.9,
            ttft_s=some(ttft_s),
            token_s=some(0.02),
            late_s=some(0.0001),
        ),
        resources=Resources(cpu_cores=1.5, memory_peak_bytes=400_000_000),
    )


def bench(*results: Result, names: tuple[str, ...] = ("llama-cpp", "<b>vllm</b>")) -> BenchFile:
    return BenchFile(
        version=VERSION,
        freehold="0",
        made_at="2026-11-27T00:00:00Z",
        machine=Machine(cpu="a & b", cores=2, load_before=0.0),
        conditions=Conditions(
            shape="prompts of 512",
            loads=(LOAD,),
            slo=SloBounds(ttft_s=1, itl_s=0.05),
            runs=2,
            seed=1,
            warm_up_s=1,
            duration_s=10,
            timeout_s=60,
        ),
        candidates=tuple(Candidate(id=name, model="m", engine=name, argv=("x", "--y")) for name in names),
        results=results,
    )


MADE = bench(
    result("llama-cpp", 0, 100),
    result("llama-cpp", 1, 110),
    result("<b>vllm</b>", 0, 200),
    result("<b>vllm</b>", 1, 210),
)
