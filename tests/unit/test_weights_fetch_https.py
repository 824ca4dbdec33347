import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.weights.fetch_https import retry_after, status_error, transport_error

URL = "https://host/m.gguf?sig=secret"


def answer(status: int, **headers: str):
    return httpx2.Response(status, headers=headers, request=httpx2.Request("GET", URL))


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
