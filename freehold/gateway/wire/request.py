"""One request as the parser fills it and the exchange reads it, with the headers that mean something to the gateway.

Defaults stand on the class and an instance holds only what differs: most requests differ in four or five fields, and
this object is made for each one. Headers that mean nothing here are not even looked at.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from math import inf, isfinite
from typing import Protocol

from freehold.engines.base import ALL_PATHS, COUNT_PATHS, MEDIA_PATHS
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection

ENGINE_PATHS = ALL_PATHS | COUNT_PATHS | MEDIA_PATHS
"""The paths that engines answer; every other path is answered here or does not exist."""
HEADERS_MAX = 100
"""Header fields of one request. Source: Apache's LimitRequestFields default."""
FIELD_BYTES_MAX = 16 * 1024
"""Longest name and value of one header field together, bytes. Source: twice Apache's LimitRequestFieldSize default (8190)."""
TARGET_BYTES_MAX = 16 * 1024
"""Longest request target, bytes. Source: twice the 8,000 that RFC 9112 3 wants supported."""
REQUEST_ID_CHARS_MAX = 128
"""Longest request id of a client that is kept, characters. Source: our own bound; OpenAI's own ids have 36."""
_PORT_MAX = 65535  # 16 bits (RFC 9293 3.1).
_KNOWN_PATHS = {path.encode(): path for path in ENGINE_PATHS}


class Caller(Protocol):
    """The API key that a request came with; `callers.grant` has the class."""

    id: str
    weight: float
    """Its share among callers of the same priority."""
    priority: int
    """As nice(1): lower goes first."""
    concurrency: int | None
    """Requests at once; None: no limit."""
    cache_domain: str
    """A text that no other caller knows: requests of other domains use nothing of its prefix cache."""
    may_leave: bool
    """Its requests may go to endpoints of other providers."""

    def may_use(self, model: str) -> bool:
        """Return whether this key may use a model."""

    def over_concurrency(self) -> Rejection:
        """Return the 429 for one request more than this key may have at once."""


class Charge(Protocol):
    """What a request takes of its key's limits; `callers.grant` has the class."""

    def learn(self, used_tokens: int | None, answer_tokens: int | None, body_bytes: int) -> None:
        """Charge the tokens that the engine counted; None: only about how many the answer has is known."""

    def pay(self, cost_picousd: int) -> None:
        """Charge this cost to the key's budget in US dollars, if it has one."""

    def end(self, status: int, answer_bytes: int, *, asked: bool) -> None:
        """End the request, once; `asked`: some engine was asked."""


