"""`freehold bench`: the same load on several engines and settings, measured, recommended with numbers, applied.

Everything that can be wrong is checked before an engine starts. Each engine is started alone; a stack that runs on this
machine meanwhile takes from what is measured, and the busy machine is reported. Exit codes: 0 measured; 3 no candidate kept the SLO, or an
engine failed; 130 after Ctrl-C; `apply` writes freehold.yaml only where it is as it was when it was benched.
"""

import asyncio
import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold import __version__
from freehold.bench.analysis.choose import Choice
from freehold.bench.analysis.results import VERSION, BenchFile
from freehold.bench.analysis.sizes import fit
from freehold.bench.contenders import (
    contenders_of,
    context_of,
    entries_of,
    gpu_mistakes,
    models_of,
)
from freehold.bench.load_flags import LOAD_FLAGS, OWN, LoadAsk, read_load
from freehold.bench.measure.run import Bench, BenchSetup, Contender, Measurements
from freehold.bench.weights import named_weights, weights_of
from freehold.cli.choose.bench_show import (
    apply,
    apply_or_say,
    chosen,
    say_bench,
    show,
    why_not_written,
    write_page,
)
from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.fetch_progress import showing
from freehold.cli.terminal.flag_options import flag_options
from freehold.cli.terminal.output import INTERRUPTED, UserMistakes, duration_text
from freehold.cli.terminal.place import StackPlace, json_option, require_ledger, stack_options
from freehold.core.clock import wall_s
from freehold.core.errors import Permanent
from freehold.cost.intake.flags import FlagReader
from freehold.gateway.settings import settings_from
from freehold.ledger.journal import JOURNAL_NAME
from freehold.stack.config import Config
from freehold.stack.node_gpus import node_gpus
from freehold.stack.status import running_status

_CONTEXT_PART = 0.95
"""Of the smallest context, what prompts and answers may fill: words are only nearly tokens. Source: our own choice."""
_FILE = click.Path(path_type=Path)


@click.group("bench", invoke_without_command=True)
@click.option(
    "--model",
    "models",
    metavar="NAME",
    multiple=True,
    help="Of freehold.yaml [default: all]; can be given again.",
)
@click.option(
    "--engines",
    metavar="A,B",
    default="",
    help="The same weights on these engines [default: each model's own].",
)
@click.option(
    "--set",
    "settings",
    metavar="ENGINE.OPTION=V,V",
    multiple=True,
    help="Measure each of these values; can be given again.",
)
@click.option(
    "--weights",
    metavar="ENGINE=PATH",
    multiple=True,
    help="Weights of one engine, where it cannot load the model's own.",
)
@flag_options(LOAD_FLAGS.values())
@click.option("--out", type=_FILE, help="Where the results go, JSON [default: bench-DATE-TIME.json].")
@click.option("--html", type=_FILE, help="Write a page with plots.")
@click.option("--apply", "and_apply", is_flag=True, help="Write the winner into freehold.yaml at the end.")
@stack_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, stack: StackPlace, as_json: bool, **flags: Any) -> int:  # fmt: skip
    """Put the same load on several engines and settings, and say which serves best here."""
    if ctx.invoked_subcommand is not None:
        return 0
    config = load_config(stack.config_path, overrides={})
    if flags["shape"] == OWN:
        require_ledger(stack.state_path / JOURNAL_NAME)
    out = flags["out"] or Path(f"bench-{datetime.fromtimestamp(wall_s(), UTC):%Y%m%d-%H%M%S}.json")
    reader = FlagReader()
    _check_files(out, flags, reader, has_config=stack.config_path is not None)
    bench = _measured(config, {**flags, "state_path": stack.state_path}, reader, as_json=as_json)
    _write(bench, out)
    choice = chosen(bench)
    if flags["html"] is not None:
        write_page(bench, choice, flags["html"])
    say_bench(bench, choice, path=out, as_json=as_json)
    if flags["and_apply"]:
        apply_or_say(bench, choice, as_json=as_json)
    return exit_code(bench, choice)


def _check_files(out: Path, flags: dict[str, Any], reader: FlagReader, *, has_config: bool) -> None:
    """Note before an engine starts what could not be written when hours of measuring are over."""
    for flag, path in (("--out", out), ("--html", flags["html"])):
        if path is not None and (why := why_not_written(path)):
            reader.wrong(flag, why, "a file in a folder that is there")
    if flags["html"] is not None and flags["html"].resolve() == out.resolve():
        reader.wrong("--html", f"is the same file as the results, {out}", "another name, such as page.html")
    if flags["and_apply"] and not has_config:
        reader.wrong(
            "--apply", "there is no freehold.yaml to write the winner into", "freehold init writes one"
        )


