"""`freehold bench` as a person runs it: on the real model for some seconds, and on engines whose speed is known."""

import hashlib
import json
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.box import FREEHOLD, Box, http

QUICK = ("--warm-up", "200ms", "--duration", "1500ms", "--runs", "2", "--answer-tokens", "8")
FAKE = ("--prompt-tokens", "30", "--slo-ttft", "5s", "--slo-itl", "1s")


@pytest.mark.timeout(150)
def test_the_quicker_setting_wins_and_goes_into_the_file(box: Box) -> None:
    path = box.fake_config(tokens_per_s=40, answer_tokens=64)
    path.write_text("# mine\n" + path.read_text().replace("replicas: 1", "replicas: 1 # one"))
    before = path.read_text()
    ran = box.run(
        *("bench", "--set", "fake.tokens_per_s=40,400", "--concurrency", "4", "--through", "both"),
        *("--out", "r.json", "--html", "r.html", "--apply", "--json", *QUICK, *FAKE),
        timeout_s=120,
    )
    assert ran.code == 0, ran
    told, applied = (json.loads(line) for line in ran.out.splitlines())
    assert told["choice"]["winner"]["id"] == "fake tokens_per_s=400.0"
    results = told["bench"]["results"]
    # 2 settings, 2 runs, directly and through the gateway.
    assert len(results) == 8
    assert {(each["run"], each["through"]) for each in results} == {
        (run, way) for run in (0, 1) for way in ("direct", "gateway")
    }
    for each in results:
        assert each["figures"]["whole"] == each["figures"]["requests"] > 0
        assert each["figures"]["wrong_length"] == 0
        assert each["resources"]["memory_peak_bytes"] > 0
        # Nothing on a machine without such counters is nought.
        assert each["resources"]["gpu_watts"] is None or each["resources"]["gpu_watts"] > 0
    assert applied["applied"]["changed"]
    after = path.read_text()
    assert after == before.replace("tokens_per_s: 40", "tokens_per_s: 400.0")
    assert Path(applied["applied"]["backup"]).read_text() == before
    assert (box.home / "r.html").read_text().count("<svg") == 3

    # The file is not the one that was benched any more.
    again = box.run("bench", "apply", "r.json", "--json")
    assert again.code == 2
    assert "changed since" in again.said["problems"][0]["message"]
    shown = box.run("bench", "show", "r.json", "--compare", "r.json")
    assert shown.code == 0
    assert "no difference" in shown.out
    compared = box.run("bench", "show", "r.json", "--compare", "r.json", "--json").said["compared"]
    assert {each["goodput"] for each in compared} == {"no difference"}
    box.assert_nothing_left()


def test_an_engine_that_does_not_start_is_told_and_the_other_measured(box: Box) -> None:
    box.fake_config(answer_tokens=64)
    ran = box.run(
        *("bench", "--set", "fake.exit_at_start=-1,5", "--concurrency", "2", "--out", "r.json", "--json"),
        *(*QUICK, *FAKE, "--runs", "1"),
        timeout_s=60,
    )
    assert ran.code == 3, ran
    failed = [each["failed"] for each in ran.said["bench"]["candidates"]]
    assert failed[0] == ""
    assert "told to end" in failed[1]
    assert ran.said["choice"]["winner"]["id"] == "fake exit_at_start=-1"
    box.assert_nothing_left()


def test_engines_that_never_start_leave_the_file_as_it_is(box: Box) -> None:
    path = box.fake_config(exit_at_start=5)
    before = path.read_text()
    ran = box.run(*("bench", "--concurrency", "2", "--out", "r.json", "--apply", *QUICK, *FAKE), timeout_s=60)
    assert ran.code == 3, ran
    assert "nothing is written into freehold.yaml: there is no winner to apply: no engine started" in ran.err
    assert "told to end" in ran.out
    assert path.read_text() == before
    assert json.loads((box.home / "r.json").read_text())["results"] == []
    assert box.run("bench", "apply", "r.json").code == 3
    box.assert_nothing_left()


