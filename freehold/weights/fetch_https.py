"""`https://`: one GET that resumes where it broke off, after a lost connection and after a killed process.

The file that owns httpx2 in this room: its exceptions become `Temporary` or `Permanent` here. A partial file is only
continued with `If-Range`, or else checked against the expected SHA-256: a continued file that has the wrong
hash is fetched once more from its first byte before an error is raised.
"""

import netrc
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2
import msgspec

from freehold import __version__
from freehold.core import clock
from freehold.core.errors import FreeholdError, Permanent, Temporary
from freehold.weights.blobs import read_json
from freehold.weights.retry import persist
from freehold.weights.source import HttpsSource, shown_url, url_mistake
from freehold.weights.transfer import Fetched, FetchJob, FetchStage, Sink, require_space

CONNECT_S, READ_S = 10.0, 30.0
"""Longest wait for a connection and for the next bytes, seconds. Source: our choice; a stalled line is dropped and
taken up again, so a short wait costs one request."""

MOST_REDIRECTS = 5
"""Redirects followed for one request. Source: release hosts use one or two; five is what browsers' authors advise."""

TRANSPORT_ERRORS = (httpx2.HTTPError,)
"""Exceptions of a failed connection, for the other file whose library uses httpx2."""

_TEMPORARY = {
    408,
    425,
    429,
    500,
    502,
    503,
    504,
}  # statuses whose own definition (RFC 9110, 6585, 8470) says: later
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class ResumeNote(msgspec.Struct, frozen=True):
    """The file that the partial file in the scratch folder belongs to."""

    url: str
    """Without its query, which may be a secret."""
    validator: str
    """A strong ETag or a Last-Modified date for `If-Range`; empty: the server gave none."""
    total_bytes: int | None


def fetch(source: HttpsSource, job: FetchJob) -> Fetched:
    """Return the complete file; raises `Temporary` when tries are spent, `Permanent`, `DiskFull` or OSError."""
    with _client(source.url) as client:
        download = _Download(client, source.url, job)
        fetched = download.run()
        if download.continued and job.want_sha256 not in ("", fetched.sha256):
            download.discard()
            fetched = download.run()
        return fetched


class _Download:
    """One file that is being fetched: the partial file, the note beside it, and the tries."""

    def __init__(self, client: httpx2.Client, url: str, job: FetchJob) -> None:
        self._client = client
        self._url = url
        self._job = job
        self._data = job.scratch / "data"
        self._note = job.scratch / "resume.json"
        self._most_bytes = 0
        self.continued = False
        """Whether bytes of an earlier response are in the file."""

    def run(self) -> Fetched:
        """Return the complete file after as many tries as the backoff allows."""
        return persist(
            self._attempt,
            backoff=self._job.backoff,
            gained_bytes=lambda: self._most_bytes,
            on_wait=lambda error, left_s: self._job.report(
                FetchStage.RETRYING, self._most_bytes, detail=f"{error.message}; in {left_s:.0f} s"
            ),
        )

    def discard(self) -> None:
        """Remove the partial file."""
        self._data.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.continued = False

    def _attempt(self) -> Fetched:
        note = read_json(self._note, ResumeNote)
        with Sink(self._data) as sink:
            if note is None:
                sink.restart()
            else:
                sink.keep(self._job.report)
            if note is None or sink.done_bytes != note.total_bytes:
                self._ask(sink, note)
            else:
                self.continued = (
                    True  # complete already: an earlier process ended between the last byte and the store
                )
            return Fetched(path=self._data, sha256=sink.sha256())

    def _ask(self, sink: Sink, note: ResumeNote | None) -> None:
        headers = self._range_headers(sink.done_bytes, note)
        self._job.report(FetchStage.FETCHING, sink.done_bytes, total_bytes=note.total_bytes if note else None)
        with _mapped(self._url), self._client.stream("GET", self._url, headers=headers) as response:
            start, total_bytes = _content_range(response)
            if response.status_code == 200:
                self._receive(response, sink, _length(response))
            elif response.status_code == 206 and start == sink.done_bytes:
                self.continued = sink.done_bytes > 0
                self._receive(response, sink, total_bytes)
            elif response.status_code in {206, 416} and headers:
                self.discard()  # another file than the one begun, or a server with wrong ranges
                raise Temporary(f"{shown_url(self._url)} is no longer the file that was begun")
            else:
                raise status_error(response)

    def _range_headers(self, done_bytes: int, note: ResumeNote | None) -> dict[str, str]:
        if not done_bytes or note is None:
            return {}
        headers = {"Range": f"bytes={done_bytes}-"}
        if note.validator and note.url == shown_url(self._url):
            headers["If-Range"] = note.validator
        return headers

    def _receive(self, response: httpx2.Response, sink: Sink, total_bytes: int | None) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Permanent(f"{shown_url(self._url)} is sent compressed, although the request excludes that")
        if response.status_code == 200:
            sink.restart()
            self.continued = False
        require_space(self._data.parent, (total_bytes or 0) - sink.done_bytes)
        self._write_note(response, total_bytes)
        for block in response.iter_raw():
            sink.write(block)
            self._most_bytes = max(self._most_bytes, sink.done_bytes)
            self._job.report(FetchStage.FETCHING, sink.done_bytes, total_bytes=total_bytes)
        self._check_end(sink.done_bytes, total_bytes)

    def _check_end(self, done_bytes: int, total_bytes: int | None) -> None:
        if total_bytes is None or done_bytes == total_bytes:
            return
        if done_bytes > total_bytes:
            self.discard()
        raise Temporary(f"{shown_url(self._url)} gave {done_bytes:,} bytes of {total_bytes:,}")

    def _write_note(self, response: httpx2.Response, total_bytes: int | None) -> None:
        tag = response.headers.get("ETag", "")
        strong = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        note = ResumeNote(url=shown_url(self._url), validator=strong, total_bytes=total_bytes)
        self._note.write_bytes(msgspec.json.encode(note))


