"""The `freehold` command: finds the subcommand, runs it, and turns every failure into a message and an exit code.

Exit codes: 0 fine; 1 the world failed; 2 the user's input is wrong; 3 a check or drill found a problem. Subcommands
are imported only when they are called, so that `freehold --help` stays quick. This is one of the few guard files: an
unexpected exception is shown whole and reported as a bug of Freehold.
"""

import contextlib
import importlib
import os
import sys
from dataclasses import dataclass
from types import FrameType

import click
from click.shell_completion import CompletionItem

from freehold import __version__
from freehold.cli.terminal.output import UserMistakes, show_failure, show_problems, wants_json
from freehold.core.errors import FreeholdError
from freehold.core.problems import nearest_hint


@dataclass(frozen=True, slots=True)
class Lazy:
    """A subcommand that is imported when it is called."""

    module: str
    summary: str


COMMANDS = {
    "plan": Lazy(
        "freehold.cli.choose.plan", "Stay on the API, rent or buy: what your traffic costs each way."
    ),
    "size": Lazy(
        "freehold.cli.choose.size", "Does a model fit a GPU, how fast is it there, what does it need."
    ),
    "prices": Lazy("freehold.cli.choose.prices", "Which prices are old or missing, and where to look."),
    "bench": Lazy(
        "freehold.cli.choose.bench",
        "Put the same load on several engines and settings, and say which serves best.",
    ),
    "init": Lazy("freehold.cli.serve.init", "Write a commented freehold.yaml to start from."),
    "up": Lazy("freehold.cli.serve.up", "Fetch the weights, start the engines and the gateway, and serve."),
    "down": Lazy("freehold.cli.serve.down", "End a running stack: streams finish, then engines stop."),
    "status": Lazy(
        "freehold.cli.serve.status", "Show the gateway and every replica: state, uptime, tokens/s."
    ),
    "health": Lazy(
        "freehold.cli.node.health", "Show the findings on this node, worst first, and what to do."
    ),
    "doctor": Lazy(
        "freehold.cli.node.doctor", "Check whether this machine is ready to serve, and how to fix it."
    ),
    "reload": Lazy("freehold.cli.serve.reload", "Apply a changed freehold.yaml; no stream is cut."),
    "restart": Lazy("freehold.cli.serve.restart", "Restart a model's replicas, or one replica."),
    "logs": Lazy("freehold.cli.serve.logs", "Show the logs of the engines, the gateway and the controller."),
    "usage": Lazy("freehold.cli.serve.usage", "Show usage: requests, tokens and cost by model, key, day."),
    "review": Lazy(
        "freehold.cli.choose.review", "What the stack's tokens really cost, and whether owning still pays."
    ),
    "key": Lazy("freehold.cli.serve.key", "API keys: create, list, revoke."),
    "ca": Lazy("freehold.cli.node.ca", "The certificates of nodes: init, issue, show."),
    "model": Lazy("freehold.cli.node.model", "The weight store: pull, list, verify, hash, convert, record."),
    "engine": Lazy("freehold.cli.node.engine", "The programs that run models: list, install, check, remove."),
    "completion": Lazy(
        "freehold.cli.completion", "Print what makes bash, zsh or fish complete names after Tab."
    ),
    "help": Lazy("freehold.cli.help", "Show the help of a command, or a manual page of all."),
}
_OF_OTHERS = {
    "start": "freehold up starts a stack, freehold up -d in the background",
    "serve": "freehold up starts a stack, freehold up -d in the background",
    "run": "freehold up starts a stack, freehold up -d in the background",
    "stop": "freehold down ends a running stack",
    "ps": "freehold status shows the replicas",
    "pull": "freehold model pull fetches weights",
}
"""Commands of other programs, each with the one that does the same here. Source: systemctl, docker, Ollama and vLLM."""


_VERSION = click.Command("version", callback=lambda: click.echo(f"freehold {__version__}"))
"""What some type in place of `--version`; the list of commands leaves it out."""


class LazyGroup(click.Group):
    """A group whose commands are known by name and summary before they are imported."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing them; after a dash the group's own flags."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=lazy.summary)
            for name, lazy in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table above, which is the order of use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now."""
        del ctx
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return _VERSION if cmd_name == _VERSION.name else None
        command = importlib.import_module(lazy.module).command
        assert isinstance(command, click.Command), lazy.module
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a mistyped one, or another program's, name the right one."""
        known = not args or args[0] in {*COMMANDS, _VERSION.name} or args[0].startswith("-")
        if not known and not ctx.resilient_parsing:  # which is how a shell's completion reads a line
            hint = _OF_OTHERS.get(args[0]) or nearest_hint(args[0], COMMANDS)
            raise click.UsageError(f"no command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "--version", "-V", prog_name="freehold", message="%(prog)s %(version)s")
def cli() -> None:
    """Own your LLM inference: decide what to own, and serve it behind an OpenAI-compatible gateway."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code; 1 if its output cannot be written, with a message unless the reader left."""
    try:
        code = _run(argv)
        click.echo(nl=False)  # flushes
    except OSError as exc:
        if not _lost_output(exc):
            raise
        if not isinstance(exc, BrokenPipeError):  # a reader that left knows it
            with contextlib.suppress(OSError):
                click.echo(f"freehold: cannot write the output: {exc.strerror}", err=True)
        return 1
    return code


def _lost_output(exc: Exception) -> bool:
    """Return whether printing failed; stdout then becomes /dev/null, so that the interpreter ends quietly."""
    trace = exc.__traceback__
    while trace is not None and not _prints(trace.tb_frame):
        trace = trace.tb_next
    if trace is None or not isinstance(exc, OSError):
        return False
    with contextlib.suppress(OSError):  # a stdout without a descriptor needs nothing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return True


def _prints(frame: FrameType) -> bool:
    """Return whether this frame writes to the terminal: click's, or rich's, which is not imported to ask."""
    name = frame.f_globals.get("__name__")
    return frame.f_code is click.echo.__code__ or (
        name == "rich.console" and frame.f_code.co_name == "_write_buffer"
    )


def _run(argv: list[str] | None) -> int:
    as_json = wants_json(sys.argv[1:] if argv is None else argv)
    try:
        result = cli.main(args=argv, prog_name="freehold", standalone_mode=False)
    except click.exceptions.Abort:
        return 130  # 128 + SIGINT, as in shells
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return 2
    except click.UsageError as exc:
        where = exc.ctx.command_path if exc.ctx else "freehold"
        show_problems([(where, exc.format_message(), f"{where} --help")], as_json=as_json)
        return 2
    except UserMistakes as exc:
        show_problems([(each.where, each.message, each.hint) for each in exc.problems], as_json=as_json)
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except FreeholdError as exc:
        show_failure(exc.message, exc.hint, as_json=as_json)
        return 1
    except Exception as exc:  # the guard: shown whole, exit code 1
        if _lost_output(exc):
            raise
        _show_bug()
        return 1
    return result if isinstance(result, int) else 0


def _show_bug() -> None:
    """Print an unexpected exception whole, and say that it is a bug of Freehold."""
    import traceback  # noqa: PLC0415 - only here, and slow to import

    click.echo(traceback.format_exc(), err=True)
    click.echo(
        "This is a bug of Freehold, not a mistake of yours. Please report it with the lines above.", err=True
    )


if __name__ == "__main__":
    sys.exit(main())
