"""Keys from end to end: the command makes them, the running stack follows, the official client is let in or not."""

import json
import shutil
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from openai import AuthenticationError, DefaultHttpxClient, OpenAI, RateLimitError

from e2e.box import Box, Stack, http
from gateway_rig.tls import Ca, needs_openssl
from waiting import wait_until

HI: Any = [{"role": "user", "content": "hi"}]
KEYS = "gateway: {auth: keys, keys_file: keys.json}\n"
HOLDS_S = 2.0
"""A change holds within a second; the rest is for a loaded machine."""


def client(stack: Stack, key: str) -> OpenAI:
    port = urlsplit(stack.url).port
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=10)


def chat(client: OpenAI) -> str | None:
    return client.chat.completions.create(model="fake", messages=HI, max_tokens=5).choices[0].message.content


def is_let_in(client: OpenAI) -> bool:
    try:
        return bool(client.models.list().data)
    except AuthenticationError:
        return False


def test_a_stack_that_all_the_world_can_reach(box: Box):
    box.fake_config(more=KEYS)
    made = box.run("key", "create", "anna", "--json")
    anna_key = made.said["key"]
    with box.foreground("--listen", "0.0.0.0:0") as stack:
        assert urlsplit(stack.url).hostname == "0.0.0.0"
        anna = client(stack, anna_key)
        assert chat(anna)
        for wrong in ("fh-wrong", "sk-unused"):
            with pytest.raises(AuthenticationError):
                chat(client(stack, wrong))
        with http() as plain:  # over loopback, yet others could read them
            url = str(anna.base_url).removesuffix("/v1/")
            assert plain.get(f"{url}/metrics").status_code == 401
            assert plain.get(f"{url}/metrics", headers={"x-api-key": anna_key}).status_code == 200
            assert plain.get(f"{url}/health").json()["keys"] == {"active": 1, "trouble": None}
        assert not [words for words in box.command_lines() if anna_key in words]
        assert stack.end() == 0
    logs = "".join(path.read_text() for path in (box.home / "state").rglob("*.log"))
    assert "keys_loaded" in logs
    assert anna_key not in logs


@needs_openssl
def test_a_stack_with_tls_on_ipv6(box: Box, tmp_path: Path):
    ca = Ca(tmp_path / "ca")
    for name, file in zip(("certificate", "key"), ca.issue("gateway"), strict=True):
        shutil.copy(file, box.home / f"{name}.pem")
    tls = f"tls: {{certificate: certificate.pem, key: key.pem, client_ca: {ca.certificate}}}"
    box.fake_config(more=f"gateway: {{auth: keys, keys_file: keys.json, {tls}}}\n")
    made = box.run("key", "create", "anna", "--json").said
    with box.foreground("--listen", "[::]:0") as stack:
        assert stack.url.startswith("https://[::]:")
        trusting = ssl.create_default_context(cafile=str(ca.certificate))
        port = urlsplit(stack.url).port
        with DefaultHttpxClient(verify=trusting) as secure:
            anna = OpenAI(base_url=f"https://[::1]:{port}/v1", api_key=made["key"], http_client=secure)
            assert chat(anna)
        trusting.load_cert_chain(*ca.issue(made["id"]))
        with httpx2.Client(verify=trusting, trust_env=False) as shown:
            assert shown.get(f"https://127.0.0.1:{port}/v1/models").status_code == 200
        assert stack.end() == 0


@needs_openssl
def test_up_rejects_a_key_of_tls_that_others_can_read(box: Box, tmp_path: Path):
    certificate, key = Ca(tmp_path / "ca").issue("gateway")
    Path(key).chmod(0o644)
    box.fake_config(more=f"gateway: {{tls: {{certificate: {certificate}, key: {key}}}}}\n")
    told = box.run("up", "--listen", "127.0.0.1:0")
    assert told.code == 2
    assert f"{key} can be read by others" in told.err
    assert f"chmod 600 {key}" in told.err


def test_up_warns_of_plain_http_and_shows_three_ways_out(box: Box):
    box.fake_config(more=KEYS)
    box.run("key", "create", "anna")
    with box.starting("--listen", "0.0.0.0:0") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(4)]
        assert "WARNING: 0.0.0.0:0 is plain HTTP" in lines[0]
        for words, line in zip(("gateway.tls", "examples/03-web-server", "ssh -L"), lines[1:], strict=True):
            assert words in line


def test_a_running_stack_follows_the_command(box: Box):
    box.fake_config(more=KEYS)
    with box.foreground() as stack:
        made = box.run("key", "create", "carl", "--rpm", "2", "--json").said
        carl = client(stack, made["key"])
        wait_until(lambda: is_let_in(carl), timeout_s=HOLDS_S)
        assert chat(carl)
        assert chat(carl)
        with pytest.raises(RateLimitError) as limit:
            chat(carl)
        assert 0 < int(limit.value.response.headers["retry-after"]) <= 30
        box.run("key", "revoke", "carl")
        wait_until(lambda: not is_let_in(carl), timeout_s=HOLDS_S)
        assert stack.end() == 0


def spent(budgets: Path) -> int:
    """Return what the file has of all keys; its first save may come before the answer's tokens are known."""
    months = json.loads(budgets.read_bytes())["months"] if budgets.exists() else {}
    return sum(tokens for month in months.values() for tokens in month.values())


def test_keys_and_budgets_outlive_gateway_and_stack(box: Box):
    box.fake_config(more=KEYS)
    key = box.run("key", "create", "anna", "--monthly-tokens", "1", "--json").said["key"]
    with box.foreground() as stack:
        assert chat(client(stack, key))
        with pytest.raises(RateLimitError):
            chat(client(stack, key))
        wait_until(lambda: spent(box.home / "state" / "budgets.json") > 0)
        gateway = box.status()["gateway"]["pid"]
        psutil.Process(gateway).kill()
        wait_until(lambda: box.status()["gateway"]["pid"] not in {None, gateway})
        with pytest.raises(RateLimitError):
            chat(client(stack, key).with_options(max_retries=5))
        assert stack.end() == 0
    with box.foreground() as stack:
        with pytest.raises(RateLimitError) as limit:
            chat(client(stack, key))
        assert limit.value.code == "insufficient_quota"
        assert stack.end() == 0


def test_up_says_what_is_wrong_with_the_keys(box: Box):
    box.fake_config(more=KEYS)
    with box.starting() as process:
        assert process.stdout is not None
        assert b"No API key is accepted yet. Next: freehold key create NAME" in process.stdout.readline()
    box.kill_all()
    (box.home / "keys.json").write_text("{")
    told = box.run("up", "--listen", "127.0.0.1:0")
    assert told.code == 1
    assert f"the keys file {box.home / 'keys.json'} is broken" in told.err


def test_without_keys_only_this_machine_is_listened_to(box: Box):
    box.fake_config()
    told = box.run("up", "--listen", "0.0.0.0:0")
    assert told.code == 2
    assert "auth: none is refused there" in told.err
    assert "write auth: keys" in told.err
