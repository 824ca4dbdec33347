"""The gateway's part of freehold.yaml as frozen records: every key, its unit, its default and why.

It does not check values against each other (`rules`). The text under each field is its description in the published JSON schema.
"""

from typing import Annotated

from pydantic import Field

from freehold.spec import shapes
from freehold.spec.fields import Address, Duration, OneOf, PlainText, Size, duration, size
from freehold.spec.section import Section, text
from freehold.spec.shapes import Listen


class QueueSpec(Section):
    """How much may wait for an engine, and how long."""

    max_requests: int = Field(default=512, ge=1, le=65536)
    """Requests of one model that may wait at once, 1 to 65536; one more is answered 503. Those that engines work on are not
    counted. Default 512: what Ollama queues by default (OLLAMA_MAX_QUEUE), and at one second each all that a client would
    wait for."""
    max_tokens: int = Field(default=1_000_000, ge=1, le=1_000_000_000)
    """Tokens (prompts as estimated, and the answers' `max_tokens`) of one model's requests that may wait at once beside the
    largest of them, 1 to 1000000000; past it a request is answered 503. Default 1000000: ten minutes of work at 1500
    tokens/s, far more than anybody waits, so that the wait is what counts."""
    max_wait: Annotated[float, Duration(least="100ms", most="10m")] = duration("20s")
    """How long a request may wait for an engine to have room, 100ms to 10m; what would have to wait longer is answered
    503 at once. Default 20s: long enough for a burst, and for a replica that is started again."""
    overload_wait: Annotated[float, Duration(least="100ms", most="10m")] = duration("1s")
    """The same while more requests come than can be answered, so that some must be refused in any case, 100ms to 10m.
    Default 1s: those that are not refused have their first token within about 2 s; a longer queue would serve no
    more of them, only later."""


class TimeoutsSpec(Section):
    """How long the gateway waits for whom. Every wait has an end."""

    header: Annotated[float, Duration(least="100ms", most="10m")] = duration("10s")
    """From the first byte of a request to the end of its headers, 100ms to 10m. Default 10s: three lost packets in a
    row cost 7 s (RFC 6298: 1 s, doubling), more is no working client."""
    body: Annotated[float, Duration(least="100ms", most="1h")] = duration("60s")
    """From the end of the headers to the end of the body, 100ms to 1h. Default 60s: the largest body allowed by
    default, 16 MiB, comes in that time over 2.3 Mbit/s."""
    idle: Annotated[float, Duration(least="1s", most="1h")] = duration("75s")
    """How long a client's connection may lie idle between requests, 1s to 1h. Default 75s, nginx's
    keepalive_timeout: longer than the 60 s after which common load balancers drop theirs, so they close first."""
    first_byte: Annotated[float, Duration(least="1s", most="24h")] = duration("600s")
    """How long an engine may take to begin its answer, 1s to 24h. Default 600s, what the OpenAI clients wait by
    default: a long prompt on a busy engine is slow, not dead."""
    between_bytes: Annotated[float, Duration(least="1s", most="24h")] = duration("600s")
    """How long an engine may fall silent inside an answer, 1s to 24h. Default 600s, for the same reason."""
    client_stall: Annotated[float, Duration(least="1s", most="1h")] = duration("60s")
    """How long a client may take nothing of an answer that waits for it, 1s to 1h. Default 60s, nginx's send_timeout:
    after that the connection is closed and the engine's slot is free again."""
    total: Annotated[float, Duration(least="1s", most="24h")] = duration("1h")
    """How long a request may take from its arrival to the end of its answer, 1s to 24h; the header
    `x-freehold-timeout` (seconds) can ask for less. Default 1h: no stream that a client reads takes longer, and a
    slot is not lost for good."""
    connect: Annotated[float, Duration(least="50ms", most="1m")] = duration("2s")
    """How long a connection to an engine may take, 50ms to 1m. Default 2s: engines are near, and one lost packet
    costs 1 s (RFC 6298)."""


class AccessLogSpec(Section):
    """A line per request that is over, never with a word of what was asked or answered (`freehold logs access`)."""

    enabled: bool = True
    """Whether there is one. Default true: without it, which request was slow and why cannot be found afterwards."""
    max_size: Annotated[int, Size(least="64KiB", most="1TiB")] = size("32MiB")
    """Size at which the file is put aside and a new one begun, 64KiB to 1TiB. Default 32MiB: some 100,000 requests."""
    keep: int = Field(default=3, ge=0, le=1000)
    """Files kept besides the present one, 0 to 1000; older ones are deleted. Default 3: with the default size 128 MiB
    in all, as for the other logs."""


