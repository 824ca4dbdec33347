"""The ledger of a whole stack: as many tokens as the engines counted, read while it runs, when it is down, and after a kill."""

import contextlib
import json
import re
import sqlite3
import threading
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from e2e.box import EXAMPLE, Box, Stack, http, replica_http
from freehold.ledger.spool import spool_folder
from waiting import wait_until

MODEL = "smollm2-135m"


def usage(box: Box, *flags: str) -> Any:
    ran = box.run("usage", "--json", *flags)
    assert ran.code == 0, ran
    return ran.said


def counted(replica: dict[str, Any], name: str) -> int:
    page = replica_http(replica["url"]).get("/metrics").text
    return int(float(re.findall(rf"^llamacpp:{name} (\S+)$", page, re.MULTILINE)[0]))


def ask_everything(url: str) -> int:
    """Send requests of every kind, some at once, and return how many."""
    with http() as transport, openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=transport) as api:

        def chat(index: int) -> None:
            said: Any = [{"role": "user", "content": f"Count to {index}."}]
            stream = bool(index % 2)
            answer = api.chat.completions.create(
                model=MODEL, messages=said, max_tokens=4 + index, stream=stream
            )
            if stream:
                assert [chunk.choices for chunk in answer]  # type: ignore[union-attr]

        threads = [threading.Thread(target=chat, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        list(api.completions.create(model=MODEL, prompt="One, two,", max_tokens=5, stream=True))
        list(api.completions.create(model=MODEL, prompt="Once upon", max_tokens=5, stream=True, n=2))
        whole = api.completions.create(model=MODEL, prompt="Once upon", max_tokens=5, n=2)
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 5
        said = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 3,
            "stream": True,
        }
        assert transport.post(f"{url}/v1/messages", json=said).status_code == 200
        assert transport.post(f"{url}/v1/messages", json=said | {"stream": False}).status_code == 200
        assert api.responses.create(model=MODEL, input="hi", max_output_tokens=16).usage is not None
    return 14


@pytest.mark.timeout(180)
def test_the_ledger_has_every_token_that_the_engines_made(box: Box, weights_path: Path) -> None:
    with box.foreground("--config", str(EXAMPLE)) as stack:
        before = {r["id"]: (counted(r, "tokens_predicted_total"), prompts(r)) for r in stack.replicas()}
        count = ask_everything(stack.url)
        after = {r["id"]: (counted(r, "tokens_predicted_total"), prompts(r)) for r in stack.replicas()}
        rows = usage(box, "--by", "endpoint")["usage"]
        assert sum(row["requests"] for row in rows) == sum(row["complete"] for row in rows) == count
        assert [row["unknown"] + row["estimated_tokens"] + row["lost"] for row in rows] == [0] * len(rows)
        for row in rows:
            (made, read), (made_before, read_before) = after[row["endpoint"]], before[row["endpoint"]]
            assert row["completion_tokens"] == made - made_before
            assert row["prompt_tokens"] == read - read_before
        made = {name: counts[0] for name, counts in after.items()}
        wait_until(lambda: engines(usage(box)) == made, timeout_s=30, what="the engines' counters to be read")
        whole = usage(box)
        assert stack.end() == 0
    down = usage(box)
    assert down["usage"] == whole["usage"]
    gaps = {row["endpoint"]: row["gap_tokens"] for row in down["engines"]}
    # What the engines made before anybody asked: the completions by which they were found ready.
    assert gaps == {name: counts[0] for name, counts in before.items()}
    assert not spool_folder(box.home / "state").exists()
    assert "smollm2-135m" in box.run("usage", "--by", "model,day").out
    table = box.run("usage", "--csv").out.splitlines()
    assert table[0].startswith("model,requests,complete")
    assert table[1].startswith(f"{MODEL},{count},{count},0,0,0,")


def engines(said: Any) -> dict[str, int]:
    return {row["endpoint"]: row["engine_tokens"] for row in said["engines"]}


def prompts(replica: dict[str, Any]) -> int:
    return counted(replica, "prompt_tokens_total") + counted(replica, "prompt_tokens_cached_total")


def ask_fake(stack: Stack) -> None:
    said = {"model": "fake", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 2}
    assert http().post(f"{stack.url}/v1/chat/completions", json=said).status_code == 200


def test_all_killed_at_once_and_started_again(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        ask_fake(stack)
        for process in box.living():
            with contextlib.suppress(psutil.NoSuchProcess):  # an engine goes with its minder
                process.kill()
        stack.process.wait(10)
    wait_until(lambda: not box.living(), what="the end of all")
    assert usage(box)["usage"][0]["requests"] == 1, "read where it lies, although nobody has drained it"
    with box.foreground() as stack:
        ask_fake(stack)
        assert usage(box)["usage"][0]["requests"] == 2
        stack.end()
    assert usage(box)["usage"][0] | {"cached_tokens": 0} == {
        "model": "fake", "requests": 2, "complete": 2, "interrupted": 0, "failed": 0, "rejected": 0, "unknown": 0,
        "prompt_tokens": 6, "cached_tokens": 0, "completion_tokens": 4, "estimated_tokens": 0, "lost": 0,
        "priced": 0, "cost_unknown": 0, "cost_usd": None,
    }  # fmt: skip


def test_a_locked_ledger_file_slows_no_request_and_is_seen_in_health(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        ask_fake(stack)
        path = box.home / "state" / "ledger.sqlite"
        wait_until(path.exists, what="the ledger")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            for _ in range(20):
                ask_fake(stack)
            told = wait_until(lambda: waits(stack), timeout_s=20, what="health to say it")
            assert told["spool_bytes"] > 0
            assert "locked" in told["error"]
            assert usage(box)["usage"][0]["requests"] == 21, "what waits in the spool is shown too"
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        wait_until(lambda: ledger(stack)["status"] == "ok", timeout_s=20, what="the ledger to catch up")
        stack.end()
    assert usage(box)["usage"][0]["requests"] == 21


def ledger(stack: Stack) -> Any:
    return http().get(f"{stack.url}/health").json()["ledger"]


def waits(stack: Stack) -> Any:
    told = ledger(stack)
    return told if told["status"] == "behind" else None


def test_usage_says_what_is_wrong_with_a_question(box: Box) -> None:
    ran = box.run("usage", "--json", "--since", "yesterday", "--by", "modle")
    assert ran.code == 2
    told = json.loads(ran.out)["problems"]
    assert [problem["where"] for problem in told] == ["--since", "--by"]
    assert "model" in told[1]["hint"]


def test_nothing_was_ever_recorded(box: Box) -> None:
    ran = box.run("usage")
    assert (ran.code, ran.out) == (0, "nothing was recorded in that time\n")
    assert usage(box, "--since", "7d", "--until", "2030-01-01T10:00Z") == {"usage": [], "engines": []}
