"""TLS on the gateway's listener, with real handshakes: versions, renewal under a stream, client certificates."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from freehold.gateway.server.authenticate import Authenticator, ClientCertificate
from freehold.gateway.settings import Settings, TlsSettings
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Request
from gateway_rig.client import Client, ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, Held, chunk, delta
from gateway_rig.keys import APPLIED_S, Keys
from gateway_rig.process import Gateway, model, running
from gateway_rig.tls import Ca, TlsClient, needs_openssl
from gateway_rig.workers import working
from waiting import wait_until

pytestmark = needs_openssl


class HeldStream(Held):
    """A stream whose end an engine keeps back until it is told."""

    async def answer(self, call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await self.go_on.wait()
        call.send(b"".join(map(chunk, (delta("b"), delta("", "stop"), b"data: [DONE]\n\n"))) + b"0\r\n\r\n")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca") / "ours")


@pytest.fixture(scope="module")
def served(ca: Ca, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Give the files that the gateway reads: copies, since a test renews them."""
    folder = tmp_path_factory.mktemp("served")
    return tuple(shutil.copy(file, folder) for file in ca.issue("gateway"))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def the_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.add("anna")
    keys.add("gone", expires_s=2)
    return keys


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine,
    ca: Ca,
    served: tuple[str, str],
    the_keys: Keys,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    tls = {"certificate": served[0], "key": served[1], "client_ca": str(ca.certificate)}
    folder = tmp_path_factory.mktemp("gateway")
    with running(
        folder,
        [model("m", the_engine)],
        new_client=lambda port: TlsClient(port, ca),
        metrics_open=True,
        tls=tls,
        **the_keys.settings,
    ) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


@pytest.mark.parametrize(("newest", "version"), [(True, "TLSv1.3"), (False, "TLSv1.2")])
def test_a_request_is_answered_over_tls(
    gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys, *, newest: bool, version: str
):
    with TlsClient(gateway.port, ca, newest=newest) as client:
        assert client.socket.version() == version
        assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200


def test_plain_http_is_not_answered_and_harms_nobody(
    gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys
):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    with TlsClient(gateway.port, ca) as client:
        assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200


def test_a_rejected_request_gets_its_answer_and_the_connection_ends(gateway: Gateway, ca: Ca):
    with TlsClient(gateway.port, ca) as client:
        client.send(b"GET / HTTP/9.9\r\n\r\n")
        assert client.read_answer().status in {400, 505}
        assert client.socket.recv(1) == b""


def test_a_client_certificate_stands_for_its_key(gateway: Gateway, engine: Engine, ca: Ca):
    with TlsClient(gateway.port, ca, ca.issue("id-anna")) as client:
        assert client.ask(ask()).status == 200
        assert client.ask(ask()).status == 200  # behind a known head
        assert client.ask(ask(extra="Authorization: Bearer fh-wrong\r\n")).status == 401


@pytest.mark.parametrize("name", ["id-nobody", "id-gone", "anna"])
def test_a_certificate_of_no_accepted_key_is_none(gateway: Gateway, engine: Engine, ca: Ca, name: str):
    with TlsClient(gateway.port, ca, ca.issue(name)) as client:
        for _ in range(2):  # the second one behind a known head
            answer = client.ask(ask())
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
            assert answer.error["message"] == "The certificate's name is not an active API key."
        wrong = client.ask(ask(extra="Authorization: Bearer fh-wrong\r\n"))
        assert wrong.error["message"] == "Incorrect API key provided."


def test_a_certificate_that_expired_on_an_open_connection_says_so(the_keys: Keys):
    async def rejection() -> Rejection | None:
        authenticator = Authenticator(Settings(**the_keys.settings), end_requests=lambda _: None)
        request = Request()
        request.url = b"/v1/models"
        return authenticator.identify(request, ClientCertificate("id-anna", ends_s=1.0))

    found = asyncio.run(rejection())
    assert found is not None
    assert found.error.message == "The client certificate has expired."


def test_no_certificate_needs_a_key(gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys):
    with TlsClient(gateway.port, ca) as client:
        assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        assert client.ask(ask()).status == 401


