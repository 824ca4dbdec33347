"""`freehold engine`: list, install, check and remove the programs that run models.

It deliberately measures nothing: `freehold bench` shows how fast an engine is here.
Exit codes: 1 when an installation failed, 2 when the input is wrong, 3 when `check` found a problem, 130 after Ctrl-C.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.cli.terminal import shell_values
from freehold.cli.terminal.check_table import show_checks
from freehold.cli.terminal.config import load_config, load_keyless
from freehold.cli.terminal.fetch_progress import showing
from freehold.cli.terminal.output import (
    INTERRUPTED,
    UserMistakes,
    answer,
    mistake,
    require_known,
    say_json,
    show_failure,
    styled,
)
from freehold.cli.terminal.place import StackPlace, json_option, require_config, stack_options
from freehold.core.problems import nearest_hint
from freehold.engines import all_engines
from freehold.engines.base import Engine, Recipe
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.environments.install import install, remove
from freehold.fleet.environments.lookup import (
    Environment,
    engines_root,
    environments_in,
    find,
    path_of,
    requirements_sha256,
)
from freehold.spec.model import ModelSpec
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.checks.engines import engine_checks, machine_facts
from freehold.stack.checks.trial import try_model
from freehold.stack.engine_environment import how_to_get

FOUND_PROBLEM = 3
"""Exit code of a check that found a problem. Source: DESIGN section 1, "Commands"."""


@click.group("engine")
def command() -> None:
    """List, install, check and remove the programs that run models."""


@command.command("list", short_help="Every engine, whether it is installed, and how to get it.")
@json_option
def list_(*, as_json: bool) -> None:
    """List every engine, whether and where it is installed here, and how to get it if it is not."""
    root = engines_root(os.environ)
    rows = [_listed(engine, root) for engine in all_engines().values()]
    known = {recipe["path"] for row in rows for recipe in row["recipes"]}
    other = [str(found.path) for found in environments_in(root) if str(found.path) not in known]
    if as_json:
        say_json({"root": str(root), "engines": rows, "other": other})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{styled(row['name'].ljust(width), bold=True)}  {row['summary']}")
        click.echo(f"{' ' * width}  {row['state']}")
    for path in other:
        click.echo(
            f"{path} does not belong to an engine of this Freehold: freehold engine remove {Path(path).name}"
        )


def _listed(engine: Engine, root: Path) -> dict[str, Any]:
    recipes = [_recipe_row(recipe, find(recipe, root)) for recipe in engine.recipes]
    return {
        "name": engine.name,
        "summary": engine.summary,
        "managed": engine.managed,
        "formats": list(engine.formats) if engine.managed else [],
        "state": _state(engine, recipes),
        "distribution": {"name": engine.distribution, "version": _version(engine.distribution)},
        "recipes": recipes,
    }


def _recipe_row(recipe: Recipe, found: Environment | None) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "version": recipe.version,
        "summary": recipe.summary,
        "path": str(found.path) if found else None,
        "made_at": found.manifest.made_at if found else None,
        "current": found is not None and found.manifest.requirements_sha256 == requirements_sha256(recipe),
    }


def _state(engine: Engine, recipes: list[dict[str, Any]]) -> str:
    if not engine.managed:
        return "external: Freehold does not run it"
    if engine.distribution:
        there = _version(engine.distribution)
        return f"{engine.distribution} {there}" if there else f"{engine.distribution} is not installed"
    for recipe in recipes:
        if recipe["path"]:
            old = (
                ""
                if recipe["current"]
                else f" (its recipe has changed: freehold engine install {recipe['name']})"
            )
            return f"{recipe['version']} in {recipe['path']}{old}"
    return f"not installed: {how_to_get(engine)}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution) if distribution else None
    except PackageNotFoundError:
        return None


@command.command("install", short_help="Put an engine's program into an environment of its own.")
@click.argument("name")
@json_option
def install_(*, name: str, as_json: bool) -> int:
    """Install NAME, a recipe or an engine, into an environment of its own, every file by its hash.

    An interrupted installation is continued. pip runs with the user's own configuration.
    """
    recipe = _recipe(name)
    shown, root = _InstallProgress(quiet=as_json), engines_root(os.environ)
    try:
        made = install(recipe, root, shown.show)
    except KeyboardInterrupt:
        shown.end()
        show_failure(*_interrupted(recipe, root), as_json=as_json)
        return INTERRUPTED
    shown.end()
    value = {"name": recipe.name, "path": str(made.path), **_manifest(made)}
    answer(value, f"{recipe.name} {recipe.version}: {made.path}", as_json=as_json)
    return 0


def _interrupted(recipe: Recipe, root: Path) -> tuple[str, str]:
    """Return the state that Ctrl-C left, and what to do."""
    path = path_of(recipe, root)
    again = f"freehold engine install {recipe.name} continues it"
    if not path.exists():
        return f"{recipe.name} is not installed: interrupted before anything was written", again
    return (
        f"{recipe.name} is not installed: the unfinished environment stays in {path}, and the files that pip fetched stay in its cache",
        f"{again}; freehold engine remove {recipe.name} removes it",
    )


class _InstallProgress:
    """Progress on stderr: one changing line on a terminal, else a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._moves = sys.stderr.isatty()
        self._count = 0

    def show(self, line: str) -> None:
        """Show a line. Lines that count files replace each other on a terminal; elsewhere every twentieth is shown."""
        if self._quiet:
            return
        counts = line[:1].isdigit()
        self._count = self._count + 1 if counts else 0
        if self._moves:
            click.echo(f"\r\x1b[K{line}", err=True, nl=not counts)
        elif not counts or self._count % 20 == 0:
            click.echo(line, err=True)

    def end(self) -> None:
        """End the changing line."""
        if self._moves and self._count:
            click.echo(err=True)