def test_where_nobody_keeps_the_slo_nothing_is_written(box: Box) -> None:
    path = box.fake_config(first_token_s=0.1, answer_tokens=64)
    before = path.read_text()
    ran = box.run(
        *("bench", "--concurrency", "2", "--out", "r.json", "--apply", "--json", *QUICK, *FAKE),
        *("--slo-ttft", "50ms"),
        timeout_s=60,
    )
    assert ran.code == 3, ran
    told, applied = (json.loads(line) for line in ran.out.splitlines())
    assert told["choice"]["winner"] is None
    assert applied["applied"] is None
    assert "no engine kept the SLO" in applied["why"]
    assert path.read_text() == before


def test_two_that_tie_are_said_to_and_one_is_written(box: Box) -> None:
    path = box.fake_config(tokens_per_s=40, answer_tokens=64)
    ran = box.run(
        # The longest answer does not matter where each has 8 tokens: both settings give the same.
        *("bench", "--set", "fake.answer_tokens=64,128", "--concurrency", "4", "--out", "r.json", "--apply"),
        *(*QUICK, *FAKE, "--json"),
        timeout_s=60,
    )
    assert ran.code == 0, ran
    told, applied = (json.loads(line) for line in ran.out.splitlines())
    goodputs = [each["figures"]["goodput_tokens_per_s"] for each in told["bench"]["results"]]
    assert max(goodputs) < 1.5 * min(goodputs)
    tokens = told["choice"]["winner"]["options"]["answer_tokens"]
    assert f"answer_tokens: {tokens}" in path.read_text()
    assert applied["applied"]["winner"] == f"fake answer_tokens={tokens}"
    assert applied["applied"]["changed"] == (tokens == 128)


def test_the_winners_own_weights_go_into_the_file_and_are_served(box: Box) -> None:
    path = box.fake_config(tokens_per_s=0, answer_tokens=64)
    own = box.home / "models" / "other.bin"
    own.parent.mkdir()
    own.write_bytes(b"other weights")
    digits = hashlib.sha256(b"other weights").hexdigest()
    before = path.read_text()
    ran = box.run(
        *("bench", "--weights", "fake=models/other.bin", "--concurrency", "2", "--out", "r.json", "--apply"),
        *(*QUICK, *FAKE),
        timeout_s=60,
    )
    assert ran.code == 0, ran
    assert "+    source: file://models/other.bin" in ran.out
    changed = [
        new for old, new in zip(before.splitlines(), path.read_text().splitlines(), strict=True) if old != new
    ]
    assert changed == ["    source: file://models/other.bin", f'    sha256: "{digits}"']
    pulled = box.run("model", "pull", "--json").said["models"][0]
    assert (pulled["sha256"], pulled["error"]) == (digits, None)
    # The same once more: the model's own source brings these weights now, so nothing changes.
    again = box.run(
        *("bench", "--weights", "fake=models/other.bin", "--concurrency", "2", "--out", "s.json", "--apply"),
        *(*QUICK, *FAKE),
        timeout_s=60,
    )
    assert "has the winner already" in again.out


