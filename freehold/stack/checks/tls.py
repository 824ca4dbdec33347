"""The check of `freehold doctor` for `gateway.tls`: whether its files can be used. It deliberately opens no connection."""

from collections.abc import Iterator

from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.config import Config
from freehold.stack.resolve import tls_problems, tls_settings


def tls_checks(config: Config) -> Iterator[Check]:
    """Yield one check; nothing without `gateway.tls`."""
    tls = tls_settings(config)
    if tls is None:
        return
    for problem in tls_problems(config):
        yield Check("tls", CheckResult.PROBLEM, f"{problem.where}: {problem.message}", problem.hint)
        return
    yield Check("tls", CheckResult.GOOD, f"{tls.certificate} and its key can be used")
