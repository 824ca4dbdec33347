"""The checks of `freehold engine check`: the processor, the driver, and whether each engine's program starts here.

Each program is started to print its version, or its package is imported. GPUs are deliberately not checked: `freehold
doctor` does that.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from freehold.core.errors import FreeholdError
from freehold.engines import all_engines
from freehold.engines.base import Engine, ExitKind
from freehold.fleet.environments.ask_program import ask_flags, python_behind, run
from freehold.fleet.environments.lookup import Environment, installed_problems, requirements_sha256
from freehold.spec.model import ModelSpec
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.engine_environment import environment_of, how_to_get, program_of

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""Processor features by which builds of engines differ. Source: vLLM's and llama.cpp's documentation on CPUs."""
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def machine_facts() -> list[Check]:
    """Return what decides which builds run on this machine: the processor's features and the GPU driver."""
    return [_cpu(), _driver()]


def _cpu() -> Check:
    with suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            key, _, words = line.partition(":")
            if key.strip() in ("flags", "Features"):
                found = [flag for flag in _CPU_FLAGS if flag in words.split()]
                if found:
                    return Check("processor", CheckResult.GOOD, ", ".join(found))
                fix = "use a machine with AVX2 (x86-64) or NEON (ARM): builds for CPUs need it"
                return Check(
                    "processor", CheckResult.WARNING, "no vector features that engines are built for", fix
                )
    return Check("processor", CheckResult.UNKNOWN, f"{_CPUINFO} does not list its features")


def _driver() -> Check:
    try:
        words = _DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return Check(
            "gpu_driver", CheckResult.GOOD, "no NVIDIA driver is loaded: engines run on the processor"
        )
    return Check("gpu_driver", CheckResult.GOOD, words.removeprefix("NVRM version: ").strip())


def engine_checks(names: Sequence[str], models: Sequence[ModelSpec]) -> Iterator[Check]:
    """Yield the checks of each engine named; without names, of each that is installed or that a model uses."""
    used = {model.engine for model in models}
    wanted = [all_engines()[name] for name in names] or [
        engine
        for engine in all_engines().values()
        if engine.managed and (engine.name in used or engine.distribution or program_of(engine, {}))
    ]
    for engine in wanted:
        yield from _engine(engine, [model for model in models if model.engine == engine.name])


def _engine(engine: Engine, models: Sequence[ModelSpec]) -> Iterator[Check]:
    if not engine.managed:
        yield Check(engine.name, CheckResult.GOOD, "external: Freehold does not start it")
    elif engine.distribution:
        yield _imported(engine)
    else:
        yield from _programs(engine, models)


def _imported(engine: Engine) -> Check:
    """Import the package in a process of its own, as a replica does: a build for another processor crashes there."""
    name = engine.distribution
    fix = f"run `pip install {name}` for the Python of Freehold: {sys.executable}"
    try:
        known = version(name)
        run([sys.executable, "-P", "-c", f"import {name}"])
    except PackageNotFoundError:
        return Check(engine.name, CheckResult.PROBLEM, f"the package {name} is not installed", fix)
    except FreeholdError as exc:
        return Check(engine.name, CheckResult.PROBLEM, exc.message, fix)
    return Check(engine.name, CheckResult.GOOD, f"{name} {known} can be imported")


def _programs(engine: Engine, models: Sequence[ModelSpec]) -> Iterator[Check]:
    """Start each program that the configured models use, or the one that a new model would use."""
    programs: dict[Path | None, list[ModelSpec]] = {}
    for model in models:
        programs.setdefault(program_of(engine, model.engine_options), []).append(model)
    if not programs:
        programs[program_of(engine, {})] = []
    for program, users in programs.items():
        if program is None:
            yield Check(engine.name, CheckResult.PROBLEM, "not installed here", how_to_get(engine))
        else:
            yield _started(engine, program)
            yield from _options(engine, program, users)


def _made(engine: Engine, program: Path) -> Environment | None:
    environment = environment_of(engine)
    return environment if environment is not None and program.is_relative_to(environment.path) else None


def _started(engine: Engine, program: Path) -> Check:
    environment = _made(engine, program)
    fix = f"freehold engine install {environment.manifest.recipe}" if environment else how_to_get(engine)
    try:
        said = run([str(program), "--version"]).decode("utf-8", "replace").split()
    except FreeholdError as exc:
        cause = engine.explain_exit(1, (exc.message,))  # the engine may recognise the message
        known = cause.kind is not ExitKind.UNKNOWN
        return Check(
            engine.name, CheckResult.PROBLEM, exc.message, cause.hint if known and cause.hint else fix
        )
    started = f"{program} starts, version {' '.join(said[-2:])[:80]}"
    recipe = next(
        (each for each in engine.recipes if environment and each.name == environment.manifest.recipe), None
    )
    if recipe and environment and environment.manifest.requirements_sha256 != requirements_sha256(recipe):
        return Check(engine.name, CheckResult.WARNING, f"{started}; its recipe has changed since", fix)
    return Check(engine.name, CheckResult.GOOD, started)


def _options(engine: Engine, program: Path, models: Sequence[ModelSpec]) -> Iterator[Check]:
    """Read the program's flags, and check the options of its models against them."""
    python, recipe = python_behind(str(program)), next((each for each in engine.recipes if each.asks), None)
    if python is None or recipe is None or not any(option.flag for option in engine.options):
        return  # its options are not flags of this program
    try:
        flags = ask_flags(python, recipe)
    except FreeholdError as exc:
        yield Check(engine.name, CheckResult.UNKNOWN, f"its flags are unknown: {exc.message}")
        return
    problems = [
        problem
        for model in models
        for problem in installed_problems(
            engine,
            model.engine_options,
            flags=flags,
            where=lambda name, model=model: f"{model.name}: {name}",  # type: ignore[misc]
        )
    ]
    for problem in problems:
        yield Check(engine.name, CheckResult.PROBLEM, f"{problem.where}: {problem.message}", problem.hint)
    if not problems:
        known = len(flags.flags)
        said = f"{known} flags" + (
            f", including the options of {', '.join(m.name for m in models)}" if models else ""
        )
        yield Check(engine.name, CheckResult.GOOD, f"version {flags.version} has {said}")
