"""A headless Chromium for tests, spoken to over its debugging pipe: no port, no package, one page at a time."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DEADLINE_S = 40
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers, where Chromium's sandbox refuses to start
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "about:blank",
)
AS_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in enumerate(ends, start=3):
    os.dup2(end, number)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its debugging pipe from file descriptor 3 and writes to 4; a test's own have other numbers."""
OVERFLOW = """
(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = element => element && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  const out = [...document.body.querySelectorAll('*')].filter(
    each => each.getBoundingClientRect().right > width + 1 && !scrolls(each.parentElement) && each.checkVisibility()
  );
  const squeezed = [...document.querySelectorAll('p, li, td, tbody th, dd, caption, h1, h2, h3, summary')].filter(
    each => each.textContent.trim().length > 12 && each.checkVisibility() && each.getBoundingClientRect().width < 60
  );
  return {
    squeezed: squeezed.slice(0, 5).map(each => each.tagName + ': ' + each.textContent.trim().slice(0, 60)),
    width, wanted: document.documentElement.scrollWidth,
    beyond: out.slice(0, 5).map(each => each.tagName + ': ' + each.textContent.slice(0, 60)),
  };
})()
"""


class Page:
    """One page; `complaints` holds everything that the console, the log or an exception said, `asked` each request."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.buffer = b""
        self.count = 0
        self.session = ""
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.seen: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": arguments}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(
        self, path: Path, *, width: int, height: int = 900, dark: bool = False, media: str = "screen"
    ) -> None:
        self.complaints, self.asked, self.seen = [], [], []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self.seen:
            self._next()

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        printed = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + DEADLINE_S
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"Chromium said nothing for {DEADLINE_S} s"
            piece = os.read(self.reader, 1 << 20)
            assert piece, "Chromium ended"
            self.buffer += piece
        text, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self.seen.append(method)
        if method in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}:
            self.complaints.append(json.dumps(params)[:400])
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Give a page of a Chromium of its own, which is ended afterwards."""
    assert CHROMIUM
    from_us, to_them = os.pipe()
    to_us, from_them = os.pipe()
    start = (
        sys.executable,
        "-c",
        AS_3_AND_4,
        str(from_us),
        str(from_them),
        CHROMIUM,
        f"--user-data-dir={profile}",
    )
    child = subprocess.Popen(
        (*start, *FLAGS), pass_fds=(from_us, from_them), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(from_us)
    os.close(from_them)
    try:
        yield Page(to_us, to_them)
    finally:
        os.close(to_them)  # Chromium ends when its pipe does
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
        os.close(to_us)
