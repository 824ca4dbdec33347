"""TLS on the gateway's listener, with real handshakes: versions, renewal under a stream, client certificates."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Client, ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, Held, chunk, delta
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Ca:
    """A CA of one test, and the certificates that it signs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.certificate = folder, folder / "ca.pem"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(folder / "ca.key"), "-days", "2",
                "-out", str(self.certificate), "-subj", "/CN=ca",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip

    def issue(self, name: str) -> tuple[str, str]:
        """Return the files of a certificate for 127.0.0.1 with this common name, and of its key."""
        made = [str(self.folder / f"{name}.{end}") for end in ("pem", "key", "csr", "ext")]
        Path(made[3]).write_text("subjectAltName=IP:127.0.0.1")
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", made[1], "-out", made[2], "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", made[2], "-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"),
                "-CAcreateserial", "-days", "1", "-out", made[0], "-extfile", made[3])  # fmt: skip
        return made[0], made[1]


class TlsClient(Client):
    """A connection that speaks TLS with a gateway, and trusts one CA."""

    def __init__(
        self, port: int, ca: Ca, shown: tuple[str, str] | None = None, *, newest: bool = True
    ) -> None:
        super().__init__(port)
        context = ssl.create_default_context(cafile=str(ca.certificate))
        if shown is not None:
            context.load_cert_chain(*shown)
        if not newest:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        plain = self.socket
        self.socket: ssl.SSLSocket = context.wrap_socket(plain, server_hostname="127.0.0.1")

    @property
    def serial(self) -> str:
        """Return the serial number of the certificate that the gateway showed."""
        shown = self.socket.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


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
    with running(folder, [model("m", the_engine)], tls=tls, **the_keys.settings) as gateway:
        yield gateway


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
        assert client.ask(ask()).status == 401


def test_no_certificate_needs_a_key(gateway: Gateway, engine: Engine, ca: Ca, the_keys: Keys):
    with TlsClient(gateway.port, ca) as client:
        assert client.ask(ask(extra=the_keys.bearer("anna"))).status == 200
        assert client.ask(ask()).status == 401


def first_byte(port: int, ca: Ca, shown: tuple[str, str]) -> bytes:
    """Return the first byte of an answer; empty: the connection ended first, be it by an alert, a reset or a bare end."""
    try:
        with TlsClient(port, ca, shown) as client:
            client.send(ask())
            return client.socket.recv(1)
    except OSError:
        return b""


def test_a_certificate_of_another_ca_is_answered_nothing(
    gateway: Gateway, engine: Engine, ca: Ca, tmp_path: Path
):
    assert first_byte(gateway.port, ca, ca.issue("id-anna")) == b"H"
    assert first_byte(gateway.port, ca, Ca(tmp_path / "theirs").issue("id-anna")) == b""


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
        for new, old in zip(ca.issue("gateway-2"), served, strict=True):
            shutil.copy(new, old)
        wait_until(lambda: gateway.logged("tls_files_loaded"), timeout_s=10)
        with TlsClient(gateway.port, ca) as other:
            assert other.serial != before
            assert other.ask(get("/livez")).status == 200
        held.release()
        assert b"[DONE]" in b"".join(iter(client.read_chunk, b""))
