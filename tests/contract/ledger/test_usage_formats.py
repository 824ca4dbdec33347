"""Usage files of others: each kind is recognised, read to the token, and whatever is wrong with it is said with its place."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.ledger.files.usage_files import FORMAT_NAMES, FORMATS, ReadUsage, read_usage
from freehold.ledger.journal import JOURNAL_NAME, Journal
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome
from freehold.sizing.fleet.traffic import Traffic
from gateway_rig.spoiling import fuzz, spoil

FILES = Path(__file__).parent / "usage_files"
NOW_S = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
OCT_1_S = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
HOUR = int(OCT_1_S // 3600)


def read(*names: str, **more: float | str) -> ReadUsage:
    return read_usage([FILES / name for name in names], now_s=NOW_S, **more)


def traffic(*names: str, **more: float | str) -> Traffic:
    found = read(*names, **more)
    assert found.problems == ()
    assert found.traffic is not None
    return found.traffic


def sums(found: Traffic) -> tuple[int, int, int, int]:
    return tuple(
        sum(getattr(hour, name) for hour in found.hours)
        for name in ("requests", "input_tokens", "cached_tokens", "output_tokens")
    )


def bad(found: Traffic) -> list[tuple[str, str]]:
    return [(row.where.rpartition("/")[2], row.reason) for row in found.bad_rows]


def test_every_example_is_recognised_as_what_it_is():
    found = {path.name: read_usage(path, now_s=NOW_S).format for path in sorted(FILES.iterdir())}
    assert found == {
        "access_log.jsonl": "access_log",
        "litellm.csv": "litellm",
        "litellm.json": "litellm",
        "litellm.jsonl": "litellm",
        "openai_costs.csv": "openai_usage",
        "openai_costs.json": "openai_usage",
        "openai_usage_days.csv": "openai_usage",
        "openai_usage_hours.json": "openai_usage",
        "responses.jsonl": "access_log",
    }


def test_a_format_is_called_as_its_file():
    room = Path(__file__).resolve().parents[3] / "freehold" / "ledger"
    files = {path.stem for folder in ("foreign", "files") for path in (room / folder).glob("*.py")}
    assert files >= {*FORMAT_NAMES}
    assert len({*FORMAT_NAMES}) == len(FORMATS) + 1


def test_openai_buckets_of_an_hour():
    found = traffic("openai_usage_hours.json")
    assert sums(found) == (10, 1800, 400, 200)
    assert [(hour.hour - HOUR, hour.input_tokens) for hour in found.hours] == [(0, 1500), (1, 0), (2, 300)]
    assert found.by_model == (("gpt-a", 1450.0), ("gpt-b", 550.0))
    assert bad(found) == [("openai_usage_hours.json[2]", "input_tokens is negative")]
    assert found.bad_rows_total == 1
    assert found.rows_total == 6
    # three hours are covered, the quiet one included
    assert found.input_tokens_per_month == pytest.approx(1800 * 730 / 3)
    assert found.cached_share == pytest.approx(400 / 1800)
    assert found.batch_share == pytest.approx(550 / 2000)
    assert found.input_tokens_per_request == pytest.approx(180)
    assert any("1 row was left out: no text completions" in text for text in found.assumed)
    assert any("announces more pages" in text for text in found.assumed)


def test_openai_days_leave_the_hours_unknown():
    found = traffic("openai_usage_days.csv")
    assert sums(found) == (15, 66000, 5760, 27000)
    assert bad(found) == [("openai_usage_days.csv:5", "num_model_requests is not a whole number")]
    assert found.input_tokens_per_month == pytest.approx(66000 * 730 / 72)
    assert any("Only whole days are known" in text for text in found.assumed)
    assert found.peak_over_mean >= 2.5


def test_openai_costs_go_with_the_usage():
    found = traffic("openai_usage_days.csv", "openai_costs.csv")
    assert found.paid_usd_per_month == pytest.approx(3.0 * 730 / 48)
    assert ("openai_costs.csv:6", "amount is not in US dollars") in bad(found)
    assert traffic("openai_usage_days.csv").paid_usd_per_month is None
    assert read("openai_usage_days.csv", "openai_costs.json").traffic.paid_usd_per_month == pytest.approx(
        0.06 * 730 / 24
    )


@pytest.mark.parametrize("name", ["openai_costs.csv", "openai_costs.json"])
def test_openai_costs_alone_say_nothing_about_tokens(name: str):
    found = read(name)
    assert found.traffic is None
    assert [problem.message for problem in found.problems] == ["has what was paid and no tokens"]


def test_days_and_hours_of_the_same_time_are_not_added():
    found = read("openai_usage_days.csv", "openai_usage_hours.json")
    assert found.traffic is None
    assert "the same 3 hours" in found.problems[0].message


def test_litellm_csv():
    found = traffic("litellm.csv")
    assert sums(found) == (3, 1700, 600, 170)
    assert [(hour.hour - HOUR, hour.input_tokens) for hour in found.hours] == [(0, 1500), (1, 0), (2, 200)]
    assert bad(found) == [
        ("litellm.csv:4", "a row like it came before"),
        ("litellm.csv:8", "prompt_tokens is negative"),
        ("litellm.csv:9", "startTime is not a readable time"),
        ("litellm.csv:10", "completion_tokens is not a whole number"),
        ("litellm.csv:11", "it lies in the future"),
        ("litellm.csv:14", "6 cells where the header has 14"),
        ("litellm.csv:15", "4 cells where the header has 14: the last line is cut off"),
    ]
    assert found.rows_total == 13
    for reason in ("answered from LiteLLM's own cache", "failed", "no text is generated"):
        assert any(f"1 row was left out: {reason}" in text for text in found.assumed)
    # from 00:10:00.123 to 02:10 are two hours
    assert found.input_tokens_per_month == pytest.approx(1700 * 730 / 2, rel=1e-4)
    assert found.paid_usd_per_month == pytest.approx(0.006 * 730 / 2, rel=1e-4)


def test_litellm_json_and_json_lines():
    for name, cached in (("litellm.json", 1000), ("litellm.jsonl", 0)):
        found = traffic(name)
        assert sums(found) == (2, 4000, cached, 400)
        assert found.bad_rows_total == 1
        assert found.input_tokens_per_month == pytest.approx(4000 * 730 / 2)
        assert found.paid_usd_per_month == pytest.approx(0.04 * 730 / 2)
    assert bad(traffic("litellm.json")) == [("litellm.json[1]", "completion_tokens is not a number")]
    assert bad(traffic("litellm.jsonl")) == [("litellm.jsonl:2", "no JSON")]
    assert any("a cache held is not known" in text for text in traffic("litellm.jsonl").assumed)


def test_the_access_log_of_freehold():
    found = traffic("access_log.jsonl")
    assert sums(found) == (2, 200, 0, 100)
    assert bad(found) == [("access_log.jsonl:4", "it was answered, and its tokens are not known")]
    assert any("2 rows were left out: no model answered" in text for text in found.assumed)
    assert any("1 row was left out: no text is generated" in text for text in found.assumed)
    assert found.by_model == (("smol", 300.0),)


def test_answers_of_several_apis():
    found = traffic("responses.jsonl")
    assert sums(found) == (4, 800, 180, 100)
    assert bad(found) == [
        ("responses.jsonl:5", "it has no usage"),
        ("responses.jsonl:6", "a row like it came before"),
    ]
    assert found.batch_share == pytest.approx(445 / 900)
    assert found.by_model[0] == ("gpt-a", 795.0)
    assert any("of 1 of 4 requests a cache held" in text for text in found.assumed)


def test_the_same_bytes_in_other_dress_say_the_same(tmp_path: Path):
    plain = traffic("litellm.csv")
    data = (FILES / "litellm.csv").read_bytes()
    text = data.decode()
    dresses = {
        "gzip": gzip.compress(data),
        "bom": b"\xef\xbb\xbf" + data,
        "crlf": text.replace("\n", "\r\n").encode(),
        "utf-16": text.encode("utf-16"),
        "latin": data.replace(b"gpt-b", b"gpt-\xfc"),
    }
    for name, dressed in dresses.items():
        path = tmp_path / name
        path.write_bytes(dressed)
        found = read_usage(path, now_s=NOW_S).traffic
        assert found is not None
        assert (sums(found), found.bad_rows_total) == (sums(plain), plain.bad_rows_total), name
        assert [row.reason for row in found.bad_rows] == [row.reason for row in plain.bad_rows]


def test_cut_gzip_gives_what_it_holds_and_says_so(tmp_path: Path):
    path = tmp_path / "log.gz"
    lines = [{"created": OCT_1_S + i, "id": f"{i * 7919:x}", "usage": {"prompt_tokens": i % 97, "completion_tokens": 1}}
             for i in range(20_000)]  # fmt: skip
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode())[:-3000])
    found = read_usage(path, now_s=NOW_S).traffic
    assert found is not None
    assert 100 < found.rows_total < 20_000
    assert "gzip data is damaged or cut off" in found.bad_rows[-1].reason


def test_time_that_is_asked_for_is_the_time_that_counts():
    found = traffic("litellm.csv", since_s=OCT_1_S + 1800, until_s=OCT_1_S + 7200)
    assert sums(found) == (1, 500, 0, 50)
    # the file goes on on both sides, so all of the time is covered
    assert found.input_tokens_per_month == pytest.approx(500 * 730 / 1.5)
    none = read("litellm.csv", since_s=OCT_1_S - 7200, until_s=OCT_1_S - 3600)
    assert none.traffic is None
    assert "no usage in the time" in none.problems[0].message


def test_a_file_that_is_given_twice_counts_once(tmp_path: Path):
    copy = tmp_path / "copy.csv"
    copy.write_bytes((FILES / "litellm.csv").read_bytes())
    assert sums(traffic("litellm.csv", "litellm.csv")) == sums(traffic("litellm.csv"))
    both = read_usage([FILES / "litellm.csv", copy], now_s=NOW_S).traffic
    assert both is not None
    assert sums(both) == sums(traffic("litellm.csv"))
    assert both.bad_rows_total == 2 * 7 + 3  # its three good rows came before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("nothing", b"", "is empty"),
        ("other.csv", b"name,colour\nx,red\n", "it has 'colour', 'name'"),
        ("zip", b"PK\x03\x04rest", "is a ZIP archive"),
        (
            "header.csv",
            b"request_id,call_type,startTime,prompt_tokens,completion_tokens,spend\n",
            "has no rows",
        ),
        (
            "bad.csv",
            b"request_id,startTime,prompt_tokens,completion_tokens\na,never,1,1\n",
            "none of its 1 rows",
        ),
        ("sqlite", b"SQLite format 3\x00" + bytes(200), "is not a readable ledger"),
        ("empty.json", b'{"object":"page","data":[],"has_more":false}', "no columns or keys"),
    ],
)
def test_what_cannot_be_read_is_a_problem_in_words(tmp_path: Path, name: str, data: bytes, message: str):
    path = tmp_path / name
    path.write_bytes(data)
    found = read_usage(path, now_s=NOW_S)
    assert found.traffic is None
    assert [problem.where for problem in found.problems] == [str(path)]
    assert message in found.problems[0].message


def test_an_unknown_file_is_told_what_was_looked_for(tmp_path: Path):
    path = tmp_path / "other.csv"
    path.write_text("name,colour\nx,red\n")
    hint = read_usage(path, now_s=NOW_S).problems[0].hint
    assert all(name in hint for name in FORMAT_NAMES)


def test_all_problems_come_at_once(tmp_path: Path):
    found = read_usage([tmp_path / "missing", tmp_path, FILES / "litellm.csv", "a\0b"], now_s=NOW_S)
    assert found.traffic is None
    messages = [problem.message for problem in found.problems]
    assert messages == ["there is no such file", "is not a file with rows", "there is no such file"]


def test_a_format_can_be_forced():
    assert read("litellm.csv", format="litellm").format == "litellm"
    wrong = read("litellm.csv", format="openai_usage")
    assert "none of its 13 rows can be used (openai_usage)" in wrong.problems[0].message
    unknown = read("litellm.csv", format="litelm")
    assert unknown.problems[0].hint == "did you mean 'litellm'?"
    assert read("litellm.csv", format="own_ledger").problems[0].message == "is not a ledger of Freehold"


def record(seq: int, at_s: float, prompt: int | None, answer: int | None, **more: object) -> LedgerRecord:
    basis = Basis.MEASURED if prompt is not None else Basis.UNKNOWN
    return LedgerRecord(
        run=1, seq=seq, time_us=int(at_s * 1e6), request_id=f"r{seq}", key_id="k", model="smol", path="/v1/completions",
        endpoint="e", status=200, outcome=Outcome.COMPLETE, basis=basis, stream=False, prompt_tokens=prompt,
        cached_tokens=10 if prompt else None, completion_tokens=answer, cost_usd="0.001000000000" if prompt else "", **more,
    )  # fmt: skip


def ledger(folder: Path, *records: LedgerRecord) -> Path:
    journal = Journal(folder / JOURNAL_NAME)
    journal.add(records)
    journal.close()
    return folder / JOURNAL_NAME


def test_the_own_ledger_is_read_to_the_minute_and_left_as_it_is(tmp_path: Path):
    path = ledger(
        tmp_path,
        record(1, OCT_1_S + 600, 100, 20),
        record(2, OCT_1_S + 4000, 200, 30),
        record(3, OCT_1_S + 7790, 300, 50),
        record(4, OCT_1_S + 7700, None, None),
    )
    before = path.read_bytes()
    found = read_usage(path, now_s=NOW_S)
    assert found.format == "own_ledger"
    assert found.traffic is not None
    assert sums(found.traffic)[1:] == (600, 30, 100)
    # from 00:10 to 02:10
    assert found.traffic.input_tokens_per_month == pytest.approx(600 * 730 / 2)
    assert found.traffic.paid_usd_per_month == pytest.approx(0.003 * 730 / 2)
    assert any("1 requests whose tokens are partly known" in text for text in found.traffic.assumed)
    assert path.read_bytes() == before
    part = read_usage(path, now_s=NOW_S, since_s=OCT_1_S + 3900, until_s=OCT_1_S + 7500)
    assert part.traffic is not None
    assert sums(part.traffic)[1:] == (200, 10, 30)


BITS = st.sampled_from(
    [b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"null", b"-1", b"1e999", b"9" * 5000, b"\xff", b"\0", b"NaN", b"true",
     b"[" * 3000, b'"data":[', b'{"a":' * 2000, b"\x1f\x8b", b"2026-10-25T02:30:00", b"9999-12-31T23:59:59-23:59", b"\xef\xbb\xbf"]
) | st.binary(max_size=8)  # fmt: skip
EXAMPLES = st.sampled_from([path.read_bytes() for path in sorted(FILES.iterdir())])


def check(path: Path, data: bytes, form: str = "") -> None:
    path.write_bytes(data)
    found = read_usage(path, now_s=NOW_S, format=form)
    assert (found.traffic is None) == bool(found.problems)
    if found.traffic is not None:
        assert found.traffic.tokens_per_month > 0
        assert found.traffic.peak_over_mean >= 1
        assert 0 <= found.traffic.cached_share <= 1
        assert len(found.traffic.bad_rows) == min(100, found.traffic.bad_rows_total)


@fuzz(300)
@given(whole=EXAMPLES, data=st.data())
def test_spoilt_files_are_read_or_refused_in_words(tmp_path: Path, whole: bytes, data: st.DataObject):
    check(tmp_path / "spoilt", data.draw(spoil(whole, BITS)))


@fuzz(300)
@given(data=st.binary(max_size=300), form=st.sampled_from(["", *FORMAT_NAMES]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path: Path, data: bytes, form: str):
    check(tmp_path / "any", data, form)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["True", "usd", "2026-10-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["usage", "prompt_tokens", "completion_tokens", "cached_tokens", "prompt_tokens_details", "input_tokens", "output_tokens",
         "created", "response", "body", "results", "start_time", "end_time", "amount", "value", "currency", "object",
         "num_model_requests", "additional_usage_values", "id"]), inner, max_size=5),
    max_leaves=10,
)  # fmt: skip
KEYS = st.sampled_from(
    ["startTime", "prompt_tokens", "completion_tokens", "spend", "metadata", "call_type", "cache_hit", "status", "model", "id",
     "request_id", "usage", "created", "response", "start_time", "end_time", "results", "at", "took_s", "path", "data", "object",
     "amount_value", "amount_currency", "input_tokens", "end", "attempts"]
)  # fmt: skip


@fuzz(300)
@given(
    records=st.lists(st.dictionaries(KEYS, VALUES, max_size=10), min_size=1, max_size=4),
    form=st.sampled_from([format_.name for format_ in FORMATS]),
)
def test_any_types_in_any_place_are_read_or_refused_in_words(tmp_path: Path, records: list[dict], form: str):
    check(tmp_path / "types.json", json.dumps(records).encode(), form)


@fuzz(60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 500 * 3600), st.integers(0, 5000), st.integers(0, 900), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_tokens_are_conserved(tmp_path: Path, rows: list[tuple[int, int, int, bool]]):
    path = tmp_path / "rows.csv"
    lines = ["request_id,startTime,prompt_tokens,completion_tokens"]
    lines += [
        f"{n},{OCT_1_S + at},{'x' if bad_ else prompt},{answer}"
        for n, (at, prompt, answer, bad_) in enumerate(rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    good = [row for row in rows if not row[3] and row[1] + row[2]]
    found = read_usage(path, now_s=NOW_S)
    if not good:
        assert found.traffic is None
        return
    assert found.traffic is not None
    assert sums(found.traffic) == (len(good), sum(row[1] for row in good), 0, sum(row[2] for row in good))
    assert found.traffic.bad_rows_total == sum(row[3] for row in rows)
    assert found.traffic.rows_total == len(rows)
    assert sum(tokens for _, tokens in found.traffic.by_model) == sum(row[1] + row[2] for row in good)


# What is missing from a file


def test_a_document_that_is_cut_off_anywhere_says_so(tmp_path: Path):
    bucket = {"object": "bucket", "start_time": OCT_1_S, "end_time": OCT_1_S + 3600, "results": [
        {"object": "organization.usage.completions.result", "input_tokens": 10, "output_tokens": 1, "num_model_requests": 1}
    ]}  # fmt: skip
    page = {"object": "page", "data": [bucket, bucket | {"start_time": OCT_1_S + 1800}], "next_page": "x]}y"}
    for value in (page, page["data"]):
        whole = json.dumps(value)
        path = tmp_path / "usage.json"
        path.write_text(whole)
        found = read_usage(path, now_s=NOW_S)
        assert found.traffic is not None
        assert found.traffic.bad_rows_total == 0
        for end in range(1, len(whole)):
            path.write_text(whole[:end])
            found = read_usage(path, now_s=NOW_S)
            assert found.problems or (found.traffic and found.traffic.bad_rows_total), whole[:end]


def test_only_times_without_a_zone_are_said_to_have_none(tmp_path: Path):
    def told(*times: str) -> bool:
        path = tmp_path / "log.jsonl"
        rows = [{"timestamp": time, "prompt_tokens": 5, "completion_tokens": 5} for time in times]
        path.write_text("\n".join(map(json.dumps, rows)))
        found = read_usage(path, now_s=NOW_S)
        assert found.traffic is not None
        return any("without a zone" in text for text in found.traffic.assumed)

    assert not told(
        "2026-10-01T00:00:00Z", "2026-10-01T02:00:00+02:00", "2026-10-01 02:00:00.5-0530", "1790812800"
    )
    assert told("2026-10-01T00:00:00Z", "2026-10-01T00:30:00")
    assert told("2026-10-01")


def test_gzip_that_is_no_gzip_says_so(tmp_path: Path):
    path = tmp_path / "usage.json.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00 nothing of the kind")
    (problem,) = read_usage(path, now_s=NOW_S).problems
    assert problem.message.startswith("the gzip data is damaged or cut off")
