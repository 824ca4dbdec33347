"""The user's freehold.yaml: loaded, checked against the engines and with its API keys. All problems are returned at once.

Without a file the built-in example is used. Nothing is fetched and no program is started.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from pydantic_core import PydanticCustomError

from freehold.core.places import dotted
from freehold.core.problems import Problem
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.engines.shared.option_check import check_options
from freehold.spec.example import example_text
from freehold.spec.fields import option_value
from freehold.spec.load import Loaded, load_file, load_text
from freehold.spec.model import FallbackSpec, ModelSpec, Spec
from freehold.stack.engine_environment import environment_problems
from freehold.stack.folders import BUILT_IN
from freehold.stack.users import user_problems
from freehold.stack.weights_check import adapter_problems, source_problems

_SECRET_BYTES_MAX = 16 * 1024  # A key file holds one line; a longer file is something else.


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked freehold.yaml and the secrets that it names."""

    spec: Spec
    path: Path | None
    """None: the built-in example."""
    api_keys: Mapping[str, str]
    """By model name; never shown."""
    fallback_keys: Mapping[str, str] = field(default_factory=dict)
    """The same by fallback name."""
    overrides: Mapping[str, object] = field(default_factory=dict)
    """Values of flags that replace those of the file, by dotted key."""
    where: Callable[[tuple[str | int, ...]], str] = dotted
    """From the path of a key to its place in the file."""

    @property
    def by_variable(self) -> Mapping[str, str]:
        """Return the API keys by the environment variable that held them; the entry of the empty name has no meaning."""
        models = {model.api_key_env: self.api_keys.get(model.name, "") for model in self.spec.models}
        others = {each.api_key_env: self.fallback_keys.get(each.name, "") for each in self.spec.fallback}
        return models | others

    @property
    def base_dir(self) -> Path:
        """Return the folder that relative `file://` sources start from."""
        return self.path.parent if self.path else Path.cwd()

    @property
    def name(self) -> str:
        """Return the configuration's name for messages."""
        return str(self.path) if self.path else BUILT_IN


def one_replica_of(config: Config, model: str) -> Config:
    """Return the configuration with one replica of one model and no other model; places in the file stay valid."""
    index, spec = next((at, each) for at, each in enumerate(config.spec.models) if each.name == model)
    alone = config.spec.model_copy(update={"models": (spec.model_copy(update={"replicas": 1}),)})

    def where(path: tuple[str | int, ...]) -> str:
        return config.where((path[0], index, *path[2:]) if path[:1] == ("models",) else path)

    return replace(config, spec=alone, where=where)


def read_keyless(path: Path | None) -> Config | list[Problem]:
    """Return the configuration without its secrets and with unchecked engine options, or every problem there is."""
    loaded = _load(path, {})
    if loaded.spec is None:
        return list(loaded.problems)
    return Config(spec=loaded.spec, path=path, api_keys={})


def _load(path: Path | None, overrides: Mapping[str, object]) -> Loaded:
    engines = all_engines()
    if path is None:
        return load_text(example_text(), name=BUILT_IN, engines=engines, env=os.environ, overrides=overrides)
    return load_file(path, engines=engines, env=os.environ, overrides=overrides)


def read_config(
    path: Path | None,
    *,
    overrides: Mapping[str, object],
    known: Mapping[str, str] = MappingProxyType({}),
) -> Config | list[Problem]:
    """Return the checked configuration, or every problem there is.

    `known` are secrets by the environment variable that held them, of a process that has dropped them from there.
    """
    loaded = _load(path, overrides)
    problems = list(loaded.problems)
    problems += _option_problems(loaded)
    problems += source_problems(loaded)
    problems += adapter_problems(loaded)
    problems += user_problems(loaded)
    if loaded.spec is None:
        return problems
    bare = Config(spec=loaded.spec, path=path, api_keys={}, overrides=overrides, where=loaded.where)
    keyed = with_keys(bare, known)
    return problems + (keyed if isinstance(keyed, list) else []) or keyed


