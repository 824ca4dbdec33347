"""Check engines over HTTP: readiness (a real completion), counters, and whether an external endpoint answers.

It owns the HTTP client and maps its failures to messages; it keeps no state and decides nothing. An external endpoint
is only asked for pages (its models, and once its capacity): it may charge by the token, and a check must not
cost anything. A
connection serves one request: engines close idle ones, and a stale connection would look like a failing engine.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx2
import msgspec

from freehold.core.events import socket_path
from freehold.engines.base import Capacity, HttpCheck
from freehold.engines.shared.metrics_page import read_metrics, shows_progress
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan

_ANSWER_BYTES = 64 * 1024
"""At most this much of a readiness answer is read: a one-token completion has some hundred bytes."""
_METRICS_BYTES = 4 * 1024 * 1024
"""Longest page of counters that is read; vLLM's has some ten kilobytes."""
_STEADY_LOOKS = 3
"""Tries to read finished and unfinished tokens at one moment. Source: own choice; requests end some times a second."""
_WORDS_CHARS = 200
"""Longest quotation of an engine's message: two lines of a terminal."""
_MODELS = HttpCheck(method="GET", path="/v1/models")
_BUSY = 429
"""Throttling is a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessAnswer:
    """The result of a readiness check; `reason` and `hint` say why it failed."""

    ok: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterReading:
    """Counters of one engine; None is unknown, 0.0 is a measured zero."""

    tokens_total: float | None = None
    running: float | None = None
    asleep: bool | None = None
    """An operator put it to sleep; None: not reported."""


class Prober(Protocol):
    """Makes these checks; total: a failure is a result too."""

    async def ask(self, plan: ReplicaPlan, url: str) -> ReadinessAnswer:
        """Return whether the replica at `url` is ready."""
        ...

    async def measure(self, plan: ReplicaPlan, url: str) -> CounterReading:
        """Return its counters."""
        ...

    async def capacity(self, plan: ReplicaPlan, url: str) -> Capacity | None:
        """Return the capacity that a server reports; None: it did not answer in time."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpProber:
    """Makes the checks over HTTP, each with a deadline, without proxies and without following redirects."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._client = http_client()

    async def ask(self, plan: ReplicaPlan, url: str) -> ReadinessAnswer:
        """Return whether a managed engine answers its completion, or an external one lists its models.

        Deadlines: `ready_ask_timeout_s`, `external_timeout_s`.
        """
        managed = plan.engine.managed
        check = plan.engine.proof(plan.name_upstream, plan.options) if managed else _MODELS
        deadline_s = self._settings.ready_ask_timeout_s if managed else self._settings.external_timeout_s
        try:
            async with asyncio.timeout(deadline_s):
                status, body = await self._fetch(check, url, plan.api_key, _ANSWER_BYTES)
        except TimeoutError:
            return ReadinessAnswer(ok=False, reason=f"no answer within {deadline_s:g} s")
        except httpx2.ConnectError as exc:
            return ReadinessAnswer(
                ok=False, reason="loading" if managed else f"no connection: {_words(str(exc))}"
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            return ReadinessAnswer(ok=False, reason=_words(str(exc)) or type(exc).__name__)
        if 200 <= status < 300 or (not managed and status == _BUSY):
            return ReadinessAnswer(ok=True)
        return ReadinessAnswer(
            ok=False,
            reason=f"HTTP {status}: {_said(plan, status, body)}",
            hint=_hint(status, managed=managed),
        )

    async def measure(self, plan: ReplicaPlan, url: str) -> CounterReading:
        """Return the counters that the engine's metric map names; all None when the page does not come in time."""
        try:
            async with asyncio.timeout(self._settings.scrape_timeout_s):
                return await self._measure(plan, url)
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, OSError):
            return CounterReading()

    async def capacity(self, plan: ReplicaPlan, url: str) -> Capacity | None:
        """Return the capacity from the engine's capacity pages; a missing page adds nothing."""
        # These pages are at the server's root, even if its address ends with the `/v1` of client paths.
        root, reported = url.rstrip("/").removesuffix("/v1"), Capacity()
        try:
            async with asyncio.timeout(self._settings.scrape_timeout_s):
                for page in plan.engine.capacity_pages:
                    body = await self._body(plan, root, page.path)
                    reported = reported.filled(page.read(body or b"", plan.name_upstream))
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, OSError):
            return None
        return reported

    async def _measure(self, plan: ReplicaPlan, url: str) -> CounterReading:
        unfinished, page = plan.engine.unfinished, await self._page(plan, url)
        if unfinished is None:
            return _reading(page, 0.0)
        for _ in range(_STEADY_LOOKS):
            body = await self._body(plan, url, unfinished.path)
            after = await self._page(plan, url)
            if _tokens(after) == _tokens(page):
                # No request ended in between, so the finished and the unfinished tokens are of one moment.
                return _reading(after, None if body is None else unfinished.tokens(body))
            page = after
        return _reading(page, None)

    async def _page(self, plan: ReplicaPlan, url: str) -> dict[str, float]:
        engine = plan.engine
        body = await self._body(plan, url, engine.metrics_path)
        page = {} if body is None else read_metrics(body.decode("utf-8", "replace"), engine.metrics)
        for more in engine.more_pages:
            if shows_progress(page):
                break
            body = await self._body(plan, url, more.path)
            page = page if body is None else {**more.read(body), **page}
        return page

    async def _body(self, plan: ReplicaPlan, url: str, path: str | None) -> bytes | None:
        if path is None:
            return None
        status, body = await self._fetch(
            HttpCheck(method="GET", path=path), url, plan.api_key, _METRICS_BYTES
        )
        return body if status == 200 else None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _fetch(self, check: HttpCheck, url: str, api_key: str, limit_bytes: int) -> tuple[int, bytes]:
        """Return status and the first `limit_bytes` of the body."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        content = None if check.body is None else msgspec.json.encode(check.body)
        if content is not None:
            headers["content-type"] = "application/json"
        base = base_url(url).rstrip("/")
        # As the gateway does: an endpoint `https://host/x/v1` serves `/x/v1/...`.
        target = base + (check.path.removeprefix("/v1") if base.endswith("/v1") else check.path)
        request = httpx2.Request(check.method, target, headers=headers, content=content)
        if not socket_path(url):
            return await _send(self._client, request, limit_bytes)
        async with http_client(url) as client:
            return await _send(client, request, limit_bytes)


async def _send(client: httpx2.AsyncClient, request: httpx2.Request, limit_bytes: int) -> tuple[int, bytes]:
    body, response = b"", await client.send(request, stream=True)
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) >= limit_bytes:
                break
    finally:
        await response.aclose()
    return response.status_code, body[:limit_bytes]


def http_client(url: str = "") -> httpx2.AsyncClient:
    """Return a client without proxies, redirects, kept connections and time limits; for a Unix socket if `url` names one."""
    path, limits = socket_path(url), httpx2.Limits(max_keepalive_connections=0)
    # verify=False: else each client would read every certificate of the system, for a socket without TLS.
    transport = httpx2.AsyncHTTPTransport(uds=path, verify=False, limits=limits) if path else None
    return httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None, limits=limits)


def base_url(url: str) -> str:
    """Return what an engine's pages are asked under in HTTP: its `url`, or any host for a Unix socket."""
    return "http://localhost" if socket_path(url) else url