class TlsSpec(Section):
    """TLS on the gateway's own listener."""

    certificate: PlainText = Field(examples=["/etc/freehold/tls/fullchain.pem"])
    """PEM file with the certificate and, after it, its intermediates; a relative path is beside this file. It is read again
    when it changes: new connections get the new one, open ones are not cut. No default: without it there is no TLS."""
    key: PlainText = Field(examples=["/etc/freehold/tls/privkey.pem"])
    """PEM file with the certificate's private key, without a passphrase. No default."""
    client_ca: PlainText = text(examples=["/etc/freehold/tls/clients-ca.pem"])
    """PEM file with the CA of client certificates. A client that shows one signed by it needs no API key: the certificate's
    common name is the id of the key whose caller it is. Default: none are asked for. Only with `auth: keys`."""


class GatewaySpec(Section):
    """The HTTP side: what clients connect to."""

    listen: Annotated[str, Address(hint="for example 127.0.0.1:8000 or [::1]:8000")] = Field(
        default="127.0.0.1:8000", examples=["127.0.0.1:8000", "[::1]:8000"]
    )
    """ADDRESS:PORT to listen on, an IP address or localhost; port 0 lets the kernel choose. Default 127.0.0.1:8000:
    only this machine can reach it, which is the one safe choice while `auth` is `none`; others need `auth: keys`."""
    workers: int = Field(default=1, ge=1, le=64)
    """Gateway processes that share the address, 1 to 64. Default 1: on one core that passes on some ten thousand chunks
    a second; more need a core each. What then holds exactly, and what nearly: docs/workers.md."""
    auth: Annotated[str, OneOf(values=("none", "keys"))] = "none"
    """Who may ask. `none`, the default: everybody who can connect, so only on a loopback address. `keys`: who has an
    API key that `freehold key create` made."""
    keys_file: PlainText = text(examples=["/etc/freehold/keys.json"])
    """Where the hashes of API keys are kept; a relative path is beside this file. Default: a file of this
    configuration's own in the user's configuration folder (`freehold key list` shows it), since keys must outlive the
    state folder, and stay out of version control. Only with `auth: keys`."""
    tls: TlsSpec | None = None
    """TLS 1.2 and 1.3 on this listener. Default: plain HTTP."""
    share_cache: Annotated[str, OneOf(values=("key", "all"))] = "key"
    """Whose prompts an engine's prefix cache may serve. `key`, the default: those of the same API key, since what is cached tells
    by time and by `cached_tokens` what others asked. `all`: everybody's. Only with `auth: keys`."""
    queue: QueueSpec = Field(default_factory=QueueSpec)
    """How much may wait for an engine, and how long."""
    max_body: Annotated[int, Size(least="1KiB", most="1GiB")] = size("16MiB")
    """Largest request body, 1KiB to 1GiB; a larger one is answered 413. Default 16MiB: four million tokens at four
    bytes each, or several pictures, and 512 of them that wait still fit in 8 GiB."""
    upload_memory: Annotated[int, Size(least="64KiB", most="1TiB")] = size("256MiB")
    """Memory for request bodies above 64 KiB that are still coming in, all together, 64KiB to 1TiB; more of them wait, as
    long as `queue.max_wait`. Of one API key half of it. Default 256MiB: sixteen of the largest at once, on the smallest
    machine that serves a model."""
    timeouts: TimeoutsSpec = Field(default_factory=TimeoutsSpec)
    """How long the gateway waits for whom."""
    drain_grace: Annotated[float, Duration(least="0s", most="24h")] = duration("30s")
    """How long streams may go on after the gateway was asked to stop, 0s to 24h. Default 30s, what Kubernetes gives a
    pod (terminationGracePeriodSeconds)."""

    access_log: AccessLogSpec = Field(default_factory=AccessLogSpec)
    """A line per request that is over."""

    @property
    def address(self) -> Listen:
        """Return `listen` in parts."""
        parts = shapes.parse_listen(self.listen)
        assert parts is not None, self.listen  # the field's own check let it in
        return parts
