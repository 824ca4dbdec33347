"""The DCGM exporter's reader against servers on loopback: its text, errors, silence, nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from freehold.core.findings import Verdict
from freehold.health.collectors.dcgm import DcgmReader
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpus, Kernel, State, View
from freehold.health.registry import all_probes

TEXT = (
    '# TYPE DCGM_FI_DEV_GPU_TEMP gauge\nDCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",DCGM_FI_DRIVER_VERSION="580.159.04"} 50\n'
    'DCGM_FI_DEV_GPU_TEMP{gpu="1",UUID="GPU-2"} 51\n'
)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /metrics HTTP/1.1\r\n")
        writer.write(data)
        await writer.drain()
        writer.close()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def read(serve: Serve, deadline_s: float = 5.0) -> Gpus:
    async def run() -> Gpus:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await DcgmReader(url=f"http://127.0.0.1:{port}/metrics", deadline_s=deadline_s).read()

    return asyncio.run(run())


def test_its_text_is_read() -> None:
    gpus = read(answering(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + TEXT.encode()))
    assert [(gpu.uuid, gpu.readings["temperature_c"].value) for gpu in gpus.gpus] == [
        ("GPU-1", 50),
        ("GPU-2", 51),
    ]
    assert gpus.driver["driver_version"].value == "580.159.04"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "answered 503"),
        (b"hello\r\n\r\n", "not HTTP"),
        (b"", "the answer is not whole"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "the answer is not whole"),
        (b"HTTP/1.1 200 OK\r\n\r\nup 1\n", "shows no GPU"),
    ],
)
def test_anything_else_is_unknown(data: bytes, words: str) -> None:
    gpus = read(answering(data))
    assert (gpus.state, gpus.gpus) == (State.UNKNOWN, ())
    assert words in gpus.detail


def test_silence_is_hung_within_the_deadline() -> None:
    gpus = read(silent, deadline_s=0.2)
    assert gpus.state is State.HUNG
    assert "within 0.2 s" in gpus.detail


def test_an_exporter_that_does_not_run_is_no_node_without_gpus(free_port: int, tmp_path: Path) -> None:
    gpus = asyncio.run(DcgmReader(url=f"http://127.0.0.1:{free_port}/metrics", root=tmp_path).read())
    assert gpus.state is State.UNKNOWN
    view = View(at_s=1.0, monotonic_s=1.0, gpus=gpus, kernel=Kernel())
    for name, probe in all_probes().items():
        if "gpus" in probe.reads and name != "engine_progress":
            found = probe.check([view], Expected())
            assert {finding.verdict for finding in found} == {Verdict.UNKNOWN}, name


def test_a_gpu_that_the_exporter_shows_no_more_is_missed_and_the_bus_is_read(tmp_path: Path) -> None:
    card = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030200\n")
    texts = [TEXT, TEXT.splitlines()[1] + "\n"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + texts.pop(0).encode())
        writer.close()

    async def run() -> Gpus:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader = DcgmReader(url=f"http://127.0.0.1:{port}/metrics", root=tmp_path)
            await reader.read()
            return await reader.read()

    gpus = asyncio.run(run())
    assert (len(gpus.gpus), gpus.most) == (1, 2)
    assert gpus.pci_addresses == ("00000000:3b:00.0",)
