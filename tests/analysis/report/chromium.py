"""A page in Debian's Chromium without a window, asked by the DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

CHROMIUM = shutil.which("chromium")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


class Tab:
    """An open page.

    Attributes:
      told: what its console got, and what went wrong.
    """

    def __init__(self, write: Any, read: Any) -> None:
        self._write, self._read, self._calls, self.told = write, read, 0, []
        self._loaded, self._session = False, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol; events that come meanwhile are noted."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._next()).get("id") != self._calls:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: pathlib.Path, *, width: int, dark: bool = False) -> None:
        """Opens a page as a screen so wide shows it, and waits until it is there."""
        self.open_url(page.as_uri(), width=width, dark=dark)

    def open_url(self, url: str, *, width: int, dark: bool = False) -> None:
        """The same, by its address."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: pathlib.Path) -> None:
        """Writes the whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: pathlib.Path) -> None:
        """Writes the page as it is printed."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))

    def _next(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "Chromium has gone"
            message += byte
        answer = json.loads(message)
        method, parameters = answer.get("method"), answer.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.told.append(parameters)
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(("file:", "data:")):
            self.told.append(parameters["request"]["url"])
        return answer


@contextlib.contextmanager
def tab(profile: pathlib.Path) -> Iterator[Tab]:
    """A tab of a Chromium that ends with the block.

    Args:
      profile: an empty folder of its own.
    """
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def as_three_and_four() -> None:  # where Chromium reads and writes
        first, second = os.dup(theirs_in), os.dup(theirs_out)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_three_and_four,
        close_fds=False,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with open(ours_out, "wb") as write, open(ours_in, "rb") as read:
            found = Tab(write, read)
            yield found
            found._session = None
            found.call("Browser.close")
    finally:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
