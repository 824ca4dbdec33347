"""Environments of engines: where each is, whether it is complete, and which flags its program has.

`$XDG_DATA_HOME/freehold/engines/RECIPE-VERSION/` is a virtual environment; `environment.json` in it is written last, so a folder
without it was not finished and is never used. `install` makes and removes them; nothing here starts a program.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import msgspec
import platformdirs

from freehold.core.problems import Problem, nearest_hint
from freehold.engines.base import Engine, Recipe, Value
from freehold.engines.shared.flag_list import FlagList, option_name

MANIFEST = "environment.json"
_HASH_DIGITS = 8  # Of a list's hash in a folder's name: lists of one version are few.
_MANIFEST_BYTES_MAX = 4 * 1024 * 1024  # vLLM's 316 flags take 30 KB; more is some other file


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment was made from, as its `environment.json` says."""

    recipe: str
    version: str
    """Of the program."""
    python: str
    """Version of its Python, such as `3.11.7`."""
    requirements_sha256: str
    """Of the file with its distributions, version and hashes."""
    made_at: str
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """How long it took."""
    flags: FlagList | None = None
    """The flags of its program; None: it cannot be asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One complete environment."""

    path: Path
    manifest: Manifest

    @property
    def python(self) -> Path:
        """Return its own interpreter."""
        return self.path / "bin" / "python"

    @property
    def mark(self) -> str:
        """Return twelve digits that identify this installation, also among those of one version in one place."""
        return sha256(msgspec.json.encode((str(self.path), self.manifest))).hexdigest()[:12]


def engines_root(env: Mapping[str, str]) -> Path:
    """Return where environments are: below `FREEHOLD_DATA_DIR`, else below the user's XDG data folder."""
    chosen = env.get("FREEHOLD_DATA_DIR")
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_data_path("freehold", appauthor=False)
    return folder.absolute() / "engines"


def path_of(recipe: Recipe, root: Path) -> Path:
    """Return where a recipe's environment is, or is to be.

    One of the same version that was made from another list stays where it is: it may be in use, and an environment cannot be
    replaced under a program that still imports from it. The new one lies beside it, with the list's hash in its name.
    """
    plain, sha256_ = root / f"{recipe.name}-{recipe.version}", requirements_sha256(recipe)
    there = read(plain)
    if there is None or there.manifest.requirements_sha256 == sha256_:
        return plain
    return root / f"{plain.name}-{sha256_[:_HASH_DIGITS]}"


def requirements_of(recipe: Recipe) -> str:
    """Return the text of a recipe's requirements; raises OSError for a broken package."""
    return files("freehold.engines").joinpath("recipes", recipe.requirements).read_text()


def requirements_sha256(recipe: Recipe) -> str:
    """Return the hash of that text."""
    return sha256(requirements_of(recipe).encode()).hexdigest()


def read(path: Path) -> Environment | None:
    """Return the environment in a folder; None: there is none, or it is incomplete."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        with (path / MANIFEST).open("rb") as file:
            manifest = msgspec.json.decode(file.read(_MANIFEST_BYTES_MAX), type=Manifest)
        environment = Environment(path=path, manifest=manifest)
        return environment if environment.python.exists() else None
    return None


def find(recipe: Recipe, root: Path) -> Environment | None:
    """Return a recipe's environment with its program; one of an older list until the newest is complete. None: it is not installed."""
    for path in (path_of(recipe, root), root / f"{recipe.name}-{recipe.version}"):
        found = read(path)
        if found is not None and found.manifest.version == recipe.version:
            return found if os.access(found.path / recipe.program, os.X_OK) else None
    return None


def find_for(engine: Engine, root: Path) -> Environment | None:
    """Return the environment that an engine's replicas run in: of the first of its recipes that is installed."""
    found = (find(recipe, root) for recipe in engine.recipes)
    return next((environment for environment in found if environment is not None), None)


def environments_in(root: Path) -> list[Environment]:
    """Return every complete environment, by name, also those of recipes that no longer exist."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    return [found for folder in folders if (found := read(folder)) is not None]


def installed_problems(
    engine: Engine, options: Mapping[str, Value], *, flags: FlagList, where: Callable[[str], str]
) -> list[Problem]:
    """Return a problem for each option that the installed program would reject, by its flags.

    `where(name)` returns the place of an option. Options that are not flags are the engine file's part.
    """
    known = {flag.name: flag for flag in flags.flags}
    problems: list[Problem] = []
    for option in engine.options:
        if option.name not in options or not option.flag:
            continue
        flag = known.get(option_name(option.flag))
        if flag is None:
            message = f"{option.name}: the installed {flags.program} {flags.version} has no {option.flag}"
            hint = nearest_hint(option.name, known)
            problems.append(Problem(where=where(option.name), message=message, hint=hint))
        elif (choices := _refused(flag.choices, options[option.name])) is not None:
            message = (
                f"{option.name}: the installed {flags.program} {flags.version} takes {choices}, not "
                f"{options[option.name]!r}"
            )
            problems.append(Problem(where=where(option.name), message=message))
    return problems


def _refused(choices: Iterable[str | int], value: Value) -> str | None:
    """Return the choices as text if the value is not one of them; lists have choices for each of their values."""
    texts = [str(choice) for choice in choices]
    said = str(value)
    if not texts or said in texts or isinstance(value, bool) or " " in said or said.startswith("["):
        return None
    return ", ".join(texts)
