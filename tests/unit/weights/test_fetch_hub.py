from pathlib import Path

import httpx2
import pytest
from huggingface_hub import errors

from freehold.core.errors import Permanent, Temporary
from freehold.weights.fetch_hub import _explained, install_command
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


@pytest.mark.parametrize(
    ("marker", "text", "command"),
    [
        ("pipx_metadata.json", "{}", "pipx inject freehold huggingface_hub"),
        ("uv-receipt.toml", "", "uv tool install --with huggingface_hub freehold"),
        (
            "pyvenv.cfg",
            "home = /usr/bin\nuv = 0.9.1\n",
            "uv pip install --python {}/bin/python huggingface_hub",
        ),
        ("pyvenv.cfg", "home = /usr/bin\n", "{}/bin/python -m pip install huggingface_hub"),
    ],
)
def test_the_command_that_adds_the_client_fits_how_freehold_was_installed(
    tmp_path: Path, marker: str, text: str, command: str
) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / marker).write_text(text)
    python = tmp_path / "bin" / "python"
    assert install_command(tmp_path, python) == command.format(tmp_path)
