"""Files for TLS that cannot be used, or that others could have written: rejected, with what is wrong and what to do."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.core.errors import Permanent
from freehold.gateway.settings import TlsSettings
from freehold.gateway.storage.tls_files import server_context
from gateway_rig.tls import Ca, needs_openssl, openssl

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca") / "ours")


@pytest.mark.parametrize(
    ("file", "mode", "why"),
    [
        ("certificate", 0o664, "can be written by others"),
        ("key", 0o620, "can be written by others"),
        ("key", 0o604, "can be read by others"),
        ("client_ca", 0o666, "can be written by others"),
    ],
)
def test_files_that_others_could_have_written_are_rejected_and_a_key_that_they_can_read(
    ca: Ca, tmp_path: Path, file: str, mode: int, why: str
):
    tls = files_in(tmp_path, ca)
    server_context(tls)
    path = Path(getattr(tls, file))
    path.chmod(mode)
    with pytest.raises(Permanent, match=f"{file}.pem {why}") as rejected:
        server_context(tls)
    assert str(rejected.value.hint).endswith(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_belongs_to_the_gateways_user_or_to_root(ca: Ca, tmp_path: Path):
    tls = files_in(tmp_path, ca)
    Path(tls.key).chmod(0o640)
    server_context(tls)  # root's own, for a group: as Debian keeps its keys
    os.chown(tls.key, 12345, -1)
    with pytest.raises(Permanent, match="belongs to another user"):
        server_context(tls)


def test_a_folder_in_which_others_could_swap_a_file_is_rejected(ca: Ca, tmp_path: Path):
    tls = files_in(tmp_path, ca)
    tmp_path.chmod(0o777)
    with pytest.raises(Permanent, match=r"is in the folder .* can be written by others"):
        server_context(tls)


def spoil_nothing_there(tls: TlsSettings) -> None:
    Path(tls.key).unlink()


def spoil_folder(tls: TlsSettings) -> None:
    Path(tls.certificate).unlink()
    Path(tls.certificate).mkdir(mode=0o700)


def spoil_key_twice(tls: TlsSettings) -> None:
    shutil.copy(tls.key, tls.certificate)


def spoil_passphrase(tls: TlsSettings) -> None:
    openssl("pkey", "-in", tls.key, "-aes256", "-passout", "pass:secret", "-out", f"{tls.key}.new")
    Path(f"{tls.key}.new").replace(tls.key)


def spoil_half(tls: TlsSettings) -> None:
    Path(tls.certificate).write_bytes(Path(tls.certificate).read_bytes()[:400])


def spoil_other_key(tls: TlsSettings) -> None:
    openssl("genrsa", "-out", tls.key, "2048")


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (spoil_nothing_there, "cannot read {key}: No such file or directory", "namei -l {key}"),
        (spoil_folder, "{certificate} is not a regular file", "name a file in gateway.tls.certificate"),
        (spoil_key_twice, "{certificate} holds no certificate in PEM form", "grep BEGIN {certificate} shows"),
        (spoil_passphrase, "the key {key} has a passphrase", "openssl pkey -in {key} -out FILE"),
        (spoil_half, "cannot use {certificate} with {key}: damaged or cut off", "-pubkey -in {certificate};"),
        (spoil_other_key, "{key}: the key is that of another certificate", "openssl pkey -pubout -in {key}"),
    ],
)
def test_an_unusable_file_is_named_with_what_is_wrong_and_what_to_do(
    ca: Ca, tmp_path: Path, spoil: Callable[[TlsSettings], None], message: str, hint: str
):
    tls = files_in(tmp_path, ca)
    server_context(tls)
    spoil(tls)
    with pytest.raises(Permanent) as rejected:
        server_context(tls)
    paths = {"certificate": tls.certificate, "key": tls.key}
    assert message.format(**paths) in rejected.value.message
    assert hint.format(**paths) in str(rejected.value.hint)


def files_in(folder: Path, ca: Ca) -> TlsSettings:
    """Return files of names that say what they are."""
    paths = {"certificate": "", "key": "", "client_ca": ""}
    for name, file in zip(paths, (*ca.issue("gateway"), str(ca.certificate)), strict=True):
        paths[name] = str(shutil.copy(file, folder / f"{name}.pem"))
    return TlsSettings(**paths)
