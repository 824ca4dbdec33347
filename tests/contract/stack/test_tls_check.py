"""The TLS row of `freehold doctor`, for real files: whether they can be used, and how long the certificate is good."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from freehold.cli.main import cli
from freehold.core.clock import wall_s
from freehold.stack.ca.ca_folder import DAY_S, CaFolder, ca_folder_for
from freehold.stack.ca.certificates import Certificate, new_ca, new_node

Doctor = Callable[[Path, Path], tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Give what the doctor reports of a configuration with this certificate and key: its exit code and its checks."""
    monkeypatch.chdir(tmp_path)
    for name in ("FREEHOLD_STATE_DIR", "FREEHOLD_CACHE_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(certificate: Path, key: Path) -> tuple[int, list[dict[str, Any]]]:
        (tmp_path / "freehold.yaml").write_text(
            "version: 1\nmodels:\n  - {name: a, engine: external, endpoints: ['http://127.0.0.1:1']}\n"
            "health: {storage: {path: 'off'}}\n"
            f"gateway: {{listen: '127.0.0.1:0', tls: {{certificate: {certificate}, key: {key}}}}}\n"
        )
        result = CliRunner().invoke(cli, ("doctor", "--json"), standalone_mode=False)
        return result.return_value, json.loads(result.stdout.splitlines()[-1])["checks"]

    return run


def file_in(folder: Path, starts_d: float, ends_d: float, *, ca: str = "another CA") -> Path:
    """Write key and certificate that begin and end these days from now; return the file."""
    now_s = int(wall_s())
    starts_s, ends_s = now_s + int(starts_d * DAY_S), now_s + int(ends_d * DAY_S)
    signer = new_ca(Certificate(name=ca, hosts=(), starts_s=now_s, ends_s=now_s + DAY_S), b"")
    path = folder / "gateway.pem"
    path.write_bytes(
        new_node(Certificate(name="gateway", hosts=("llm.lan",), starts_s=starts_s, ends_s=ends_s), signer)
    )
    path.chmod(0o600)
    return path


def test_a_tls_file_that_cannot_be_used_is_a_row_of_its_own(doctor: Doctor, tmp_path: Path):
    code, checks = doctor(file_in(tmp_path, -1, 30), tmp_path / "nokey.pem")
    assert code == 3
    about = {check["name"]: check["found"] for check in checks if "nokey.pem" in check["said"]}
    assert about == {"tls": "problem"}


def row(found: tuple[int, list[dict[str, Any]]]) -> tuple[int, str, str, str]:
    """Return the exit code, and what the row for TLS has found, what it states, and what to do."""
    code, checks = found
    (tls,) = (check for check in checks if check["name"] == "tls")
    return code, tls["found"], tls["said"], tls["fix"]


@pytest.mark.parametrize(
    ("starts_d", "ends_d", "found", "words"),
    [
        (-30, -2, "problem", "expired"),
        (2, 30, "problem", "is not good before"),
        (-30, 6.9, "warning", "7 days left"),
        (-30, 7.9, "good", "8 days left"),
    ],
)
def test_how_long_the_certificate_is_good(
    doctor: Doctor, tmp_path: Path, starts_d: float, ends_d: float, found: str, words: str
):
    path = file_in(tmp_path, starts_d, ends_d)
    code, *(verdict, said, fix) = row(doctor(path, path))
    assert (verdict, words in said, str(path) in said) == (found, True, True)
    assert code == 3 or found != "problem"
    assert "renew it and replace the file; the gateway reads it again by itself" in fix


def test_a_certificate_of_freeholds_ca_is_renewed_by_a_command(doctor: Doctor, tmp_path: Path):
    copied = file_in(tmp_path, -30, 1, ca="freehold CA 12345678")
    assert "run `freehold ca issue gateway` where its CA is, and copy" in row(doctor(copied, copied))[3]
    folder = CaFolder(ca_folder_for(tmp_path / "freehold.yaml"))
    folder.init()
    own = folder.issue("gateway").path
    _, found, said, fix = row(doctor(own, own))
    assert (found, "30 days left" in said) == ("good", True)
    assert fix.startswith("run `freehold ca issue gateway`; the gateway reads it again")
