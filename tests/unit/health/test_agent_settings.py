"""The agent that runs by itself says what is wrong with its settings, and starts nothing."""

from pathlib import Path

import pytest

from freehold.health.agent.process import main


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"node": 3}', "$.node"),
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b"[" * 5000, "nest"),
        (None, "No such file"),
    ],
)
def test_settings_that_cannot_be_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes | None, words: str
) -> None:
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SystemExit) as ended:
        main(["--settings", str(path)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert str(path) in told
    assert "Traceback" not in told
    if words != "nest":
        assert words in told
