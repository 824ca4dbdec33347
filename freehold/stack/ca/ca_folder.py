"""The folder of a CA: its keys, the file of each node, and which CAs are trusted. Everything in it is replaced whole.

There is no list of revoked certificates: they end soon instead. It copies nothing to a node and prints nothing.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.errors import Permanent, Temporary
from freehold.core.whole_file import replace_file
from freehold.stack.ca.certificates import Certificate, is_host, new_ca, new_node, read_certificate
from freehold.stack.ca.mutual_tls import check_private
from freehold.stack.folders import stack_name

DAY_S = 24 * 3600  # seconds
NODE_DAYS = 30
"""How long a node's certificate is good. Source: own choice: a stolen one is of use for at most a month, and renewing may fail for ten days
before something breaks."""
CA_DAYS = 3650
"""How long a CA is good. Source: own choice, ten years: longer than a machine. It can be replaced at any time."""
_CA_WINDOW_S = 365 * DAY_S
"""A CA is renewed in its last year. Source: own choice: longer than any node's certificate lives."""
_BACKDATED_S = 3600
"""How long before now a certificate begins, for nodes whose clock is behind. Source: Let's Encrypt does the same."""
CA_NAME = "freehold CA "
"""What the common name of a CA begins with."""
BUNDLE = "ca-bundle.pem"
"""The file with the certificates of the trusted CAs, for clients that are no node. It holds no secret."""
_LOCK_S = 10.0  # A change takes milliseconds.
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)
_BESIDE = "freehold ca init --beside makes a new CA, and the old one stays trusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedFile:
    """A file of the folder, and the certificate in it."""

    path: Path
    certificate: Certificate

    def is_due(self, now_s: float) -> bool:
        """Return whether it should be renewed: in the last third of its life, for a CA in its last year."""
        ends_s, life_s = self.certificate.ends_s, self.certificate.ends_s - self.certificate.starts_s
        return ends_s - now_s < min(life_s / 3, _CA_WINDOW_S)


def ca_folder_for(config_path: Path | None) -> Path:
    """Return the folder of a configuration's CA, in the XDG configuration directory."""
    return platformdirs.user_config_path("freehold", appauthor=False) / stack_name(config_path) / "ca"


class CaFolder:
    """`ca-N.pem`: the CAs, of which the newest signs. `nodes/NAME.pem`: key, certificate and trusted CAs of a node. `ca-bundle.pem`: the trusted CAs."""

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = path
        self._clock = clock

    def authorities(self) -> list[IssuedFile]:
        """Return the CAs, the newest first; empty if there is none. Raises Permanent if other users could read or write the folder or a file."""
        if self.path.exists():
            check_private(self.path)
        paths = [path for path in self.path.glob("ca-*.pem") if path.stem[3:].isdecimal()]
        return [_read(path) for path in sorted(paths, key=lambda path: -int(path.stem[3:]))]

    def nodes(self) -> list[IssuedFile]:
        """Return the nodes by name."""
        return [_read(path) for path in sorted(self.path.glob("nodes/[!.]*.pem"))]

    def init(self, *, beside: bool = False) -> IssuedFile:
        """Make a CA and return it. `beside`: there is one already. That one stays trusted, and nodes that know only it accept nodes of the new one."""
        with self._changing():
            older = self.authorities()
            if older and not beside:
                raise Permanent(f"there is a CA in {self.path} already", hint=_BESIDE)
            number = int(older[0].path.stem[3:]) + 1 if older else 1
            wanted = self._wanted(f"{CA_NAME}{secrets.token_hex(4)}", (), CA_DAYS)
            path = self.path / f"ca-{number}.pem"
            replace_file(path, new_ca(wanted, older[0].path.read_bytes() if older else b""))
            replace_file(self.path / BUNDLE, self._trusted()[1])
        return _read(path)

    def issue(self, name: str, hosts: Sequence[str] = ()) -> IssuedFile:
        """Write a node's file with a new key and return it. Without `hosts`, those of its file before. Raises Permanent if no CA can sign."""
        assert is_node_name(name), name
        assert all(map(is_host, hosts)), hosts
        path = self.path / "nodes" / f"{name}.pem"
        with self._changing():
            found = self.authorities()
            if not found:
                raise Permanent(f"there is no CA in {self.path}", hint="freehold ca init makes one")
            signer = found[0].certificate
            if signer.ends_s <= self._clock.wall_s():
                raise Permanent(f"the CA {found[0].path} has expired", hint=_BESIDE)
            before = _read(path).certificate.hosts if path.exists() and not hosts else hosts
            wanted = self._wanted(name, tuple(dict.fromkeys((name, *before))), NODE_DAYS)
            wanted = replace(wanted, ends_s=min(wanted.ends_s, signer.ends_s))
            crossed, trusted = self._trusted()
            replace_file(path, new_node(wanted, found[0].path.read_bytes()) + crossed + trusted)
            replace_file(self.path / BUNDLE, trusted)
        return _read(path)

    def _wanted(self, name: str, hosts: tuple[str, ...], days: int) -> Certificate:
        now_s = int(self._clock.wall_s())
        ends_s = now_s + days * DAY_S
        return Certificate(name=name, hosts=hosts, starts_s=now_s - _BACKDATED_S, ends_s=ends_s)

    def _trusted(self) -> tuple[bytes, bytes]:
        """Return the certificates that trusted CAs signed for newer ones, and their own, as PEM; a CA is trusted until it expires.

        In a chain they stand in this order: OpenSSL takes the first that fits.
        """
        pems = [pem for each in self.authorities() for pem in _PEM.findall(each.path.read_bytes())]
        read = {pem: read_certificate(pem) for pem in pems}
        own = {each.name: pem for pem, each in read.items() if each.signed_by == each.name}
        own = {name: pem for name, pem in own.items() if read[pem].ends_s > self._clock.wall_s()}
        crossed = [pem for pem, each in read.items() if each.signed_by in own and pem not in own.values()]
        return b"".join(crossed), b"".join(own.values())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make and check the folders, and keep other processes from changing them meanwhile."""
        try:
            for folder in (self.path, self.path / "nodes"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                check_private(folder)
            with FileLock(self.path / "lock", mode=0o600, timeout=_LOCK_S):
                yield
        except Timeout as exc:
            raise Temporary(f"another process holds {self.path}/lock") from exc
        except OSError as exc:
            raise Permanent(f"cannot write to {self.path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise Permanent(f"a CA in {self.path} is damaged: {exc}", hint="restore its file") from exc


def is_node_name(text: str) -> bool:
    """Return whether a node can have this name: a DNS name or IPv4 address of at most 64 characters (RFC 5280, ub-common-name)."""
    return is_host(text) and ":" not in text and len(text) <= 64


def _read(path: Path) -> IssuedFile:
    check_private(path)
    try:
        return IssuedFile(path=path, certificate=read_certificate(path.read_bytes()))
    except (OSError, ValueError) as exc:
        raise Permanent(f"{path} is damaged: {exc}", hint="restore it, or delete it") from exc
