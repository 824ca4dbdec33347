"""`freehold help`: the help of a command by its name, and with `--man` a manual page of all of them.

The page is made of what click knows of the commands, so that it cannot differ from `--help`. It is printed and not installed.
"""

from collections.abc import Iterator

import click

from freehold import __version__
from freehold.cli.terminal.output import say_json, show_lines
from freehold.cli.terminal.place import json_option


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option("--man", is_flag=True, help="Print a manual page: freehold help --man | man -l -")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, words: tuple[str, ...], man: bool, as_json: bool) -> None:
    """Show the help of COMMAND, such as `freehold help key create`."""
    root = ctx.find_root()
    if man:
        lines = list(manual(root))
    else:
        meant = root
        for word in words:
            group = meant.command
            if not isinstance(group, click.Group):
                raise click.UsageError(f"{meant.command_path} has no commands", meant)
            name, below, _ = group.resolve_command(meant, [word])
            assert below is not None, name
            meant = click.Context(below, meant, name)
        lines = [meant.get_help()]
    if as_json:
        say_json({"help": "\n".join(lines)})
    else:
        show_lines(lines)


def manual(root: click.Context) -> Iterator[str]:
    """Yield the lines of a manual page in roff, with a section per command."""
    yield f'.TH FREEHOLD 1 "" "Freehold {__version__}" "Freehold"'
    yield ".SH NAME"
    yield f"freehold \\- {_plain(root.command.help or '')}"
    for ctx in _every_command(root):
        yield f".SH {_plain(ctx.command_path).upper()}"
        yield f".B {_plain(ctx.command_path)}"
        yield _plain(" ".join(ctx.command.collect_usage_pieces(ctx)))
        yield ".PP"
        yield _plain(ctx.command.help or "")
        for param in ctx.command.get_params(ctx):
            if record := param.get_help_record(ctx):
                yield from (".TP", f".B {_plain(record[0])}", _plain(record[1]))


def _every_command(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            below = ctx.command.get_command(ctx, name)
            assert below is not None, name
            yield from _every_command(click.Context(below, ctx, name))


def _plain(text: str) -> str:
    """Return a text for roff: nothing in it is a request, a hyphen is a minus and a paragraph stays one."""
    escaped = text.replace("\\", "\\e").replace("\b\n", "").replace("-", "\\-")
    escaped = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)
    return "\n".join(f"\\&{line}" if line else ".PP" for line in escaped.strip().splitlines())
