"""Kill the replica under many streams of the real model, and print what their callers get.

    python benchmarks/resume.py --streams 20 --rounds 3

Two replicas of SmolLM2-135M with one compute thread each, `freehold up` with default settings, `--streams` plain streams
on each, temperature 0. One replica gets SIGKILL; the other goes on with its streams beside its own. Printed: whole
answers, the longest silence of the resumed ones, and how many texts are those of a run in which nobody died, beside how
many are the same in two such runs (a batch of another size rounds differently, so even those differ). The silence has
the prefill of all prompts and texts in it, which is most of it on a CPU: a token's prefill is what the slowest first
token of the undisturbed run took, over the tokens of the prompts that one replica got at once. Exit code: 0 all answers
are whole, no resumed stream is silent for longer than 2 s and that prefill, and nine of ten resumed texts are those of
the undisturbed run; 3 not.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import dying
from e2e.box import Box
from waiting import wait_until

SILENT_S = 2.0  # Longest silence beyond the prefill. Source: DESIGN, the bar for streams whose engine dies.
SAME_TEXT = (
    0.9  # Part of the resumed texts. Source: our own choice, below what was measured (docs/decisions/0006).
)
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "01-one-box" / "freehold.yaml"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one kill led to."""

    whole: bool
    """All answers were."""
    in_time: bool
    """No resumed stream was silent for longer than it may be."""
    same: list[bool]
    """For each resumed stream, whether its text is that of an undisturbed run."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=20, help="streams on each replica (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to kill (default 3)")
    args = parser.parse_args()
    box = Box(home=Path(tempfile.mkdtemp(prefix="resume-")))
    try:
        with box.foreground("--config", str(dying.config(box, EXAMPLE, streams=args.streams))) as stack:
            fine = [asyncio.run(dying.undisturbed(stack.url, args.streams)) for _ in range(2)]
            firsts = [caller.at_s[0] - caller.began_s for caller in fine[1]]
            first, prompt_tokens = statistics.median(firsts), tokens_of_a_prompt(stack.url)
            prefill_s = max(firsts) / (args.streams * prompt_tokens)
            print(f"undisturbed: {dying.same(*fine)} of {2 * args.streams} texts are the same in two runs")
            print(
                f"  first token p50 {first:.2f} s: the prefill of {args.streams} prompts at once by each replica"
            )
            print(f"  prefill {1000 * prefill_s:.1f} ms a token, {prompt_tokens} tokens a prompt")
            rounds: list[Round] = []
            for number in range(args.rounds):
                wait_until(lambda: all(r["state"] == "ready" for r in stack.replicas()), timeout_s=60)
                callers, killed_s = asyncio.run(dying.disturbed(stack, args.streams, after=5 + 15 * number))
                rounds.append(
                    Round(
                        whole=tell(callers, killed_s, fine[0]),
                        in_time=is_in_time(
                            callers, killed_s, prompt_tokens=prompt_tokens, prefill_s=prefill_s
                        ),
                        same=[a.text == b.text for a, b in zip(callers, fine[0], strict=True) if a.resumed],
                    )
                )
    finally:
        box.kill_all()
    if not all(one.same for one in rounds):
        print("in a round no stream was resumed: its kill showed nothing", file=sys.stderr)
    return exit_code(rounds)


def exit_code(rounds: list[Round]) -> int:
    """Return 3 where something was wrong, else 1 where a round showed nothing, else 0."""
    same = [text for one in rounds for text in one.same]
    if not all(one.whole and one.in_time for one in rounds) or sum(same) < SAME_TEXT * len(same):
        return 3
    return 0 if rounds and all(one.same for one in rounds) else 1


def tokens_of_a_prompt(url: str) -> int:
    """Return how many tokens one of the prompts has, as the engine counts them."""
    request = {"model": dying.MODEL, "messages": [{"role": "user", "content": dying.PROMPT}], "max_tokens": 1}
    with urllib.request.urlopen(f"{url}/v1/chat/completions", json.dumps(request).encode()) as answer:
        return int(json.load(answer)["usage"]["prompt_tokens"])


def is_in_time(callers: list[dying.Caller], killed_s: float, *, prompt_tokens: int, prefill_s: float) -> bool:
    """Print how long the resumed streams may be silent and return whether none was for longer."""
    resumed = [caller for caller in callers if caller.resumed]
    said = sum(sum(at_s <= killed_s for at_s in caller.at_s) for caller in resumed)
    allowed_s = SILENT_S + prefill_s * (said + prompt_tokens * len(resumed))
    longest_s = max((caller.gap_s(killed_s) for caller in resumed), default=0.0)
    print(
        f"  longest gap {longest_s:.2f} s of {allowed_s:.2f} s: {'in time' if longest_s <= allowed_s else 'LATE'}"
    )
    return longest_s <= allowed_s


def tell(callers: list[dying.Caller], killed_s: float, fine: list[dying.Caller]) -> bool:
    """Print one round and return whether all answers were whole."""
    resumed = [caller for caller in callers if caller.resumed]
    gaps = sorted(caller.gap_s(killed_s) for caller in resumed) or [0.0]
    first = min((t for c in resumed for t in c.at_s if t > killed_s), default=killed_s) - killed_s
    pairs = list(zip(callers, fine, strict=True))
    print(
        f"killed: {sum(c.whole for c in callers)} of {len(callers)} whole, {len(resumed)} resumed,"
        f" gap p50 {statistics.median(gaps):.2f} s, max {gaps[-1]:.2f} s, first token after {first:.2f} s;"
        f" same text: {sum(a.text == b.text for a, b in pairs if a.resumed)} of the resumed,"
        f" {sum(a.text == b.text for a, b in pairs if not a.resumed)} of the {len(callers) - len(resumed)} others"
    )
    for caller in callers:
        if not caller.whole:
            print(f"  stream {caller.number}: {caller.failure or 'no end'}")
    return all(caller.whole for caller in callers)


if __name__ == "__main__":
    sys.exit(main())
