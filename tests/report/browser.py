"""A headless Chromium, spoken to in the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
HANG = 600
"""Seconds after which a browser is taken to hang."""


class Browser:
    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=HANG) as response:
            return json.loads(response.read())["value"]

    def open(self, file: Path) -> None:
        """Opens a report and waits until it is readable."""
        self.call("POST", "/url", {"url": file.resolve().as_uri()})
        self.wait("document.documentElement.dataset.ready !== undefined")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        done = f"return new Promise((done) => setInterval(() => ({condition}) && done(true), 5))"
        assert self.run(done)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def log(self) -> list[dict[str, Any]]:
        """Console messages, refusals of the content security policy among them."""
        return self.call("POST", "/se/log", {"type": "browser"})


@contextmanager
def headless(profile: Path) -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        root = Browser(f"http://127.0.0.1:{port}")
        until = time.monotonic() + HANG
        while driver.poll() is None and time.monotonic() < until:
            try:
                root.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1300,900",
            f"--user-data-dir={profile}",
        ]
        options = {"binary": CHROMIUM, "args": arguments}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = root.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        browser = Browser(f"http://127.0.0.1:{port}/session/{session}")
        yield browser
        browser.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()
