"""The small CA from end to end: `freehold ca` makes the gateway's certificate and its client's, and a new CA replaces the old one under them."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from e2e.box import Box, Stack
from waiting import wait_until

ASK = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def status(stack: Stack, trusted: Path, shown: Path | None) -> int | str:
    """Return the status of a chat for a client that trusts one file of CAs and may show a certificate; or why TLS was not agreed."""
    context = ssl.create_default_context(cafile=trusted)
    if shown is not None:
        context.load_cert_chain(shown)
    url = f"https://127.0.0.1:{urlsplit(stack.url).port}/v1/chat/completions"
    with httpx2.Client(trust_env=False, timeout=10, verify=context) as client:
        try:
            return client.post(url, json=ASK).status_code
        except httpx2.TransportError as exc:
            return str(exc)


def served(stack: Stack) -> str:
    """Return the certificate that the gateway shows."""
    return ssl.get_server_certificate(("127.0.0.1", urlsplit(stack.url).port or 0))


def issue(box: Box, name: str, *more: str) -> Path:
    ran = box.run("ca", "issue", name, *more, "--json")
    assert ran.code == 0, ran
    return Path(ran.said["path"])


def test_gateway_and_client_with_certificates_of_one_ca(box: Box, tmp_path: Path):
    box.env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    config = box.fake_config()
    keys = "auth: keys, keys_file: keys.json"
    plain = config.read_text()
    config.write_text(f"{plain}gateway: {{{keys}}}\n")
    key = box.run("key", "create", "anna", "--json").said["id"]
    assert box.run("ca", "init").code == 0
    gateway, anna, nobody = (
        issue(box, "gateway", "--host", "127.0.0.1"),
        issue(box, key),
        issue(box, "nobody"),
    )
    bundle = gateway.parents[1] / "ca-bundle.pem"
    tls = f"tls: {{certificate: {gateway}, key: {gateway}, client_ca: {gateway}}}"
    config.write_text(f"{plain}gateway: {{{keys}, {tls}}}\n")
    with box.foreground() as stack:
        assert status(stack, bundle, anna) == 200
        assert [status(stack, bundle, shown) for shown in (None, nobody)] == [401, 401]

        old = {path: tmp_path / f"old-{path.name}" for path in (bundle, anna)}
        for path, kept in old.items():
            kept.write_bytes(path.read_bytes())
        assert box.run("ca", "init", "--beside").code == 0
        before = served(stack)
        issue(box, "gateway")
        wait_until(lambda: served(stack) != before, timeout_s=10)
        issue(box, key)
        for trusted in (bundle, old[bundle]):
            for shown in (anna, old[anna]):
                assert status(stack, trusted, shown) == 200

        (bundle.parent / "ca-1.pem").unlink()
        before = served(stack)
        issue(box, "gateway")
        wait_until(lambda: served(stack) != before, timeout_s=10)
        issue(box, key)
        assert status(stack, bundle, anna) == 200
        assert status(stack, bundle, old[anna]) != 200
        assert "CERTIFICATE_VERIFY_FAILED" in str(status(stack, old[bundle], anna))
        assert stack.end() == 0
