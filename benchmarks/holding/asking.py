"""One request at a time from Python, where what counts is its status, its headers and how long it took."""

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any

from processes import API_KEY

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What became of one request. `status` 0: there was no whole answer."""

    at_s: float
    took_s: float
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def retry_after_s(self) -> float | None:
        """When to come again, as the answer says."""
        value = self.headers.get("retry-after")
        return None if value is None else float(value)


def ask(
    port: int,
    *,
    model: str = "m",
    prompt: str = "bench:bytes=400",
    stream: bool = False,
    key: str = API_KEY,
    timeout_s: float = 60.0,
) -> Asked:
    """Ask for a completion on a connection of its own."""
    body: dict[str, Any] = {"model": model, "max_tokens": 8, "stream": stream}
    body["messages"] = [{"role": "user", "content": prompt}]
    return _ask(port, CHAT, json.dumps(body).encode(), key=key, timeout_s=timeout_s)


def get(port: int, path: str) -> Asked:
    """Get a page of the gateway's own."""
    return _ask(port, path, None, key=API_KEY, timeout_s=10.0)


def _ask(port: int, path: str, body: bytes | None, *, key: str, timeout_s: float) -> Asked:
    at_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        came = answer.read()
        named = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException):
        return Asked(at_s=at_s, took_s=time.monotonic() - at_s, status=0)
    finally:
        connection.close()
    return Asked(at_s=at_s, took_s=time.monotonic() - at_s, status=answer.status, headers=named, body=came)


def metric(port: int, name: str) -> float:
    """The sum of a metric's samples."""
    lines = get(port, "/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def health(port: int) -> dict[str, Any]:
    """What the gateway says of itself."""
    found: dict[str, Any] = json.loads(get(port, "/health").body)
    return found


def whole_stream(asked: Asked) -> bool:
    """Whether a stream came to its end."""
    return asked.status == 200 and asked.body.rstrip().endswith(b"data: [DONE]")
