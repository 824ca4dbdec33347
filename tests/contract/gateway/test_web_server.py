"""The recipes of examples/03-web-server with the real programs: TLS, streams chunk by chunk, a client that leaves, large bodies."""

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Answer, ask, get, post
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running
from gateway_rig.tls import Ca, TlsClient, needs_openssl
from waiting import wait_until

pytestmark = needs_openssl
RECIPES = Path(__file__).parents[3] / "examples" / "03-web-server"
NAME = "llm.example.org"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CADDY = shutil.which("caddy")


def nginx(folder: Path, ca: Ca, *, port: int, gateway_port: int) -> list[str]:
    """Write the recipe with this test's ports and files, and return its command."""
    certificate, key = ca.issue("web", extensions=f"subjectAltName=DNS:{NAME}")
    recipe = (RECIPES / "nginx.conf").read_text()
    recipe = recipe.replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}").replace("443 ssl", f"{port} ssl")
    recipe = re.sub(r"(ssl_certificate +)\S+;", rf"\g<1>{certificate};", recipe)
    recipe = re.sub(r"(ssl_certificate_key +)\S+;", rf"\g<1>{key};", recipe)
    folders = "".join(
        f"{kind}_temp_path {folder}/temp;" for kind in ("proxy", "client_body", "fastcgi", "uwsgi", "scgi")
    )
    around = f"daemon off; pid {folder}/nginx.pid; events {{}} http {{ access_log off; {folders} {recipe} }}"
    (folder / "nginx.conf").write_text(around)
    assert NGINX is not None
    return [NGINX, "-e", str(folder / "nginx.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, ca: Ca, *, port: int, gateway_port: int) -> list[str]:
    """Do the same for Caddy, with this test's certificate in place of one that it fetches."""
    certificate, key = ca.issue("web", extensions=f"subjectAltName=DNS:{NAME}")
    recipe = (RECIPES / "Caddyfile").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{gateway_port}")
    recipe = recipe.replace(f"{NAME} {{", f"{NAME}:{port} {{\n\ttls {certificate} {key}", 1)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + recipe)
    assert CADDY is not None
    return [CADDY, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.fixture(
    params=[
        pytest.param(nginx, marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
        pytest.param(caddy, marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed")),
    ]
)
def command(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    found: Callable[..., list[str]] = request.param
    return found


class WebClient(TlsClient):
    """Reads the heads of other servers, whose names have capitals."""

    def read_head(self) -> Answer:
        first, *lines = self.read_until(b"\r\n\r\n")[:-4].decode().split("\r\n")
        fields = (line.partition(":") for line in lines)
        return Answer(int(first.split()[1]), [(name.lower(), value.strip()) for name, _, value in fields])


class Stepwise:
    """A stream that comes one chunk after the other, each when it is let go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.call: Call | None = None
        self.over = asyncio.Event()
        engine.answer = self.answer

    async def answer(self, call: Call) -> None:
        call.send(STREAM_HEAD)
        self.call = call
        await self.over.wait()

    def send(self, data: bytes) -> None:
        call = wait_until(lambda: self.call)
        assert call is not None
        self.engine.do(lambda: call.send(data))


@contextlib.contextmanager
def serving(command: list[str], connect: Callable[[], WebClient], log: Path) -> Iterator[None]:
    """Run a web server for the block."""

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            connect().close()
            return True
        return False

    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            wait_until(listens)
            yield
        finally:
            process.terminate()
            process.wait(10)


def test_a_web_server_in_front_passes_on_each_chunk_at_once(
    command: Callable[..., list[str]], engine: Engine, tmp_path: Path, free_port: int
):
    ca, keys = Ca(tmp_path / "ca"), Keys(tmp_path)
    keys.add("anna")

    def connect() -> WebClient:
        return WebClient(free_port, ca, name=NAME)

    with running(tmp_path, [model("m", engine)], **keys.settings) as gateway:
        run = command(tmp_path, ca, port=free_port, gateway_port=gateway.port)
        with serving(run, connect, tmp_path / "web.log"):
            one_by_one(gateway, engine, connect, keys.bearer("anna"))


def one_by_one(gateway: Gateway, engine: Engine, connect: Callable[[], WebClient], bearer: str) -> None:
    host = f"Host: {NAME}\r\n".encode()

    def named(request: bytes) -> bytes:
        return re.sub(rb"Host: \S+\r\n", host, request, count=1)

    with connect() as client:
        assert client.socket.version() == "TLSv1.3"
        assert client.ask(named(ask())).status == 401
        assert client.ask(named(get("/metrics"))).status == 401  # under its public name
        assert client.ask(named(ask(extra=bearer))).status == 200
        large = {"model": "m", "messages": [{"role": "user", "content": "x" * 8_000_000}]}
        assert client.ask(named(post(large, extra=bearer))).status == 200
    stream = Stepwise(engine)
    with connect() as client:
        client.send(named(ask(stream=True, extra=bearer)))
        for text in "abc":
            stream.send(chunk(delta(text)))
            assert f'"{text}"'.encode() in client.read_until(b"\n\n")  # before the next one is sent
        stream.send(chunk(delta("", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        engine.do(stream.over.set)
        client.read_until(b"[DONE]\n\n")
    left = Stepwise(engine)
    with connect() as client:
        client.send(named(ask(stream=True, extra=bearer)))
        left.send(chunk(delta("a")))
        client.read_until(b"\n\n")
    call = left.call
    assert call is not None
    wait_until(call.gone.is_set, what="the engine to be freed after its client left")
    assert gateway.metric("freehold_bugs_total") == 0
