"""The gateway's clock: time limits are enforced whatever else goes wrong in the same tick."""

import asyncio
import time
from pathlib import Path

from gateway_rig.client import ask
from gateway_rig.engines import Call, Engine
from gateway_rig.process import Gateway, model
from waiting import wait_until

BROKEN_PARTS = """
from freehold.gateway.server.client_connection import ClientConnection
from freehold.gateway.answers.stream_log import PackBudget
check = ClientConnection.check
def broken_check(self, now_s):
    check(self, now_s)
    raise RuntimeError("a connection")
turns = []
def broken_turn(self):
    turns.append(1)
    if len(turns) == 1:
        return  # it starts well
    raise RuntimeError("the rest")
ClientConnection.check, PackBudget.turn = broken_check, broken_turn
"""


def test_a_part_that_fails_shields_no_connection_and_no_other_part(tmp_path: Path, engine: Engine) -> None:
    async def silent(call: Call) -> None:
        await asyncio.Event().wait()

    engine.answer = silent
    gateway = Gateway(tmp_path, [model("m", engine)], patch=BROKEN_PARTS)
    try:
        asking = [gateway.client() for _ in range(5)]
        started_s = time.monotonic()
        for client in asking:
            client.send(ask("m", extra="x-freehold-timeout: 1\r\n"))
        assert [client.read_answer().status for client in asking] == [504] * 5
        assert time.monotonic() - started_s < 3
        wait_until(lambda: {"a connection", "the rest"} <= bugs(gateway), what="both to be told")
        assert gateway.metric("freehold_bugs_total") > 0
    finally:
        gateway.process.kill()
        gateway.process.wait()


def bugs(gateway: Gateway) -> set[str]:
    said = str(gateway.logged("bug"))
    return {what for what in ("a connection", "the rest") if what in said}