def status_error(response: httpx2.Response) -> FreeholdError:
    """Return the error for a status: `Temporary`, or `Permanent` with what is missing."""
    status, url = response.status_code, shown_url(str(response.url))
    message = f"{url} answered {status} {response.reason_phrase}".rstrip()
    if status in _TEMPORARY:
        retry_after_s = retry_after(response.headers.get("Retry-After", ""))
        return Temporary(message, hint="try again later", retry_after_s=retry_after_s)
    if status in {401, 403, 407}:
        return Permanent(message, hint="put a login for this host in ~/.netrc, or renew the signed link")
    if status in {404, 410}:
        return Permanent(message, hint="check the address: there is no such file")
    return Permanent(message, hint="check that the address is the file itself")


def retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or an HTTP date), or None."""
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # HTTP dates are GMT, also where the text does not say so
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - clock.wall_s())


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
        raise Permanent(f"cannot fetch {shown_url(url)}: {error}", hint="check the address") from error
    except httpx2.HTTPError as error:
        raise transport_error(error, shown_url(url)) from error


def transport_error(error: Exception, what: str) -> FreeholdError:
    """Return the error for a failed connection; only a certificate that does not verify is `Permanent`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        hint = "set SSL_CERT_FILE to your organisation's certificates if it has its own"
        return Permanent(f"{what}: the server's certificate does not verify: {cause}", hint=hint)
    words = str(error) or type(error).__name__
    return Temporary(f"{what}: {words}", hint="check the network and proxy settings; the next fetch resumes")


def _client(url: str) -> httpx2.Client:
    return httpx2.Client(
        auth=_netrc_auth(),
        follow_redirects=True,
        max_redirects=MOST_REDIRECTS,
        timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
        headers={"Accept-Encoding": "identity", "User-Agent": f"freehold/{__version__}"},
        event_hooks={"request": [lambda request: _refuse_bad_hop(url, str(request.url))]},
    )


def _netrc_auth() -> httpx2.Auth | None:
    path = os.environ.get("NETRC")  # as curl and pip have it
    try:
        return httpx2.NetRCAuth(path)
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        raise Permanent(f"cannot read logins: {error}", hint="correct ~/.netrc") from error


def redirect_mistake(start: str, hop: str) -> str | None:
    """Return why a fetch that began at `start` does not follow a redirect to `hop`, or None.

    No server can redirect from https to plain http, nor to this machine or its link (where clouds keep their metadata)
    unless the fetch began there. Only addresses are checked, not what a name resolves to.
    """
    if mistake := url_mistake(hop):
        return mistake
    begun, next_one = urlsplit(start), urlsplit(hop)
    if begun.scheme == "https" and next_one.scheme == "http":
        return f"from https to plain http, {shown_url(hop)}"
    reach = _reach(next_one.hostname or "")
    if reach and reach != _reach(begun.hostname or ""):
        return f"from {begun.hostname} to {next_one.hostname}, which is {reach}"
    return None


def _reach(host: str) -> str:
    """Return how near an address is, as text; empty: it is not on this machine or its link."""
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return "this machine itself"
    try:
        address = ip_address(_plain(host))
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_unspecified:
        return "this machine itself"
    return "on this machine's link" if address.is_link_local else ""


def _plain(host: str) -> str:
    """Return an IPv4 address in one of its old spellings (`127.1`, `0x7f.1`, `2130706433`) as connect(2) takes it."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return host


def _refuse_bad_hop(start: str, hop: str) -> None:
    mistake = redirect_mistake(start, hop)
    if mistake:
        raise Permanent(f"redirect not followed: {mistake}")


def _length(response: httpx2.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _content_range(response: httpx2.Response) -> tuple[int | None, int | None]:
    """Return where the body starts and the size of the whole; None: the header does not say."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start, total = match.groups() if match else (None, "*")
    return int(start) if start else None, int(total) if total.isdecimal() else None
