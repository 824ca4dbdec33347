"""The check of `freehold doctor` for `gateway.tls`: whether its files can be used, and how long. It deliberately opens no connection."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.stack.ca.ca_folder import CA_NAME, DAY_S, ca_folder_for
from freehold.stack.ca.certificates import Certificate, read_certificate
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.config import Config
from freehold.stack.resolve import tls_problems, tls_settings

LEFT_LEAST_S = 7 * DAY_S
"""A certificate that ends sooner is a warning. Source: own choice: a week to find out why a renewal failed."""


def tls_checks(config: Config) -> Iterator[Check]:
    """Yield one check; nothing without `gateway.tls`."""
    tls = tls_settings(config)
    if tls is None:
        return
    for problem in tls_problems(config):
        yield Check("tls", CheckResult.PROBLEM, f"{problem.where}: {problem.message}", problem.hint)
        return
    path = Path(tls.certificate)
    try:
        found = read_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        fix = f"`openssl x509 -noout -dates -in {path}` shows it"
        yield Check("tls", CheckResult.UNKNOWN, f"how long {path} is good could not be read: {exc}", fix)
    else:
        yield _end(path, found, _renewal(path, found, config))


def _end(path: Path, found: Certificate, renewal: str) -> Check:
    left_s = found.ends_s - wall_s()
    if wall_s() < found.starts_s:
        said = f"{path} is not good before {_date(found.starts_s)}, and clients reject it until then"
        fix = f"look whether this clock is right (`date -u`); if it is: {renewal}"
        return Check("tls", CheckResult.PROBLEM, said, fix)
    if left_s <= 0:
        said = f"{path} expired {_date(found.ends_s)}, and clients reject it"
        return Check("tls", CheckResult.PROBLEM, said, renewal)
    soon = CheckResult.WARNING if left_s < LEFT_LEAST_S else CheckResult.GOOD
    return Check("tls", soon, f"{path} ends {_date(found.ends_s)}, {left_s / DAY_S:.0f} days left", renewal)


def _renewal(path: Path, found: Certificate, config: Config) -> str:
    issue = f"`freehold ca issue {found.name}`"
    if path.resolve().is_relative_to(ca_folder_for(config.path).resolve()):
        how = f"run {issue}"
    elif found.signed_by.startswith(CA_NAME):
        how = f"run {issue} where its CA is, and copy the new file over this one"
    else:
        how = "renew it and replace the file"
    return f"{how}; the gateway reads it again by itself"


def _date(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