class Request:
    """One request."""

    method = b""
    url = b""
    path = ""
    """The path as it was sent, without the query, never normalised; broken bytes show as U+FFFD."""
    body = b""
    body_bytes = 0
    length_bytes = 0
    """Content-Length; 0 where there is none."""
    gathered: bytearray | None = None
    """The body as far as it has come, where it comes in several pieces."""
    stream = False
    max_tokens = 0
    """The most tokens that the answer may have; 0: the body sets no limit."""
    choices = 0
    """How many answers share a prompt, where each answer has a usage of its own; 0: one usage is the whole request's."""
    timeout_s = inf
    """How long the client waits for the whole answer, seconds; infinity: it sets no limit; 0: the header cannot be read."""
    resumable = False
    """Its model's engines can continue an answer that another one began."""
    stays = False
    """The client allows no other provider."""
    hides_usage = False
    """The gateway asked for the usage chunk, so it is taken out again."""
    cache_salt = ""
    """Requests with another salt may use nothing of its prefix cache; empty: all share it."""
    sets_cache = False
    """Its body has keys by which an engine would let it choose a cache."""
    one_answer = True
    """It asks for one answer to one prompt, which is surely not empty: an engine may answer that and leave its slot as it was."""
    forced_call = False
    """The answer must be a call of a tool, by an engine that has to be made to by `answers.forced_call`."""
    adapter = ""
    """Which adapter of its model is asked for, by the name in the body; empty: the model itself."""
    key_id = ""
    """The id of its API key; empty: no key is needed."""
    http11 = True
    keep_alive = True
    expect = False
    header_count = 0
    hosts = 0
    foreign = False
    """Its Host is a name outside this machine's loopback, which a web page can have after DNS rebinding."""
    codings: tuple[bytes, ...] = ()
    encoding = b""
    form = b""
    """Its Content-Type, if the body is a form with files; empty: it is taken for JSON."""
    origin = b""
    """The web page that a browser sends this for; empty: no browser, or a page of this server."""
    passed = b""
    """Header lines that are passed to the engine (trace context and the like), each with CRLF."""
    is_usual = False
    """Its head holds only method, path, length and key, so that others may have the same one."""
    id_line = b""
    """The header line of the request's id, for both sides."""
    named = False
    """Its client gave it that id."""
    rejection: Rejection | None = None
    key_digest: bytes | None = None
    """`keys.hash_of` the API key that was presented, which itself is not kept; empty: not a key, or two of them; None: nothing."""
    caller: Caller | None = None
    """Its API key; None: no key is needed."""
    grant: Charge | None = None
    """What it was given of its caller's limits; None: there are none."""
    limit_lines = b""
    """Header lines of the answer with the key's limits and the provider that answers, each with CRLF."""

    @property
    def request_id(self) -> str:
        """Return the id alone."""
        return id_of(self.id_line)

    def name(self, fresh_id_line: Callable[[], bytes]) -> None:
        """Settle the path, the id and whether the head is a usual one, once it has come."""
        url = self.url
        self.path = _KNOWN_PATHS.get(url) or url.partition(b"?")[0].decode("ascii", "replace")
        if not self.id_line:
            self.id_line = fresh_id_line()
        self.is_usual = self._is_usual()

    def _is_usual(self) -> bool:
        odd = (
            self.named
            or self.codings
            or self.encoding
            or self.origin
            or self.passed
            or self.form
            or self.expect
            or self.stays
        )
        plain = self.rejection is None and not odd and self.timeout_s == inf
        return plain and self.method == b"POST" and self.keep_alive and self.url in _KNOWN_PATHS

    def framing(self) -> bytes:
        """Return the header line with the framing of this request's body, or nothing for no body."""
        if self.codings:
            return b"transfer-encoding: chunked\r\n"
        return b"content-length: %d\r\n" % self.length_bytes if self.length_bytes else b""

    def check_head(self, version: str) -> Rejection | None:
        """Return why this head, of HTTP version `1.1` or another, cannot be trusted or served, or None."""
        if version not in {"1.1", "1.0"}:
            return errors.malformed("This server speaks HTTP/1.1 and HTTP/1.0.", status=505)
        if (
            self.hosts == 1
            and not (self.codings or self.encoding or self.origin)
            and self.header_count <= HEADERS_MAX
        ):
            return None if self.url in _KNOWN_PATHS else self._check_target()
        return self._check_odd_head()

    def _check_target(self) -> Rejection | None:
        """Turn a target with scheme and authority into its path; the authority is what counts then (RFC 9112 3.2.2)."""
        if len(self.url) > TARGET_BYTES_MAX:
            return errors.target_too_long()
        if _PATH.fullmatch(self.url) or (self.url == b"*" and self.method == b"OPTIONS"):
            return None
        found = _ABSOLUTE_FORM.fullmatch(self.url)
        kind = _host_kind(found[1]) if found is not None else None
        if found is None or kind is None:
            return errors.malformed(
                "The request target must be a path, or an http or https URL (RFC 3986 3)."
            )
        rest = found[2] or b""
        self.url, self.foreign = rest if rest.startswith(b"/") else b"/" + rest, kind
        return None

    def _check_odd_head(self) -> Rejection | None:
        if self.header_count > HEADERS_MAX:
            message = f"More than {HEADERS_MAX} header fields, or one of more than {FIELD_BYTES_MAX} bytes."
            return errors.malformed(message, status=431)
        if self.hosts != 1 and (self.http11 or self.hosts):
            return errors.malformed(
                "A request needs exactly one Host header, with a host and perhaps a port."
            )
        if self.codings and (self.codings != (b"chunked",) or not self.http11):
            return errors.malformed("The only transfer coding accepted is a single 'chunked', in HTTP/1.1.")
        if (rejection := self._check_target()) is not None:
            return rejection
        if self.origin and not _LOCAL_PAGE.fullmatch(self.origin):
            # No key is needed here, so any page that a person opens could spend this machine's time, or read
            # answers after DNS rebinding. Browsers send Origin with every POST; SDKs and servers send none.
            return errors.forbidden("Web pages of other hosts may not use this server.")
        if self.encoding not in {b"", b"identity"}:
            return errors.invalid(
                "Compressed request bodies are not accepted.", status=415, code="unsupported_encoding"
            )
        return None


ID_NAME = b"x-request-id: "
"""How the header line of a request's id begins."""
_ID_AT = len(ID_NAME)


def id_of(line: bytes) -> str:
    """Return the id in its header line."""
    return line[_ID_AT:-2].decode()


