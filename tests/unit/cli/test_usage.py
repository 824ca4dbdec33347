"""What `freehold usage` says of rows and gaps; the sums themselves are the ledger's."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from freehold.cli.serve.usage import command
from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.storage.key_store import KeyStore
from freehold.ledger.journal import JOURNAL_NAME, Journal
from freehold.ledger.records.reconcile import EngineReading
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome

DAY_US = 86_400_000_000


def record(seq: int, **more: object) -> LedgerRecord:
    facts = {
        "run": 1, "seq": seq, "time_us": 20_781 * DAY_US, "request_id": "r", "key_id": "key-0a", "model": "m",
        "path": "/p", "endpoint": "m-0", "status": 200, "outcome": Outcome.COMPLETE, "basis": Basis.MEASURED,
        "stream": True, "prompt_tokens": 10, "completion_tokens": 5,
    }  # fmt: skip
    return LedgerRecord(**(facts | more))


def shown(tmp_path: Path, *arguments: str) -> str:
    ran = CliRunner().invoke(command, ["--state-dir", str(tmp_path), *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a ledger with a continued answer of 100 tokens: 40 of m-1, which died, and 60 of m-0, which finished it."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "freehold.yaml").write_text(
        "version: 1\ngateway: {auth: keys, keys_file: keys.json}\n"
        'models: [{name: m, engine: external, endpoints: ["http://h:1"]}]\n'
    )
    key = KeyRecord(id="key-0a", name="team search", hash="0" * 64, created_s=1)
    KeyStore(tmp_path / "keys.json").change(lambda _: (key,))
    journal = Journal(tmp_path / JOURNAL_NAME)
    journal.add(
        [
            record(1, completion_tokens=100),
            record(2, endpoint="m-1", key_id="key-0b", completion_tokens=60),
            record(3, outcome=Outcome.FAILED, status=400, basis=Basis.NONE, completion_tokens=None),
        ],
        [EngineReading("m-0", 1, 20_781, 61, 1), EngineReading("m-1", 1, 20_781, 101, 1)],
    )
    journal.close()
    return tmp_path


def test_a_gap_below_zero_is_explained_and_the_total_holds_both(ledger: Path) -> None:
    lines = shown(ledger).splitlines()
    at = lines.index(next(line for line in lines if line.startswith("engine")))
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["m-0", "61", "100", "-39", "(-63.9%)"],
        ["m-1", "101", "60", "41", "(40.6%)"],
        ["total", "162", "160", "2", "(1.2%)"],
    ]
    rest = " ".join(" ".join(lines[at + 4 :]).split())
    assert (
        "an answer that another replica continued is recorded whole with the replica that finished it" in rest
    )


def test_a_clients_mistake_is_rejected_and_not_failed(ledger: Path) -> None:
    heads, row, *_ = shown(ledger).splitlines()
    assert heads.split()[1:4] == ["requests", "complete", "rejected"]
    assert row.split()[1:4] == ["3", "2", "1"]


def test_keys_are_named(ledger: Path) -> None:
    by_key = shown(ledger, "--by", "key").splitlines()
    assert by_key[1].startswith("team search (key-0a) ")
    assert by_key[2].startswith("key-0b ")
    rows = json.loads(shown(ledger, "--by", "key", "--json"))["usage"]
    assert [(row["key"], row["key_name"]) for row in rows] == [("key-0a", "team search"), ("key-0b", None)]
    assert shown(ledger, "--by", "key", "--csv").splitlines()[1].startswith("key-0a,2,")


def test_ids_are_shown_where_the_configuration_is_broken(ledger: Path) -> None:
    (ledger / "freehold.yaml").write_text("version: [")
    assert shown(ledger, "--by", "key").splitlines()[1].startswith("key-0a ")


def test_a_narrow_terminal_breaks_no_word(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = shown(ledger, "--by", "key").split()
    monkeypatch.setenv("COLUMNS", "40")
    narrow = shown(ledger, "--by", "key")
    assert max(map(len, narrow.splitlines())) <= 40
    assert set(wide) - {"key", "engine"} <= set(narrow.split())  # a block has no head for its name
