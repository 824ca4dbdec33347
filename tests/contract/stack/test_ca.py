"""Certificates of the small CA in real TLS handshakes of both sides, and as OpenSSL's own program judges them."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.core.clock import SYSTEM_CLOCK, wall_s
from freehold.core.errors import FreeholdError, Permanent
from freehold.stack.ca.ca_folder import BUNDLE, CA_DAYS, DAY_S, NODE_DAYS, CaFolder
from freehold.stack.ca.mutual_tls import client_context, server_context

HOSTS = ("node-1.lan", "127.0.0.1", "::1")


@dataclass
class Ago:
    """The machine's clock, some days ago."""

    days: float

    monotonic_s = SYSTEM_CLOCK.monotonic_s

    def wall_s(self) -> float:
        return wall_s() - self.days * DAY_S


@pytest.fixture
def ca(tmp_path: Path) -> CaFolder:
    folder = CaFolder(tmp_path / "ca")
    folder.init()
    return folder


def node(ca: CaFolder, name: str = "node-1") -> Path:
    return ca.issue(name, HOSTS if name == "node-1" else ()).path


def names(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "node-1") -> tuple[str, str] | str:
    """Return the common name of each side as the other one saw it, once a byte has gone each way; or what each side reports."""
    ours, theirs = socket.socketpair()
    seen: list[str] = []
    failed: list[str] = []

    def serve() -> None:
        try:
            with ours, server.wrap_socket(ours, server_side=True) as tls:
                seen.append(common_name(tls))
                tls.send(tls.recv(1))
        except OSError as exc:
            failed.append(f"server: {exc}")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with theirs, client.wrap_socket(theirs, server_hostname=host) as tls:
            tls.send(b"x")
            assert tls.recv(1) == b"x"
            shown = common_name(tls)
    except OSError as exc:
        failed.append(f"client: {exc}")
    finally:
        theirs.close()
        thread.join(10)
    return ", ".join(failed) or (shown, seen[0])


def common_name(tls: ssl.SSLSocket) -> str:
    shown = tls.getpeercert()
    assert shown
    return str(shown["subject"][0][0][1])  # type: ignore[index]


def between(server: Path, client: Path, host: str = "node-1") -> tuple[str, str] | str:
    return names(server_context(server), client_context(client), host)


@pytest.mark.parametrize("host", ["node-1", *HOSTS])
def test_two_nodes_know_each_other(ca: CaFolder, host: str):
    assert between(node(ca), node(ca, "node-2"), host) == ("node-1", "node-2")


def test_a_server_under_another_name_is_rejected(ca: CaFolder):
    for host in ("node-2", "127.0.0.2", "::2", "lan"):
        assert "client: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(between(node(ca), node(ca, "node-2"), host))


def test_nodes_of_another_ca_are_rejected_by_both_sides(ca: CaFolder, tmp_path: Path):
    other = CaFolder(tmp_path / "other")
    other.init()
    mine, theirs = node(ca), node(other)
    assert "client: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(between(theirs, mine))
    fooled = client_context(theirs)
    fooled.load_verify_locations(ca.path / BUNDLE)  # so that only the server has something to reject
    assert "server: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(names(server_context(mine), fooled))


def test_a_client_without_a_certificate_is_rejected(ca: CaFolder):
    bare = ssl.create_default_context(cafile=ca.path / BUNDLE)
    assert "server: [SSL: PEER_DID_NOT_RETURN_A_CERTIFICATE]" in str(names(server_context(node(ca)), bare))


def test_only_the_newest_tls_is_spoken(ca: CaFolder):
    old = client_context(node(ca, "node-2"))
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "VERSION" in str(names(server_context(node(ca)), old))


def test_an_expired_certificate_is_rejected_by_both_sides(tmp_path: Path):
    before, now = (CaFolder(tmp_path / "ca", Ago(days)) for days in (NODE_DAYS + 1, 0))
    before.init()
    expired, good = node(before), node(now, "node-2")
    for said, who in ((between(expired, good), "client"), (between(good, expired, "node-2"), "server")):
        assert re.search(rf"{who}: .SSL: CERTIFICATE_VERIFY_FAILED. .*certificate has expired", str(said))
    assert between(node(now), good) == ("node-1", "node-2")


def test_a_renewal_keeps_the_hosts_and_changes_the_key(ca: CaFolder):
    before = node(ca).read_bytes()
    renewed = ca.issue("node-1")
    assert renewed.certificate.hosts == ("node-1", *HOSTS)
    after = renewed.path.read_bytes()
    assert before.partition(b"-----BEGIN CERT")[0] != after.partition(b"-----BEGIN CERT")[0]
    assert ca.issue("node-1", ["10.0.0.1"]).certificate.hosts == ("node-1", "10.0.0.1")


def test_during_a_changeover_everybody_knows_everybody(ca: CaFolder):
    nodes = [node(ca, "old")]
    for name in ("newer", "newest"):
        ca.init(beside=True)
        nodes.append(node(ca, name))
    assert len({each.certificate.signed_by for each in ca.nodes()}) == 3
    for server in nodes:
        for client in nodes:
            assert between(server, client, server.stem) == (server.stem, client.stem)