_LOCAL_PAGE = re.compile(rb"https?://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
# What a path and a query are made of. Source: RFC 3986 3.3, 3.4; a fragment is for the client alone (RFC 9112 3.2).
_URL_CHARS = rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_PATH = re.compile(rb"/" + _URL_CHARS)
_ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?#]*)([/?]" + _URL_CHARS + rb")?")
# RFC 3986 3.2.2 allows more in a name; no host has it, and two parsers could split it in two ways.
_HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{0,5}))?")
_LOOPBACK = re.compile(rb"(?i:(?:[a-z0-9-]+\.)*localhost)|127\.\d+\.\d+\.\d+|\[::1\]")


@lru_cache(maxsize=256)
def _host_kind(value: bytes) -> bool | None:
    """Return whether a host lies outside the loopback; None: it is not a host (RFC 9110 4.2.1, 7.2)."""
    found = _HOST.fullmatch(value.strip(b" \t"))
    if found is None or int(found[2] or 0) > _PORT_MAX:
        return None
    return _LOOPBACK.fullmatch(found[1]) is None


# What each header does. A header that is not here does nothing.


def _host(request: Request, value: bytes) -> None:
    kind = _host_kind(value)
    request.hosts += 1 if kind is not None else 2  # one that is not a host counts like two
    if kind:
        request.foreign = True


def _coding(request: Request, value: bytes) -> None:
    request.codings += (value.strip().lower(),)


def _length(request: Request, value: bytes) -> None:
    # The parser takes care of what it is; white space around it is all that int() forgives besides.
    request.length_bytes = int(value)


def _id(request: Request, value: bytes) -> None:
    text = value.decode("latin-1")
    if 0 < len(text) <= REQUEST_ID_CHARS_MAX and text.isascii() and text.isprintable() and " " not in text:
        request.id_line, request.named = b"%b%b\r\n" % (ID_NAME, value), True


def _expect(request: Request, value: bytes) -> None:
    request.expect = value.lower() == b"100-continue"


def _timeout(request: Request, value: bytes) -> None:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    request.timeout_s = seconds if isfinite(seconds) and seconds > 0 else 0.0


def _fallback(request: Request, value: bytes) -> None:
    # Any other value means to forbid something, and a request that left cannot be called back.
    request.stays = request.stays or value.strip().lower() != b"allow"


def _origin(request: Request, value: bytes) -> None:
    request.origin = value.strip().lower()


def _encoding(request: Request, value: bytes) -> None:
    request.encoding = value.strip().lower()


def _content_type(request: Request, value: bytes) -> None:
    if value[:10].lower() == b"multipart/":
        request.form = value.strip()


def _pass_on(name: bytes) -> Callable[[Request, bytes], None]:
    def take(request: Request, value: bytes) -> None:
        request.passed += b"%b: %b\r\n" % (name, value)

    return take


_BY_LOWER_NAME: dict[bytes, Callable[[Request, bytes], None]] = {
    b"host": _host,
    b"transfer-encoding": _coding,
    b"content-length": _length,
    b"x-request-id": _id,
    b"expect": _expect,
    b"content-encoding": _encoding,
    b"content-type": _content_type,
    b"x-freehold-timeout": _timeout,
    b"x-freehold-fallback": _fallback,
    b"origin": _origin,
    **{
        name: _pass_on(name)
        for name in (b"traceparent", b"tracestate", b"anthropic-version", b"anthropic-beta")
    },
}
# Names as clients write them, so that most need no lower().
_BY_NAME = _BY_LOWER_NAME | {name.title(): take for name, take in _BY_LOWER_NAME.items()}
KNOWN = frozenset(_BY_NAME)
"""Names, as clients write them, of fields that mean something."""
IGNORED = frozenset(
    spelt
    for name in (b"accept", b"accept-encoding", b"authorization", b"connection",
                 b"cookie", b"user-agent", b"x-api-key")
    for spelt in (name, name.title())
)  # fmt: skip
"""Fields that mean nothing here, as clients write them: they are not even looked at."""
_OF_HEADS = KNOWN | IGNORED


def take_header(request: Request, name: bytes, value: bytes) -> None:
    """Let one header field that is not IGNORED do what it does."""
    take = _BY_NAME.get(name) or _BY_LOWER_NAME.get(name.lower())
    if take is not None:
        take(request, value)


def refuse_trailer(name: bytes) -> Rejection | None:
    """Return the 400 for a field of a head in a trailer, or None: others merge it into the head, and read another request."""
    if name.lower() not in _OF_HEADS:
        return None
    return errors.malformed("A field that belongs into the head came in a trailer (RFC 9110 6.5.1).")
