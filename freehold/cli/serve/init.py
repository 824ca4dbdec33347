"""`freehold init`: write a commented freehold.yaml, and its JSON schema beside it for editors.

It asks no question and reads no hardware: the file is the same on every machine. Existing files are not overwritten.
"""

import shlex
from pathlib import Path

import click

from freehold.cli.terminal.output import answer, mistake
from freehold.cli.terminal.place import json_option
from freehold.core.errors import Permanent
from freehold.engines import all_engines
from freehold.spec.example import EXAMPLE_NAME, SCHEMA_NAME, example_text
from freehold.spec.schema import schema_text


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path), default=Path(EXAMPLE_NAME))
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the file instead of writing it.")
@json_option
def command(path: Path, *, force: bool, to_stdout: bool, as_json: bool) -> None:
    """Write a commented freehold.yaml to PATH, and freehold.schema.json into the same folder."""
    if to_stdout:
        click.echo(example_text(), nl=False)
        return
    if path.is_dir():
        path /= EXAMPLE_NAME
    schema_path = path.parent / SCHEMA_NAME
    if path.exists() and not force:
        raise mistake(str(path), "exists already", "--force overwrites it")
    try:
        path.write_text(example_text(), encoding="utf-8")
        schema_path.write_text(schema_text(all_engines()), encoding="utf-8")
    except OSError as exc:
        raise Permanent(
            f"cannot write {exc.filename}: {exc.strerror}", hint="name a folder you may write to"
        ) from exc
    text = f"Wrote {path} and {schema_path}. Next: {_next_command(path)}"
    answer({"config": str(path), "schema": str(schema_path)}, text, as_json=as_json)


def _next_command(path: Path) -> str:
    """Return the command that starts what was written; only ./freehold.yaml is found without being named."""
    if path.resolve() == (Path.cwd() / EXAMPLE_NAME).resolve():
        return "freehold up"
    return f"freehold up --config {shlex.quote(str(path))}"
