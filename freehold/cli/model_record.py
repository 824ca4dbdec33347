"""`freehold model record`: write into a folder of TensorRT engines which GPU, driver and CUDA they run on.

It does not check that they run: the user who built them here says so.
"""

from pathlib import Path

import click

from freehold.cli.output import say_json
from freehold.cli.place import json_option
from freehold.stack.prebuilt_engines import node_facts, read_folder, write_record


@click.command("record", short_help="Note what a folder of TensorRT engines was built on.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
def record(folder: Path, *, as_json: bool) -> None:
    """Record this node's GPU architecture, driver and CUDA in FOLDER, which holds prebuilt TensorRT engines.

    Run it where they were built. Elsewhere freehold up and freehold doctor then refuse them with the reason instead of letting
    them crash.
    """
    folder = folder.absolute()
    path = write_record(folder, node_facts({}))
    if as_json:
        noted = read_folder(folder)
        assert noted is not None, "it was read a moment ago"
        say_json(
            {
                "path": str(path),
                "version": noted.version,
                "architecture": noted.architecture,
                "driver": noted.driver,
                "cuda": noted.cuda,
            }
        )
    else:
        click.echo(f"noted in {path}")
