import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.weights.fetch_https import redirect_mistake, retry_after, status_error, transport_error

URL = "https://host/m.gguf?sig=secret"


def answer(status: int, **headers: str):
    return httpx2.Response(status, headers=headers, request=httpx2.Request("GET", URL))


@pytest.mark.parametrize(
    ("start", "hop", "words"),
    [
        (URL, "http://127.0.0.1/m", "from https to plain http"),
        (URL, "https://127.0.0.1:8000/m", "this machine itself"),
        (URL, "https://LOCALHOST./m", "this machine itself"),
        (URL, "https://a.localhost/m", "this machine itself"),
        (URL, "https://[::1]/m", "this machine itself"),
        (URL, "https://[::ffff:127.0.0.1]/m", "this machine itself"),
        (URL, "https://0.0.0.0/m", "this machine itself"),
        (URL, "https://2130706433/m", "this machine itself"),
        (URL, "https://127.1/m", "this machine itself"),
        (URL, "https://169.254.169.254/m", "this machine's link"),
        (URL, "https://[fe80::1]/m", "this machine's link"),
        ("http://127.0.0.1:1/m", "https://169.254.169.254/m", "this machine's link"),
        (URL, "http://cdn.example/m", "plain http"),
    ],
)
def test_a_redirect_nearer_than_the_fetch_began_is_refused(start: str, hop: str, words: str) -> None:
    assert words in (redirect_mistake(start, hop) or "")


@pytest.mark.parametrize(
    ("start", "hop"),
    [
        (URL, "https://cdn.example/m"),
        (URL, "https://10.0.0.5/m"),
        ("http://127.0.0.1:1/m", "http://127.0.0.2:2/m"),
        ("http://127.0.0.1:1/m", "https://cdn.example/m"),
        ("https://169.254.1.1/m", "https://169.254.1.2/m"),
    ],
)
def test_other_redirects_are_followed(start: str, hop: str) -> None:
    assert redirect_mistake(start, hop) is None


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_these_pass_by_themselves(status: int) -> None:
    assert isinstance(status_error(answer(status)), Temporary)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501, 505])
def test_these_do_not(status: int) -> None:
    error = status_error(answer(status))
    assert isinstance(error, Permanent)
    assert error.hint
    assert str(status) in error.message


def test_the_query_of_a_signed_link_is_never_told() -> None:
    assert "secret" not in status_error(answer(403)).message


def test_retry_after_is_a_number_or_a_date() -> None:
    error = status_error(answer(503, **{"Retry-After": "7"}))
    assert isinstance(error, Temporary)
    assert error.retry_after_s == 7
    soon_s = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert soon_s is not None
    assert 80 < soon_s <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("") is None
    assert retry_after("-5") is None
    assert retry_after("soon") is None


def test_only_a_certificate_is_no_matter_of_time() -> None:
    assert isinstance(transport_error(httpx2.ConnectError("refused"), "x"), Temporary)
    failed = httpx2.ConnectError("tls")
    failed.__cause__ = ssl.SSLCertVerificationError("self-signed")
    assert isinstance(transport_error(failed, "x"), Permanent)
