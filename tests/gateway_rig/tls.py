"""A CA made by openssl, its certificates, and a client that speaks TLS."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway_rig.client import Client

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


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

    def issue(self, name: str, *, extensions: str = "subjectAltName=IP:127.0.0.1,IP:::1") -> tuple[str, str]:
        """Return the files of a certificate for the loopback with this common name, and of its key."""
        made = [str(self.folder / f"{name}.{end}") for end in ("pem", "key", "csr", "ext")]
        Path(made[3]).write_text(extensions)
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", made[1], "-out", made[2], "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", made[2], "-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"),
                "-CAcreateserial", "-days", "1", "-out", made[0], "-extfile", made[3])  # fmt: skip
        return made[0], made[1]


class TlsClient(Client):
    """A connection that speaks TLS with a gateway, and trusts one CA."""

    def __init__(
        self,
        port: int,
        ca: Ca,
        shown: tuple[str, str] | None = None,
        *,
        newest: bool = True,
        name: str = "127.0.0.1",
        host: str = "127.0.0.1",
    ) -> None:
        """Connect and agree on TLS; `shown` is the client's own certificate with its key."""
        super().__init__(port, host=host)
        context = ssl.create_default_context(cafile=str(ca.certificate))
        if shown is not None:
            context.load_cert_chain(*shown)
        if not newest:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        plain = self.socket
        self.socket: ssl.SSLSocket = context.wrap_socket(plain, server_hostname=name)

    @property
    def serial(self) -> str:
        """Return the serial number of the certificate that the gateway showed."""
        shown = self.socket.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])