def test_after_a_changeover_the_old_ca_counts_for_nothing(ca: CaFolder):
    old = node(ca, "old")
    (first,) = ca.authorities()
    ca.init(beside=True)
    between_both = node(ca, "both")
    first.path.unlink()
    new = node(ca, "new")
    assert first.certificate.name.encode() not in (ca.path / BUNDLE).read_bytes()
    assert between(new, between_both, "new") == ("new", "both")
    assert "client: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(between(old, new, "old"))
    assert "client: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(between(new, old, "new"))


def test_a_ca_that_has_expired_signs_nothing_and_is_not_trusted(tmp_path: Path):
    CaFolder(tmp_path / "ca", Ago(CA_DAYS + 1)).init()
    now = CaFolder(tmp_path / "ca")
    with pytest.raises(Permanent, match="has expired"):
        now.issue("node-1")
    now.init(beside=True)
    assert (now.path / BUNDLE).read_bytes().count(b"BEGIN CERTIFICATE") == 1
    assert now.issue("node-1").path.read_bytes().count(b"BEGIN CERTIFICATE") == 2


def test_an_old_ca_may_expire_in_files_that_trust_both(tmp_path: Path):
    CaFolder(tmp_path / "ca", Ago(CA_DAYS + 1)).init()
    CaFolder(tmp_path / "ca", Ago(10)).init(beside=True)
    before, now = CaFolder(tmp_path / "ca", Ago(5)), CaFolder(tmp_path / "ca")
    server, client = node(before), node(before, "node-2")
    assert server.read_bytes().count(b"BEGIN CERTIFICATE") == 4
    assert between(server, client) == ("node-1", "node-2")
    renewed = node(now, "node-3")
    assert renewed.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert between(server, renewed) == ("node-1", "node-3")
    assert between(renewed, client, "node-3") == ("node-3", "node-2")


def test_no_certificate_outlives_its_ca(tmp_path: Path):
    CaFolder(tmp_path / "ca", Ago(CA_DAYS - 1)).init()
    now = CaFolder(tmp_path / "ca")
    assert now.issue("node-1").certificate.ends_s == now.authorities()[0].certificate.ends_s


@pytest.mark.parametrize(("days", "due"), [(0, False), (19, False), (21, True), (31, True)])
def test_a_certificate_is_due_in_its_last_third(tmp_path: Path, days: int, *, due: bool):
    before = CaFolder(tmp_path / "ca", Ago(days))
    made = before.init()
    assert before.issue("node-1").is_due(wall_s()) == due
    assert not made.is_due(wall_s())
    assert made.is_due(made.certificate.ends_s - 364 * DAY_S)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_a_node_for_both_purposes(ca: CaFolder, purpose: str):
    bundle, one = ca.path / BUNDLE, node(ca)
    alone = bundle.with_name("alone.pem")
    shutil.copy(bundle, alone)
    ca.init(beside=True)
    changed = node(ca, "node-2")
    for trusted, shown in ((bundle, one), (bundle, changed), (alone, one), (alone, changed)):
        said = verify(trusted, shown, "-purpose", purpose)
        assert said.returncode == 0, said
    assert verify(alone, changed, "-verify_hostname", "node-1").returncode != 0


def verify(trusted: Path, shown: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    argv = ["openssl", "verify", "-x509_strict", "-no-CApath", "-CAfile", trusted, "-untrusted", shown, *more]
    return subprocess.run([*map(str, argv), str(shown)], capture_output=True, text=True, check=False)


# The folder


def test_only_its_owner_can_read_it(ca: CaFolder):
    node(ca)
    for path in (ca.path, *ca.path.rglob("*")):
        assert path.lstat().st_mode & 0o7777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("inside", [".", "ca-1.pem", "nodes", "nodes/node-1.pem"])
@pytest.mark.parametrize("mode", [0o040, 0o020, 0o004, 0o002])
def test_what_others_can_read_or_write_is_not_used(ca: CaFolder, inside: str, mode: int):
    issued = node(ca)
    path = ca.path / inside
    path.chmod(path.stat().st_mode | mode)
    why = f"{path} can be (read|written) by others"
    with pytest.raises(Permanent, match=why) as failed:
        ca.issue("node-1")
    assert "chmod go-rwx" in failed.value.hint
    if path == issued:
        with pytest.raises(Permanent, match=why):
            server_context(issued)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("inside", [".", "ca-1.pem", "nodes"])
def test_what_belongs_to_another_user_is_not_used(ca: CaFolder, inside: str):
    os.chown(ca.path / inside, 1, 1)
    with pytest.raises(Permanent, match="belongs to another user"):
        ca.issue("node-1")


def test_a_link_in_place_of_a_key_is_not_used(ca: CaFolder, tmp_path: Path):
    key = ca.path / "ca-1.pem"
    key.rename(tmp_path / "moved.pem")
    key.symlink_to(tmp_path / "moved.pem")
    with pytest.raises(Permanent):
        ca.issue("node-1")


def test_damage_is_reported_with_its_file(ca: CaFolder):
    issued = node(ca)
    with pytest.raises(Permanent, match="there is a CA in"):
        ca.init()
    issued.write_bytes(issued.read_bytes()[:300])
    for reads in (ca.nodes, lambda: ca.issue("node-1"), lambda: client_context(issued)):
        with pytest.raises(FreeholdError, match=f"{issued} is damaged"):
            reads()
    key = ca.path / "ca-1.pem"
    key.write_bytes(key.read_bytes()[300:])
    with pytest.raises(FreeholdError, match="is damaged"):
        ca.issue("node-3")