command.add_command(show)
command.add_command(apply)


def exit_code(bench: BenchFile, choice: Choice) -> int:
    """Return 130 for a bench that Ctrl-C ended, 3 where no candidate kept the SLO or a candidate failed, else 0."""
    if bench.interrupted:
        return INTERRUPTED
    return 3 if choice.winner is None or any(each.failed for each in bench.candidates) else 0


def _measured(config: Config, flags: dict[str, Any], reader: FlagReader, *, as_json: bool) -> BenchFile:
    models = models_of(config, flags["models"], reader)
    engines = [word.strip() for word in flags["engines"].split(",") if word.strip()]
    entries = entries_of(models, reader, on=engines, settings=flags["settings"])
    named = named_weights(flags["weights"], entries, reader)
    asked = read_load(
        flags,
        reader,
        state_path=flags["state_path"],
        models=tuple(each.name for model in models for each in model.named),
    )
    if asked is None or reader.problems:
        raise UserMistakes(reader.problems)
    node = node_gpus(os.environ)
    if mistakes := gpu_mistakes(entries, node):
        raise UserMistakes(mistakes)
    if not as_json and running_status(flags["state_path"]) is not None:
        click.echo(
            "The stack of this configuration is up and shares the machine with what is measured; freehold down ends it.",
            err=True,
        )
    with showing(quiet=as_json) as progress:
        weights = weights_of(entries, named, base_dir=config.base_dir, show=progress)
    contenders = contenders_of(entries, weights, node=node)
    sizes = fit(asked.sizes, int(context_of(entries) * _CONTEXT_PART))
    conditions = msgspec.structs.replace(asked.conditions, shape=sizes.words())
    asked = replace(asked, sizes=sizes, conditions=conditions)
    measured = _run(config, asked, contenders, as_json=as_json)
    return _file(config, asked, measured)


def _run(config: Config, asked: LoadAsk, contenders: list[Contender], *, as_json: bool) -> Measurements:
    def report(words: str) -> None:
        if not as_json:
            click.echo(words, err=True)

    gateway = None
    if "gateway" in asked.through:
        gateway = msgspec.structs.replace(settings_from(config.spec.gateway), workers=1)
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        setup = BenchSetup(
            contenders=contenders,
            conditions=asked.conditions,
            sizes=asked.sizes,
            through=asked.through,
            gateway=gateway,
            folder=Path(folder),
            ready_timeout_s=config.spec.fleet.ready_timeout,
        )
        bench = Bench(setup=setup, report=report)
        least = duration_text(least_s(asked, len(contenders)))
        starts = len(contenders) * asked.conditions.runs
        report(
            f"at least {least} of load, and {starts} starts of engines; Ctrl-C keeps what was measured until then"
        )
        try:
            return asyncio.run(bench.run())
        except KeyboardInterrupt:
            return bench.so_far()


def least_s(asked: LoadAsk, candidates: int) -> float:
    """Return how long the loads are on, seconds; starts and slow answers come on top."""
    conditions = asked.conditions
    each_s = conditions.warm_up_s + conditions.duration_s
    return each_s * len(conditions.loads) * len(asked.through) * conditions.runs * candidates


def _file(config: Config, asked: LoadAsk, measured: Measurements) -> BenchFile:
    from freehold.bench.apply import file_sha256  # noqa: PLC0415 - ruamel.yaml takes its time to import

    conditions = msgspec.structs.replace(asked.conditions, words_per_token=measured.words_per_token)
    return BenchFile(
        version=VERSION,
        freehold=__version__,
        made_at=f"{datetime.fromtimestamp(wall_s(), UTC):%Y-%m-%dT%H:%M:%SZ}",
        machine=measured.machine,
        conditions=conditions,
        candidates=measured.candidates,
        results=measured.results,
        interrupted=not measured.whole,
        config=str(config.path) if config.path is not None else "",
        config_sha256=file_sha256(config.path) if config.path is not None else "",
    )


def _write(bench: BenchFile, out: Path) -> None:
    from freehold.bench.results_file import write  # noqa: PLC0415 - only here

    try:
        write(bench, out)
    except OSError as exc:
        raise Permanent(f"cannot write {out}: {exc.strerror or exc}") from exc
