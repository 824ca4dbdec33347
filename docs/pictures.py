"""Render the pictures of README.md from a real run, so that they stay true.

    make pictures                                  docs/pictures/plan.svg and docs/pictures/stack.svg
    python docs/pictures.py --only plan            one of them
    python docs/pictures.py --listen 127.0.0.1:8765    serve the example there while port 8000 is in use

`plan` shows the verdict and the options of one `freehold plan`; the other sections are cut. `stack` starts the example in a
folder of its own, kills one engine with SIGKILL while streams run, and shows `freehold status` and `freehold usage` after it. The
folder is shown as `~/chat`, and the port as the example's. It changes no other word.
"""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "01-one-box" / "freehold.yaml"
FREEHOLD = Path(sys.executable).with_name("freehold")
WIDTH = 98
"""Columns of a picture: `plan` breaks no option's name there, and GitHub shows it without scaling it down."""

PLAN = (
    "freehold plan --tokens-per-month 12B --model llama-3.3-70b --api openai/gpt-6.1-terra --slo-ttft-p95 1s"
)
SHOWN_AS = "127.0.0.1:8000"
STREAMS = 4
FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""rich's SVG loads fonts from a network; a picture in a repository may not."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["plan", "stack"])
    parser.add_argument("--listen", default=SHOWN_AS, metavar="ADDRESS")
    given = parser.parse_args()
    if given.only != "stack":
        draw("plan", "freehold plan", list(plan()))
    if given.only != "plan":
        draw("stack", "freehold up", list(stack(given.listen)))


def draw(name: str, title: str, lines: list[Text]) -> None:
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    svg = FONTS.sub("", console.export_svg(title=title, theme=MONOKAI)).replace("Fira Code", "monospace")
    svg = svg.replace("<text ", '<text xml:space="preserve" ')  # librsvg trims blanks at the start of a text
    target = HERE / "pictures" / f"{name}.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def plan() -> Iterator[Text]:
    """Yield the command, its verdict and its table of options."""
    lines = run(PLAN)
    verdict = next(at for at, line in enumerate(lines) if re.match(r"[A-Z ]{3,}$", line.plain.strip()))
    options = next(at for at, line in enumerate(lines) if line.plain.startswith("Options"))
    yield prompt(PLAN.replace(" --slo", " \\\n    --slo"))
    yield from until(lines[verdict:], r"\s*$|  next")
    yield Text()
    yield from until(lines[options:], r"\s*$|\[1\]|\d+ more")
    yield Text("… break-evens, rules of thumb, what moves the answer, doubts", style="dim")


def stack(listen: str) -> Iterator[Text]:
    """Yield what a person sees of a stack whose engine is killed while it streams."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "freehold.yaml"
        config.write_text(EXAMPLE.read_text(encoding="utf-8").replace(SHOWN_AS, listen), encoding="utf-8")

        def shown(command: str) -> Iterator[Text]:
            yield prompt(command)
            for line in run(command, folder=folder):
                plain = line.plain.replace(folder, "~/chat").replace(listen, SHOWN_AS)
                yield Text(plain) if plain != line.plain else line

        yield from (line for line in shown("freehold up -d") if not line.plain.startswith("smollm2"))
        try:
            yield Text()
            yield from killed(listen, folder)
            yield Text()
            yield from shown("freehold status")
            yield Text()
            yield from until(list(shown("freehold usage")), r"\s*$")
        finally:
            run("freehold down", folder=folder)


def killed(listen: str, folder: str) -> Iterator[Text]:
    whole: list[bool] = []
    streams = [threading.Thread(target=lambda: whole.append(answered(listen))) for _ in range(STREAMS)]
    for stream in streams:
        stream.start()
    time.sleep(1)
    status = json.loads("\n".join(line.plain for line in run("freehold status --json", folder=folder)))
    pid = status["replicas"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    for stream in streams:
        stream.join()
    yield prompt(f"kill -9 {pid}      # an engine, while {STREAMS} streams run")
    time.sleep(2)  # status counts what the gateway reported, once a second
    yield Text(f"{sum(whole)} of {STREAMS} streams arrived whole, with [DONE]", style="green")
    wait_until_ready(folder)


def answered(listen: str) -> bool:
    """Return whether a streamed answer came to its end without an error."""
    ask = {"model": "smollm2-135m", "stream": True, "temperature": 0, "max_tokens": 120}
    ask["messages"] = [{"role": "user", "content": "Write a short story about a lighthouse."}]
    request = urllib.request.Request(f"http://{listen}/v1/chat/completions", json.dumps(ask).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        text = answer.read().decode()
    return "data: [DONE]" in text and '"error"' not in text


def wait_until_ready(folder: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = json.loads("\n".join(line.plain for line in run("freehold status --json", folder=folder)))
        if all(replica["state"] == "ready" for replica in status["replicas"]):
            return
        time.sleep(0.2)
    raise SystemExit("a replica did not become ready again within 60 s")


def run(command: str, folder: str | None = None) -> list[Text]:
    """Return what a command prints, as a terminal of the picture's width shows it."""
    shown = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "" if "--json" in command else "1"}
    done = subprocess.run(
        [FREEHOLD, *command.split()[1:]],
        cwd=folder,
        env=os.environ | shown | ({"XDG_STATE_HOME": f"{folder}/state"} if folder else {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [Text.from_ansi(line) for line in done.stdout.splitlines()]


def prompt(command: str) -> Text:
    return Text.assemble(("$ ", "bold green"), (command, "bold"))


def until(lines: list[Text], end: str) -> Iterator[Text]:
    """Yield the first line, and then lines up to one that the regular expression matches."""
    for at, line in enumerate(lines):
        if at and re.match(end, line.plain):
            return
        yield line


if __name__ == "__main__":
    main()
