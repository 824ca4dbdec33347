"""What the fake engine can be told to do: speed, size and faults, by flags at its start or by JSON while it runs.

One struct is the list of flags, the keys of `POST /_fake` and the engine options of `FAKE_ENGINE`, so that a knob
is declared once. Values here say what the fake does, not what a real engine should.
"""

import argparse
from typing import Annotated, Any, Literal

import msgspec

Health = Literal["honest", "lie", "bad", "hang"]
Fault = Literal[
    "none",
    "hang",  # accept and never answer
    "crash",  # the process dies before it answers
    "late_crash",  # 0.5 s later the process dies, also if the client has left
    "close",  # close the connection without an answer
    "status",  # answer `fault_status`
    "status_crash",  # the same, and a moment later the process dies
    "bad_head",  # a response head that is no HTTP
    "huge_headers",  # a response head of over 1 MB
    "two_lengths",  # Content-Length twice, with different values
    "short_body",  # close before the promised Content-Length
    "long_body",  # send more than the promised Content-Length
    "hang_stream",  # after `fault_after_tokens` send nothing more
    "crash_stream",  # after `fault_after_tokens` the process dies
    "close_stream",  # after `fault_after_tokens` close in the middle of the body
    "reset_stream",  # after `fault_after_tokens` reset the connection
    "bad_chunk",  # after `fault_after_tokens` send a chunk size that is no number
    "error_event",  # after `fault_after_tokens` send an error event and end cleanly, without `[DONE]`
    "no_done",  # send all tokens and end cleanly, without the last events
]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Real = Annotated[float, msgspec.Meta(ge=0)]


class FakeSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All knobs with their defaults: a healthy, quick engine with llama.cpp's habits."""

    tokens_per_s: Real = 200.0
    """Speed of one answer, tokens per second; 0: as fast as the machine goes."""
    first_token_s: Real = 0.0
    """Seconds from taking a slot to the first token."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Requests worked on at once; others wait. Read at the start only."""
    answer_tokens: Whole = 16
    """Tokens of a whole answer; a smaller `max_tokens` cuts it."""
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] = 2048
    """A prompt of more words is refused as llama.cpp does."""
    start_s: Real = 0.0
    """Seconds after its start in which it answers 503 `Loading model`."""
    exit_at_start: Annotated[int, msgspec.Meta(ge=-1, le=255)] = -1
    """Exit code with which it ends before it listens; -1: it does not."""
    exit_words: str = "the fake engine was told to end"
    """Its last line then."""
    ignore_sigterm: bool = False
    term_delay_s: Real = 0.0
    """Seconds from SIGTERM to its end."""
    health: Health = "honest"
    """honest: 503 while loading or while a fault is on; lie: always 200; bad: always 503; hang: no answer."""
    health_delay_s: Real = 0.0
    metrics: Literal["ok", "missing", "hang"] = "ok"
    sleeping: bool = False
    """As vLLM after `POST /sleep`: what comes is taken and waits, what is under way goes on."""
    fault: Fault = "none"
    """What the next completions meet."""
    fault_count: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """For how many requests, then `none` again; -1: for all."""
    fault_on: str = ""
    """Only requests with this text in their body meet the fault; empty: all do."""
    fault_after_tokens: Whole = 3
    fault_status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503
    fault_retry_after_s: Whole = 0
    """Sent as Retry-After with `status`; 0: not sent."""
    abort_plain: bool = False
    """True: a client that leaves ends also an answer that is not streamed. False, as llama.cpp: it runs to its end."""
    keep_alive_s: Real = 5.0
    """Idle connections are closed after this; 0: never. Default as llama.cpp (measured)."""
    keep_alive_requests: Whole = 100
    """A connection is closed after this many requests; 0: never. Default as llama.cpp (measured)."""


def changed(settings: FakeSettings, changes: dict[str, Any]) -> FakeSettings:
    """Return the settings with changes put in; raises `msgspec.ValidationError` for unknown or impossible ones."""
    return msgspec.convert({**msgspec.structs.asdict(settings), **changes}, FakeSettings)


def to_flags(settings: dict[str, Any]) -> list[str]:
    """Return settings as flags of the fake engine's command line."""
    flags: list[str] = []
    for name, value in settings.items():
        word = str(value).lower() if isinstance(value, bool) else str(value)
        flags.append(f"--{name.replace('_', '-')}={word}")
    return flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting; values stay text until `from_flags`."""
    for field in msgspec.structs.fields(FakeSettings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None)


def from_flags(flags: argparse.Namespace) -> FakeSettings:
    """Return the settings that the flags give; raises `msgspec.ValidationError` for impossible ones."""
    given = {field.name: getattr(flags, field.name) for field in msgspec.structs.fields(FakeSettings)}
    return msgspec.convert(
        {name: text for name, text in given.items() if text is not None}, FakeSettings, strict=False
    )
