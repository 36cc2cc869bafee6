"""Headless Chromium, driven over the DevTools protocol through a pipe: nothing but the standard library.

With `--remote-debugging-pipe` Chromium reads commands from file descriptor 3 and writes to 4, JSON ended by a NUL.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
]  # fmt: skip
WAIT = 60.0


def find() -> str | None:
    """The program, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page. `errors`: what the page complained of; `requests`: addresses it asked for beyond its own file."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.count, self.buffer = to, back, 0, b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.session = ""
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile is noted."""
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True) -> None:
        """Load a file as a window of this size would show it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """The value of some JavaScript on the page. RuntimeError where it throws."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def picture(self, path: Path | None = None, whole: bool = False, **clip: float) -> bytes:
        """A PNG of the window, of the whole page, or of a part (x, y, width, height)."""
        options: dict[str, Any] = {"captureBeyondViewport": whole or bool(clip)}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        if clip:
            options["clip"] = clip | {"scale": 1}
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        if path:
            path.write_bytes(data)
        return data

    def _next(self) -> dict[str, Any]:
        """The next message; events that matter are noted."""
        end = time.monotonic() + WAIT
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.back], [], [], max(end - time.monotonic(), 0))
            part = os.read(self.back, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser does not answer" if not ready else "the browser has ended")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.errors.append(str(params["args"]))
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "file:", "about:")):
                    self.requests.append(url)
        return message


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in this folder, ended with the block."""
    program = find()
    assert program, "no Chromium on the PATH"
    pipes = [fd for pair in (os.pipe(), os.pipe()) for fd in pair]
    theirs_in, ours_out, ours_in, theirs_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in pipes)  # not 3, 4
    for fd in pipes:
        os.close(fd)
    command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", program]
    process = subprocess.Popen(
        [*command, *FLAGS, f"--user-data-dir={profile}", "about:blank"], pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Browser(ours_out, ours_in)
        yield browser
        browser.session = ""
        with contextlib.suppress(OSError, TimeoutError):
            browser.call("Browser.close")
    finally:
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