def test_what_was_measured_before_ctrl_c_is_kept(box: Box) -> None:
    path = box.fake_config(tokens_per_s=0, answer_tokens=64)
    before = path.read_text()
    flags = ("--concurrency", "1", "--warm-up", "0s", "--duration", "500ms", "--runs", "50", "--apply", *FAKE)
    process = subprocess.Popen(
        [FREEHOLD, "bench", "--out", "r.json", *flags],
        cwd=box.home,
        env=box.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(
        line.startswith("run 2: ") for line in process.stderr
    )  # the test's own timeout is the deadline
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "nothing is written into freehold.yaml: it ended before all was measured" in said
    made = json.loads((box.home / "r.json").read_text())
    assert made["interrupted"]
    assert 1 <= len(made["results"]) <= 3
    shown = box.run("bench", "show", "r.json")
    assert shown.code == 0
    assert "ended before" in shown.out
    refused = box.run("bench", "apply", "r.json")
    assert refused.code == 2
    assert "ended before all was measured" in refused.err
    assert path.read_text() == before
    box.assert_nothing_left()


def test_every_mistake_is_told_before_anything_starts(box: Box) -> None:
    box.fake_config()
    ran = box.run(
        *("bench", "--engines", "fake,llama", "--set", "fake.tokens=1", "--set", "x", "--shape", "nothing"),
        *("--rate", "0", "--runs", "x", "--through", "both ways", "--weights", "fake=/nowhere", "--json"),
    )
    assert ran.code == 2
    wheres = [each["where"] for each in ran.said["problems"]]
    assert wheres == ["--engines", "--set", "--set", "--weights", "--rate", "--runs", "--through", "--shape"]
    (box.home / "freehold.yaml").unlink()
    late = box.run("bench", "--out", "none/r.json", "--html", ".", "--apply", "--json")
    assert late.code == 2  # and not after hours of measuring
    assert [each["where"] for each in late.said["problems"]] == ["--out", "--html", "--apply"]
    same = box.run("bench", "--out", "r.json", "--html", "./r.json", "--json")
    assert "the same file as the results" in next(
        p["message"] for p in same.said["problems"] if p["where"] == "--html"
    )
    box.assert_nothing_left()


@pytest.mark.timeout(120)
def test_the_example_on_the_real_model(box: Box, weights_path: Path) -> None:
    ran = box.run(
        *("bench", "--prompt-tokens", "40", "--answer-tokens", "8", "--concurrency", "2", "--runs", "1"),
        *("--warm-up", "500ms", "--duration", "3s", "--slo-ttft", "30s", "--slo-itl", "5s"),
        # One compute thread: two that wait for each other on a machine with other work take a minute for a sentence.
        *("--set", "llama-cpp.n_threads=1", "--out", "r.json", "--json"),
        timeout_s=90,
    )
    assert ran.code == 0, ran
    (result,) = ran.said["bench"]["results"]
    assert result["figures"]["whole"] > 0
    assert result["figures"]["answer_tokens"] == 8
    assert result["figures"]["uncounted"] == 0
    assert 36 <= result["figures"]["prompt_tokens"] <= 44  # what was asked for, in this model's own tokens
    (candidate,) = ran.said["bench"]["candidates"]
    assert "--ctx-size" in candidate["argv"]
    assert candidate["versions"]
    assert candidate["weights_sha256"].startswith("b179c952")
    box.assert_nothing_left()
    refused = box.run("bench", "apply", "r.json")
    assert refused.code == 2
    assert "freehold init" in refused.err


def test_the_shape_that_the_ledger_recorded(box: Box) -> None:
    box.fake_config(answer_tokens=64, tokens_per_s=0)
    none = box.run("bench", "--shape", "own", "--json")
    assert none.code == 2
    assert "no ledger" in none.said["problems"][0]["message"]
    with box.foreground() as stack, http() as client:
        for count in (5, 9, 13):
            body = {
                "model": "fake",
                "messages": [{"role": "user", "content": "word " * 3 * count}],
                "max_tokens": count,
            }
            assert client.post(f"{stack.url}/v1/chat/completions", json=body).status_code == 200
        stack.end()
    ran = box.run(
        *("bench", "--shape", "own", "--concurrency", "2", "--out", "r.json", "--json", "--runs", "1"),
        *("--warm-up", "0s", "--duration", "1s", "--slo-ttft", "5s", "--slo-itl", "1s"),
        timeout_s=60,
    )
    assert ran.code == 0, ran
    assert ran.said["bench"]["conditions"]["shape"].startswith("3 recorded requests, medians 27 and 9 tokens")
    figures = ran.said["bench"]["results"][0]["figures"]
    assert figures["wrong_length"] == 0
    assert 5 <= figures["answer_tokens"] <= 13
