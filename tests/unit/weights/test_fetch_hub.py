import httpx2
import pytest
from huggingface_hub import errors

from freehold.core.errors import Permanent, Temporary
from freehold.weights.fetch_hub import _explained
from freehold.weights.source import HubSource

SOURCE = HubSource(repo="org/repo", revision="main", file="m.gguf")
REQUEST = httpx2.Request("HEAD", "https://hub/org/repo/resolve/main/m.gguf")


def absent(cause: Exception):
    error = errors.LocalEntryNotFoundError("an error happened while trying to locate the file")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (absent(httpx2.ConnectError("refused")), Temporary),
        (absent(httpx2.ReadTimeout("slow")), Temporary),
        (absent(errors.HfHubHTTPError("busy", response=httpx2.Response(503, request=REQUEST))), Temporary),
        (absent(errors.HfHubHTTPError("no", response=httpx2.Response(403, request=REQUEST))), Permanent),
        (absent(errors.OfflineModeIsEnabled("offline")), Permanent),
        (httpx2.ProxyError("proxy"), Temporary),
        (OSError("Consistency check failed"), Temporary),
        (errors.HFValidationError("bad name"), Permanent),
    ],
)
def test_the_librarys_words_become_ours(error: Exception, kind: type[Exception]) -> None:
    assert type(_explained(errors, error, SOURCE)) is kind


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a mistake of ours")])
def test_what_is_not_the_hubs_passes(error: Exception) -> None:
    assert _explained(errors, error, SOURCE) is None