def _tokens(page: Mapping[str, float]) -> float | None:
    return page.get("generated_tokens_total")


def _reading(page: Mapping[str, float], unfinished_tokens: float | None) -> CounterReading:
    """Return a reading; if a part of a count is unknown, the count is."""
    finished = _tokens(page)
    known = finished is not None and unfinished_tokens is not None
    awake = page.get("awake_engines")
    return CounterReading(
        tokens_total=(finished or 0.0) + (unfinished_tokens or 0.0) if known else None,
        running=page.get("running_requests"),
        asleep=None if awake is None else awake == 0,
    )


def _said(plan: ReplicaPlan, status: int, body: bytes) -> str:
    """Return why it rejected the check: by its engine file, if waiting does not help, such as for a wrong option."""
    error = plan.engine.translate_error(status, body) if plan.engine.managed and status >= 400 else None
    return _words(error.message) if error is not None and error.status < 500 else _error_words(body)


def _error_words(body: bytes) -> str:
    """Return the message of an error body of any shape, on one line."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        decoded = body.decode("utf-8", "replace")
    for key in ("error", "message", "detail"):
        if isinstance(decoded, Mapping) and key in decoded:
            decoded = decoded[key]
    return _words(str(decoded))


def _words(text: str) -> str:
    return " ".join(text.split())[:_WORDS_CHARS]


def _hint(status: int, *, managed: bool) -> str:
    if managed:
        return ""
    if status in {401, 403}:
        return "the server requires another API key"
    return "is this the server's address up to, not including, /v1?" if status == 404 else ""