def with_keys(config: Config, known: Mapping[str, str] = MappingProxyType({})) -> Config | list[Problem]:
    """Return the configuration with the API keys that it names, or what is wrong with them; `known` as in `read_config`."""
    reader = _KeyReader(config, known, [])
    keys = reader.read("models", config.spec.models)
    fallback_keys = reader.read("fallback", config.spec.fallback)
    return reader.problems or replace(config, api_keys=keys, fallback_keys=fallback_keys)


def _option_problems(loaded: Loaded) -> list[Problem]:
    """Return the problems of every model's engine options, also if the rest of the file has others."""
    problems: list[Problem] = []
    for index, model in enumerate(loaded.models):
        engine, options = all_engines().get(str(model.get("engine"))), model.get("engine_options", {})
        if engine is None or not isinstance(options, dict):
            continue

        def where(name: str, index: int = index) -> str:
            return loaded.where(("models", index, "engine_options", name))

        scalars = dict(_given(options))
        problems += check_options(engine, scalars, where)
        problems += _missing_files(engine, scalars, where)
        place = loaded.where(("models", index, "engine"))
        problems += environment_problems(engine, scalars, place=place, where=where)
    return problems


def _given(options: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """Yield the options as engines receive them; invalid values are skipped, since the spec reports them."""
    for name, value in options.items():
        with contextlib.suppress(PydanticCustomError):
            yield str(name), option_value(value)


def _missing_files(
    engine: Engine, options: Mapping[str, object], where: Callable[[str], str]
) -> list[Problem]:
    """Return a problem for each program that cannot be run here, then for each file or folder that is not there."""
    named = [(each, value) for each in engine.options if isinstance(value := options.get(each.name), str)]
    missing = [
        (option, f"program {value!r}", "the file must be executable")
        for option, value in named
        if option.program and not shutil.which(value)
    ]
    missing += [
        (option, f"file or folder {path!r}", "write an absolute path")
        for option, value in named
        if option.file
        for path in value.split(",")
        if not (Path(path).exists() or Path(path.rpartition(":")[0] or path).exists())
    ]
    start = "a relative path starts at the folder where freehold up is called"
    return [
        Problem(
            where=where(option.name), message=f"{option.name}: there is no {what}", hint=f"{start}; {fix}"
        )
        for option, what, fix in missing
    ]


@dataclass(frozen=True, slots=True)
class _KeyReader:
    """Reads the API keys that a file names, and collects their problems."""

    config: Config
    known: Mapping[str, str]
    problems: list[Problem]

    def read(self, section: str, entries: Sequence[ModelSpec | FallbackSpec]) -> dict[str, str]:
        """Return the keys of a section's entries by their names."""
        keys: dict[str, str] = {}
        for index, entry in enumerate(entries):
            source = "api_key_env" if entry.api_key_env else "api_key_file"
            if not (entry.api_key_env or entry.api_key_file):
                continue
            key = _read_key(entry, self.config.base_dir, self.known)
            if isinstance(key, Problem):
                where = self.config.where((section, index, source))
                self.problems.append(Problem(where=where, message=key.message, hint=key.hint))
            else:
                keys[entry.name] = key
        return keys


def _read_key(model: ModelSpec | FallbackSpec, base_dir: Path, known: Mapping[str, str]) -> str | Problem:
    if model.api_key_env:
        text = os.environ.get(model.api_key_env, known.get(model.api_key_env, "")).strip()
        hint = f"export {model.api_key_env}=… before starting"
    else:
        path = base_dir / Path(model.api_key_file).expanduser()
        try:
            text = _secret_text(path)
        except OSError as exc:
            return Problem(
                where="",
                message=f"cannot read {path}: {exc.strerror}",
                hint="a file with the key on one line",
            )
        hint = f"{path} should hold the key on one line"
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        return Problem(where="", message="gives no usable key", hint=hint)
    return text


def _secret_text(path: Path) -> str:
    # Non-blocking: opening a pipe without a writer would block before its type is checked.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(_SECRET_BYTES_MAX).decode("utf-8", "replace").strip()