def _manifest(made: Environment) -> dict[str, Any]:
    manifest: dict[str, Any] = msgspec.to_builtins(made.manifest)
    flags = manifest.pop("flags")
    return manifest | {"flags": len(flags["flags"]) if flags else None}


def _recipe(name: str) -> Recipe:
    """Return the recipe of this name, or the only recipe of the engine of this name; raises UserMistakes."""
    engines = all_engines()
    recipes = {recipe.name: recipe for engine in engines.values() for recipe in engine.recipes}
    if name in recipes:
        return recipes[name]
    engine = engines.get(name)
    if engine is not None and len(engine.recipes) == 1:
        return engine.recipes[0]
    if engine is None:
        message, hint = f"there is no engine or recipe {name!r}", nearest_hint(name, {**engines, **recipes})
    elif engine.recipes:
        message, hint = (
            f"{name} has several recipes",
            "one of " + ", ".join(each.name for each in engine.recipes),
        )
    else:
        message, hint = f"Freehold has no recipe for {name}", how_to_get(engine) or _state(engine, [])
    raise mistake("NAME", message, hint)


@command.command("remove", short_help="Remove an environment that was installed.")
@click.argument("name")
@json_option
def remove_(*, name: str, as_json: bool) -> None:
    """Remove the environment of NAME, a recipe or a folder that `freehold engine list` shows."""
    root = engines_root(os.environ)
    there = {found.path.name: found.path for found in environments_in(root)}
    names = {found.manifest.recipe: found.path for found in environments_in(root)}
    path = there.get(name) or names.get(name) or _unfinished(name, root)
    if path is None:
        known = {**there, **names}
        hint = nearest_hint(name, known) if known else "nothing is installed"
        raise mistake("NAME", f"{name!r} is not installed in {root}", hint)
    remove(path, root)
    answer({"removed": str(path)}, f"removed {path}", as_json=as_json)


def _unfinished(name: str, root: Path) -> Path | None:
    """Return the folder of an unfinished installation, by the name of its recipe or folder; None: there is none."""
    recipes = {recipe.name: recipe for engine in all_engines().values() for recipe in engine.recipes}
    wanted = f"{name}-{recipes[name].version}" if name in recipes else name
    known = [
        path for path in (root.iterdir() if root.is_dir() else ()) if path.is_dir() and path.name == wanted
    ]
    return known[0] if known else None


@command.command("check", short_help="Does it start here, and take the configured options; 3 if not.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--with-model",
    metavar="MODEL",
    shell_complete=shell_values.models,
    help="Start the engine of this model of freehold.yaml, and request one token.",
)
@stack_options
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    names: tuple[str, ...],
    with_model: str | None,
    stack: StackPlace,
    as_json: bool,
) -> None:
    """Start each engine's program (to print its version, or with a model), and check the configured options against its flags.

    Without NAME all engines that are installed. Exit code: 0 all start, 3 a problem.
    """
    require_known(names, all_engines(), where="NAME", message="there is no engine")
    require_config(stack)
    if with_model is None:
        checks = [*machine_facts(), *engine_checks(names, _models(stack.config_path))]
    else:
        tried = _try(stack, with_model, as_json=as_json)
        checks = [*machine_facts(), tried]
    good = all(each.found is not CheckResult.PROBLEM for each in checks)
    if as_json:
        say_json({"good": good, "checks": msgspec.to_builtins(checks)})
    else:
        show_checks(checks)
    ctx.exit(0 if good else FOUND_PROBLEM)


def _models(path: Path | None) -> list[ModelSpec]:
    """Return the models of the configuration; empty if it has problems, which `doctor` reports."""
    try:
        return list(load_keyless(path).spec.models)
    except UserMistakes:
        return []


def _try(stack: StackPlace, name: str, *, as_json: bool) -> Check:
    """Start the engine of one model and return the result; raises UserMistakes if there is no such model."""
    config = load_config(stack.config_path, overrides={})
    managed = {model.name: model for model in config.spec.models if model.managed}
    require_known([name], managed, where="--with-model", message=f"{config.name} has no managed model")

    def note(line: str) -> None:
        if not as_json:
            click.echo(line, err=True)

    with showing(quiet=as_json) as show:
        state = StateDir(stack.state_path)
        found = try_model(config, managed[name], state=state, show=show, note=note)
    if isinstance(found, list):
        raise UserMistakes(found)
    return found
