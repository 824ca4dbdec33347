"""The user's freehold.yaml as commands want it: found, loaded, checked against the engines, all mistakes at once.

Where no file is named and none lies in the current directory, the built-in example is what runs, and commands say so.
"""

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import platformdirs

from freehold.cli.say import UserMistakes
from freehold.engines import all_engines
from freehold.engines.base import check_options
from freehold.spec.example import EXAMPLE_NAME, example_text
from freehold.spec.load import Loaded, load_file, load_text
from freehold.spec.model import FallbackSpec, ModelSpec, Spec
from freehold.spec.problems import Problem

BUILT_IN = "built-in example"
_SECRET_BYTES_MAX = 16 * 1024  # A key file holds one line; more is some other file.


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

    @property
    def base_dir(self) -> Path:
        """Return what relative `file://` sources are relative to."""
        return self.path.parent if self.path else Path.cwd()

    @property
    def name(self) -> str:
        """Return what to call it in a message."""
        return str(self.path) if self.path else BUILT_IN


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, which every command that needs a freehold.yaml takes."""
    return click.option(
        "--config",
        "-c",
        "config_flag",
        type=click.Path(path_type=Path),
        envvar="FREEHOLD_CONFIG",
        help=f"The configuration file [default: ./{EXAMPLE_NAME}, or else the built-in example]",
    )(command)


def state_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--state-dir`, which every command that talks to a running stack takes."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="FREEHOLD_STATE_DIR",
        help="Where the running stack keeps its state [default: one folder per configuration file]",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def find_config(flag: Path | None) -> Path | None:
    """Return the configuration file in use; None: there is none, so the built-in example holds."""
    if flag is not None:
        return flag.absolute()
    here = Path.cwd() / EXAMPLE_NAME
    return here if here.exists() else None


def state_dir_for(flag: Path | None, config_path: Path | None) -> Path:
    """Return the state folder: the flag's, or one per configuration file under the XDG state directory.

    The folder is named after the file's folder and eight digits of its path's hash, so that two stacks never meet.
    """
    if flag is not None:
        return flag.absolute()
    return platformdirs.user_state_path("freehold", appauthor=False) / _stack_name(config_path)


def keys_path_for(config: Config) -> Path:
    """Return the keys file: the configuration's, or one per configuration file under the XDG configuration directory."""
    if config.spec.gateway.keys_file:
        return config.base_dir / Path(config.spec.gateway.keys_file).expanduser()
    root = platformdirs.user_config_path("freehold", appauthor=False)
    return root / _stack_name(config.path) / "keys.json"


def _stack_name(config_path: Path | None) -> str:
    if config_path is None:
        return "example"
    digits = sha256(str(config_path.resolve()).encode()).hexdigest()[:8]
    return f"{config_path.resolve().parent.name or 'root'}-{digits}"


def load_keyless(path: Path | None, *, as_json: bool) -> Config:
    """Return the configuration for a command that asks no engine anything: secrets and engine options are not read."""
    loaded = _load(path, {})
    if loaded.spec is None:
        raise UserMistakes(loaded.problems, as_json=as_json)
    return Config(spec=loaded.spec, path=path, api_keys={})


def _load(path: Path | None, overrides: Mapping[str, object]) -> Loaded:
    engines = all_engines()
    if path is None:
        return load_text(example_text(), name=BUILT_IN, engines=engines, env=os.environ, overrides=overrides)
    return load_file(path, engines=engines, env=os.environ, overrides=overrides)


def start_hint(config_path: Path | None) -> str:
    """Return what to say where no stack runs: how to start it, or that it was looked for by a file that is not there."""
    if config_path is not None and not config_path.exists():
        return f"there is no file {config_path}"
    return "freehold up starts one"


def load_config(path: Path | None, *, overrides: Mapping[str, object], as_json: bool) -> Config:
    """Return the checked configuration, or raise UserMistakes with every problem there is."""
    loaded = _load(path, overrides)
    problems = list(loaded.problems)
    keys: dict[str, str] = {}
    fallback_keys: dict[str, str] = {}
    problems += _option_problems(loaded)
    if loaded.spec is not None:
        base_dir = path.parent if path else Path.cwd()
        keys = _read_keys(loaded, "models", entries=loaded.spec.models, base_dir=base_dir, problems=problems)
        fallback_keys = _read_keys(
            loaded, "fallback", entries=loaded.spec.fallback, base_dir=base_dir, problems=problems
        )
    if loaded.spec is None or problems:
        raise UserMistakes(problems, as_json=as_json)
    return Config(spec=loaded.spec, path=path, api_keys=keys, fallback_keys=fallback_keys)


def _option_problems(loaded: Loaded) -> list[Problem]:
    """Return the mistakes in every model's engine options, also where the rest of the file has others."""
    problems: list[Problem] = []
    for index, model in enumerate(loaded.models):
        engine, options = all_engines().get(str(model.get("engine"))), model.get("engine_options")
        if engine is None or not isinstance(options, dict):
            continue

        def where(name: str, index: int = index) -> str:
            return loaded.where(("models", index, "engine_options", name))

        scalars = {
            str(name): value for name, value in options.items() if isinstance(value, str | int | float)
        }
        problems += check_options(engine, scalars, where)
    return problems


def _read_keys(
    loaded: Loaded,
    section: str,
    *,
    entries: Sequence[ModelSpec | FallbackSpec],
    base_dir: Path,
    problems: list[Problem],
) -> dict[str, str]:
    """Return the keys of a section's entries by their names, and add what is wrong with them to `problems`."""
    keys: dict[str, str] = {}
    for index, entry in enumerate(entries):
        source = "api_key_env" if entry.api_key_env else "api_key_file"
        if entry.api_key_env or entry.api_key_file:
            key = _read_key(entry, base_dir)
            if isinstance(key, Problem):
                where = loaded.where((section, index, source))
                problems.append(Problem(where=where, message=key.message, hint=key.hint))
            else:
                keys[entry.name] = key
    return keys


def _read_key(model: ModelSpec | FallbackSpec, base_dir: Path) -> str | Problem:
    if model.api_key_env:
        text = os.environ.get(model.api_key_env, "").strip()
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
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(_SECRET_BYTES_MAX).decode("utf-8", "replace").strip()
