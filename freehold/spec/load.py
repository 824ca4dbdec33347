"""freehold.yaml read: file, environment and flags put together, checked, and every mistake returned at once.

Nothing here raises for what a user can get wrong, and nothing is looked at beyond the file and the values handed in:
no weights, no network, no secret is read.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from freehold.core.places import Mistake, Place, Tree, read_tree, text_place
from freehold.core.problems import Problem
from freehold.spec.explain import explain
from freehold.spec.layers import from_environment, from_flags, lay_over
from freehold.spec.model import Spec
from freehold.spec.rules import check_rules

MAX_FILE_BYTES = 1024 * 1024
"""Largest freehold.yaml, bytes. Our own bound: 256 models with all their keys are under a fifth of it."""

_NO_OVERRIDES: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading gave: `spec` is None exactly when there are problems."""

    spec: Spec | None
    problems: tuple[Problem, ...]
    """In the order of the file, flags and variables first."""
    models: tuple[Mapping[str, object], ...]
    """The models as they were written, also where there are problems: what engines check themselves is reported too."""
    where: Callable[[tuple[str | int, ...]], str]
    """From the way to a key, `("models", 0, "engine_options", "n_ctx")`, to `file:line:column` of that key, or to
    the variable or flag that set it; of the nearest thing around it when it was not written."""


def load_file(
    path: Path,
    *,
    engines: Collection[str],
    env: Mapping[str, str],
    overrides: Mapping[str, object] = _NO_OVERRIDES,
) -> Loaded:
    """Return the spec in the file at `path`, or all its problems; arguments as for `load_text`.

    A file that cannot be read as UTF-8 text of at most `MAX_FILE_BYTES` is one problem.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        return _unreadable(_open_problem(path, exc))
    if len(content) > MAX_FILE_BYTES:
        return _unreadable(Problem(where=name, message="is larger than 1MiB", hint="is it a freehold.yaml?"))
    try:
        content = content.removeprefix(BOM_UTF8)
        text = content.decode()
    except UnicodeDecodeError as exc:
        return _unreadable(_encoding_problem(name, content, exc))
    return load_text(text, name=name, engines=engines, env=env, overrides=overrides)


def load_text(
    text: str,
    *,
    name: str = "freehold.yaml",
    engines: Collection[str],
    env: Mapping[str, str],
    overrides: Mapping[str, object] = _NO_OVERRIDES,
) -> Loaded:
    """Return the spec in `text`, or all its problems; never raises.

    `name` stands for the file in places; `engines` are the names `engine` may have; `env` is the environment, of which
    `FREEHOLD_*` variables are read as `layers` says; `overrides` are flags by dotted path (`{"gateway.listen": ...}`),
    None for one that was not given. A flag's problem names `--` and the last word of its path.
    """
    tree = read_tree(text, name)
    if tree.data is None and tree.mistakes:
        return _loaded(tree, None, tree.mistakes)  # what cannot be read at all has no other mistakes
    if tree.data is None:
        hint = "`freehold init` writes a file to begin with"
        return _loaded(tree, None, [Mistake(Place(1, 1, name), "the file is empty", hint)])
    settings, mistakes = from_environment(env)
    lay_over(tree, [*settings, *from_flags(overrides)])
    spec, refused = _validate(tree)
    form = {mistake.place for mistake in tree.mistakes}
    content = [mistake for mistake in [*refused, *check_rules(tree, engines)] if mistake.place not in form]
    return _loaded(tree, spec, [*tree.mistakes, *mistakes, *content])


def _validate(tree: Tree) -> tuple[Spec | None, list[Mistake]]:
    try:
        return Spec.model_validate(tree.data), []
    except ValidationError as exc:
        return None, [explain(error, tree) for error in exc.errors(include_url=False)]


def _loaded(tree: Tree, spec: Spec | None, mistakes: list[Mistake]) -> Loaded:
    problems = tuple(
        Problem(where=str(mistake.place), message=mistake.message, hint=mistake.hint)
        for mistake in sorted(set(mistakes))
    )
    return Loaded(
        spec=None if problems else spec,
        problems=problems,
        models=_models(tree.data),
        where=lambda path: str(tree.key_place(path)),
    )


def _models(data: object) -> tuple[Mapping[str, object], ...]:
    found = data.get("models") if isinstance(data, dict) else None
    return tuple(each if isinstance(each, dict) else {} for each in found) if isinstance(found, list) else ()


def _unreadable(problem: Problem) -> Loaded:
    return Loaded(spec=None, problems=(problem,), models=(), where=lambda _path: problem.where)


def _open_problem(path: Path, exc: Exception) -> Problem:
    hint = "`freehold init` writes one"
    if isinstance(exc, FileNotFoundError):
        return Problem(where=str(path), message="there is no such file", hint=hint)
    if isinstance(exc, IsADirectoryError):
        return Problem(
            where=str(path), message="is a directory, not a file", hint=f"name the file in it; {hint}"
        )
    reason = getattr(exc, "strerror", None) or str(exc)
    return Problem(
        where=str(path), message=f"cannot be read: {reason}", hint="check its path and permissions"
    )


def _encoding_problem(name: str, content: bytes, exc: UnicodeDecodeError) -> Problem:
    before = content[: exc.start].decode()
    return Problem(
        where=str(text_place(before, len(before), name)),
        message=f"the byte 0x{content[exc.start]:02x} is not UTF-8",
        hint="save the file as UTF-8",
    )
