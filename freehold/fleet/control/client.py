"""The client end of the control socket: one line of JSON to the controller, its lines back. Blocking, for the cli.

It imports little, so that `freehold status` is quick, and knows no operation: the content of requests and answers is for
its callers. The other end is `freehold.fleet.control.server`.
"""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.errors import Permanent, Temporary
from freehold.fleet.control.state_dir import StateDir

ANSWER_BYTES = 16 * 1024 * 1024
"""Longest line of an answer that the client reads: the status of thousands of replicas fits."""
LINE_S = 5.0
"""For a client to send its line and to read one; for the controller to send its first."""
SILENCE_S = 60.0
"""Longest pause between two lines that a client waits for: a stop reports at least every HEARTBEAT_S."""

DENIED = "denied"
"""Key of the one line that a client gets whose user may not make its request."""

Line = Mapping[str, Any]


class NotRunning(Permanent):
    """No controller answers on this state directory's socket."""


class NotAllowed(Permanent):
    """This user may not make the request, or not reach the socket."""


def ask(state_path: Path, request: Line, *, silence_s: float = SILENCE_S) -> Iterator[dict[str, Any]]:
    """Yield the lines of the answer of a state directory's controller; blocking, for the cli.

    Raises NotRunning without a controller, NotAllowed without the role for it, Temporary when it does not answer: the first line must come within LINE_S,
    every later one within `silence_s`. An answer that breaks off just ends; that of a stop is complete with `done`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(LINE_S)
        try:
            _connect(client, StateDir(state_path))
            client.sendall(msgspec.json.encode(request) + b"\n")
            with client.makefile("rb") as lines:
                while line := lines.readline(ANSWER_BYTES):
                    answer = msgspec.json.decode(line, type=dict[str, Any])
                    if DENIED in answer:
                        raise NotAllowed(str(answer["error"]), hint=str(answer["hint"]))
                    yield answer
                    client.settimeout(silence_s)
        except TimeoutError as exc:
            raise Temporary("the controller does not answer", hint="is the machine overloaded?") from exc
        except (OSError, msgspec.MsgspecError) as exc:
            raise Temporary(f"the controller's answer broke off: {exc}") from exc


def _connect(client: socket.socket, state_dir: StateDir) -> None:
    try:
        with state_dir.socket_path() as path:
            client.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as exc:
        message = f"nothing runs here (state directory {state_dir.path})"
        raise NotRunning(message, hint="start it with `freehold up`") from exc
    except PermissionError as exc:
        message = f"this user may not reach the control socket in {state_dir.path}"
        raise NotAllowed(message, hint="ask its user for a role: docs/roles.md") from exc