def first_byte(port: int, ca: Ca, shown: tuple[str, str], *, newest: bool = True) -> bytes:
    """Return the first byte that answers a client with this certificate; TLS 1.3 rejects one only after its handshake."""
    with TlsClient(port, ca, shown, newest=newest) as client:
        client.send(ask())
        return client.socket.recv(1)


@pytest.mark.parametrize("newest", [True, False])
def test_a_certificate_of_another_ca_is_rejected_with_an_alert(
    gateway: Gateway, engine: Engine, ca: Ca, tmp_path: Path, *, newest: bool
):
    theirs = Ca(tmp_path / "theirs").issue("id-anna")
    before = gateway.metric("freehold_gateway_tls_failed_total")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert unknown ca"):
        first_byte(gateway.port, ca, theirs, newest=newest)
    assert not engine.received
    wait_until(lambda: gateway.metric("freehold_gateway_tls_failed_total") == before + 1)


def test_a_certificate_for_a_server_is_nobodys(gateway: Gateway, engine: Engine, ca: Ca):
    shown = ca.issue("id-anna", extensions="extendedKeyUsage=serverAuth")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        first_byte(gateway.port, ca, shown)
    assert not engine.received


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_an_old_version_is_rejected_with_an_alert(gateway: Gateway, ca: Ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("data", [b"\x17\x03\x03\x00\x20" + b"x" * 32, b"\x16\x03\x01\xff\xff", b"GET /"])
def test_garbage_on_an_agreed_connection_ends_it(gateway: Gateway, engine: Engine, ca: Ca, data: bytes):
    """The records below TLS are broken, as on a bad line or by an attacker."""
    with TlsClient(gateway.port, ca) as client:
        below = socket.socket(fileno=client.socket.detach())
        below.settimeout(10)
        with below:
            below.sendall(data)
            below.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while below.recv(65536):
                    pass
    assert gateway.client().ask(get("/livez")).status == 200


def test_half_handshakes_keep_no_caller_out(
    engine: Engine, ca: Ca, served: tuple[str, str], the_keys: Keys, tmp_path: Path
):
    """Connections that never agree on TLS count as keyless from the start: the oldest leave for newer ones."""
    patch = "import freehold.gateway.server.descriptors as files; files.CONNECTIONS_MAX = 40"
    tls = {"certificate": served[0], "key": served[1]}
    with (
        running(
            tmp_path,
            [model("m", engine)],
            patch=patch,
            new_client=lambda port: TlsClient(port, ca),
            tls=tls,
            **the_keys.settings,
        ) as gateway,
        contextlib.ExitStack() as stack,
    ):
        anna = stack.enter_context(gateway.client())
        assert anna.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        for number in range(120):
            filler = stack.enter_context(Client(gateway.port))
            if number % 2:
                filler.send(b"\x16\x03\x01\x02\x00\x01")  # of a ClientHello
        newcomer = stack.enter_context(gateway.client())
        assert newcomer.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        assert anna.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        assert gateway.metric("freehold_gateway_connections") <= 13  # a quarter of 40, and three with a key
        assert gateway.metric("freehold_gateway_keyless_evicted_total") >= 105


def test_a_handshake_has_the_time_of_a_head_and_ends_with_the_gateway(
    ca: Ca, served: tuple[str, str], tmp_path: Path
):
    tls = {"certificate": served[0], "key": served[1]}
    with running(tmp_path, [], new_client=lambda port: TlsClient(port, ca), tls=tls, header_s=1.0) as gateway:
        with Client(gateway.port) as slow:
            assert slow.ended()
        with Client(gateway.port) as open_still:
            wait_until(lambda: gateway.metric("freehold_gateway_connections") == 2)
            gateway.terminate()
            assert open_still.ended()


def test_several_workers_renew_their_certificate(engine: Engine, ca: Ca, the_keys: Keys, tmp_path: Path):
    served = tuple(shutil.copy(file, tmp_path) for file in ca.issue("gateway-3"))
    with (
        working(
            tmp_path,
            engine,
            new_client=lambda port: TlsClient(port, ca),
            tls=TlsSettings(certificate=served[0], key=served[1]),
            **the_keys.settings,
        ) as workers,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(TlsClient(workers.port, ca)) for _ in range(8)]
        for client in clients:
            assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        before = {client.serial for client in clients}
        wait_until(lambda: all(workers.served()))
        for new, old in zip(ca.issue("gateway-4"), served, strict=True):
            shutil.copy(new, old)
        wait_until(lambda: len(workers.logged("tls_files_loaded")) >= 2, timeout_s=10)
        renewed = [stack.enter_context(TlsClient(workers.port, ca)) for _ in range(8)]
        assert before.isdisjoint({client.serial for client in renewed})
        for client in (*clients, *renewed):
            assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200


def test_one_certificate_names_several_hosts(ca: Ca, tmp_path: Path):
    """Each client checks the name that it asked for (SNI, RFC 6066, 3); another name gets the same certificate, and the client leaves."""
    files = ca.issue("several", extensions="subjectAltName=DNS:a.example,DNS:*.b.example")
    tls = {"certificate": files[0], "key": files[1]}
    with running(
        tmp_path, [], new_client=lambda port: TlsClient(port, ca, name="a.example"), tls=tls
    ) as gateway:
        for name in ("a.example", "x.b.example"):
            with TlsClient(gateway.port, ca, name=name) as client:
                assert client.ask(get("/livez")).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            TlsClient(gateway.port, ca, name="c.example")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port of 127.0.0.1 where nothing listens, and nothing else can while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("listen", ["[::1]:{port}", "[::]:0"])
@pytest.mark.parametrize("secure", [False, True])
def test_it_listens_on_ipv6(
    engine: Engine,
    ca: Ca,
    served: tuple[str, str],
    the_keys: Keys,
    tmp_path: Path,
    closed_port: int,
    *,
    listen: str,
    secure: bool,
):
    listen = listen.format(port=closed_port)

    def client(port: int, host: str = "::1") -> Client:
        return TlsClient(port, ca, host=host, name=host) if secure else Client(port, host=host)

    tls = {"certificate": served[0], "key": served[1]} if secure else None
    with running(
        tmp_path, [model("m", engine)], listen=listen, new_client=client, tls=tls, **the_keys.settings
    ) as gateway:
        address = gateway.logged("listening")[0]["address"]
        assert address == f"http{'s' * secure}://{listen.rpartition(':')[0]}:{gateway.port}"
        with client(gateway.port) as six:
            assert six.ask(ask(extra=the_keys.bearer("anna"))).status == 200
            assert six.ask(ask(stream=True, extra=the_keys.bearer("anna"))).status == 200
            assert six.ask(ask()).status == 401
        if listen == "[::]:0":
            with client(gateway.port, "127.0.0.1") as four:
                assert four.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        else:
            with pytest.raises(ConnectionRefusedError):
                client(gateway.port, "127.0.0.1")


def test_a_revoked_key_ends_the_requests_of_its_certificate(
    gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys
):
    the_keys.add("bert")
    shown = ca.issue("id-bert")
    HeldStream(engine)
    with TlsClient(gateway.port, ca, shown) as client, TlsClient(gateway.port, ca, shown) as idle:
        wait_until(lambda: idle.ask(get("/v1/models")).status == 200)
        client.send(ask(stream=True))
        assert client.read_head().status == 200
        assert b'"a"' in client.read_chunk()
        the_keys.change("bert", revoked_s=1, ends_requests=True)
        began_s = time.monotonic()
        rest = b"".join(iter(client.read_chunk, b""))
        assert b"revoked" in rest
        assert b"[DONE]" not in rest
        assert time.monotonic() - began_s < APPLIED_S + 1.0  # and a loaded machine's second
        answer = idle.ask(ask())
        assert (answer.status, "not an active API key" in answer.error["message"]) == (401, True)


def test_a_renewed_certificate_is_shown_without_a_cut_stream(
    gateway: Gateway, engine: Engine, ca: Ca, served: tuple[str, str], the_keys: Keys
):
    held = HeldStream(engine)
    with TlsClient(gateway.port, ca) as client:
        before = client.serial
        client.send(ask(stream=True, extra=the_keys.bearer("anna")))
        assert client.read_head().status == 200
        assert b'"a"' in client.read_chunk()  # so it is under way
        Path(served[1]).write_text("half of a renewal")
        wait_until(lambda: gateway.logged("tls_files_unusable"), timeout_s=10)
        with TlsClient(gateway.port, ca) as other:
            assert other.serial == before
            health = other.ask(get("/health")).json
            assert health["status"] == "degraded"
            assert "last good ones stay in use" in health["tls"]["trouble"]
            assert served[1] not in health["tls"]["trouble"]  # it is answered without a key
            assert other.ask(get("/readyz")).status == 200
        for new, old in zip(ca.issue("gateway-2"), served, strict=True):
            shutil.copy(new, old)
        wait_until(lambda: gateway.logged("tls_files_loaded"), timeout_s=10)
        with TlsClient(gateway.port, ca) as other:
            assert other.serial != before
            health = other.ask(get("/health")).json
            assert (health["status"], health["tls"]) == ("ok", {"trouble": None})
        held.release()
        assert b"[DONE]" in b"".join(iter(client.read_chunk, b""))


def test_a_client_of_a_removed_ca_is_rejected_and_its_open_stream_is_not_cut(
    engine: Engine, ca: Ca, the_keys: Keys, tmp_path: Path
):
    """Also with a session that it agreed on before: RFC 8446 4.2.11 would let it skip the certificate."""
    old, new = (Ca(tmp_path / name) for name in ("old", "new"))
    certificate, key = ca.issue("gateway-3")
    clients = shutil.copy(old.certificate, tmp_path / "clients.pem")
    before, after = (each.issue("id-anna") for each in (old, new))
    context = ssl.create_default_context(cafile=str(ca.certificate))
    context.load_cert_chain(*before)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there with the handshake
    tls = {"certificate": certificate, "key": key, "client_ca": str(clients)}
    with running(tmp_path, [model("m", engine)], new_client=lambda port: TlsClient(port, ca), metrics_open=True,
                 tls=tls, **the_keys.settings) as gateway:  # fmt: skip
        at = ("127.0.0.1", gateway.port)
        with context.wrap_socket(socket.create_connection(at), server_hostname=at[0]) as first:
            session = first.session
        with context.wrap_socket(
            socket.create_connection(at), server_hostname=at[0], session=session
        ) as again:
            assert again.session_reused
        held = HeldStream(engine)
        with TlsClient(gateway.port, ca, before) as client:
            client.send(ask(stream=True))
            assert client.read_head().status == 200
            assert b'"a"' in client.read_chunk()  # so it is under way
            shutil.copy(new.certificate, clients)
            wait_until(lambda: gateway.logged("tls_files_loaded"), timeout_s=10)
            with pytest.raises(ssl.SSLError, match=r"(?i)alert unknown ca"):
                first_byte(gateway.port, ca, before)
            with pytest.raises(ssl.SSLError, match=r"(?i)alert unknown ca"):
                context.wrap_socket(socket.create_connection(at), server_hostname=at[0], session=session)
            with TlsClient(gateway.port, ca, after) as other:
                assert other.ask(get("/v1/models")).status == 200
            held.release()
            assert b"[DONE]" in b"".join(iter(client.read_chunk, b""))


def test_an_idle_connection_holds_little_memory(gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys):
    """`-s` prints how much: docs/gateway.md, TLS. Half of them have been served once."""
    context, count = ssl.create_default_context(cafile=str(ca.certificate)), 400
    with contextlib.ExitStack() as stack:
        before = psutil.Process(gateway.process.pid).memory_info().rss
        for number in range(count):
            plain = socket.create_connection(("127.0.0.1", gateway.port))
            client = stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            if number % 2:
                client.sendall(ask(extra=the_keys.bearer("anna")))
                assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        each = (psutil.Process(gateway.process.pid).memory_info().rss - before) / count
        print(f"{each / 1024:.0f} KiB for each idle TLS connection")
        assert each < 100 * 1024
