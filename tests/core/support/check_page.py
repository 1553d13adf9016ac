"""Open the pages of the reports in headless Chromium and look for what a reader would trip over.

    python tests/core/support/check_page.py [--screenshots FOLDER] [PAGE ...]

Without pages: every reports/*/index.html. Where Chromium is not installed nothing is checked, and
that is said. Chromium is driven by its DevTools protocol over a pipe: JSON, ended by a zero byte.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOOKS = {  # width in pixels, colour scheme, medium
    "phone-light": (360, "light", "screen"),
    "phone-dark": (360, "dark", "screen"),
    "desktop-light": (1280, "light", "screen"),
    "desktop-dark": (1280, "dark", "screen"),
    "print": (794, "light", "print"),  # A4
}
EVENTS = {  # that are errors, and where their text stands
    "Runtime.exceptionThrown": ("exceptionDetails", "text"),
    "Log.entryAdded": ("entry", "text"),
    "Network.loadingFailed": ("errorText",),
}
LOOK_INSIDE = """JSON.stringify({
  width: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight,
  urls: [...document.querySelectorAll("[src], [href]")].map(x => x.src || x.href),
  broken: [...document.images].filter(x => x.complete && !x.naturalWidth).map(x => x.src),
  mute: [...document.images].filter(x => !x.alt).map(x => x.src),
})"""


class Browser:
    """One page of a running Chromium."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.calls = 0
        self.session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        opened = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": opened["sessionId"]}
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come first are kept."""
        assert self.process.stdin
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params} | self.session
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while (answer := self._read()).get("id") != self.calls:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"Chromium refused {method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, page: Path) -> None:
        """Open a page and wait until all of it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        message = bytearray()
        while (byte := self.process.stdout.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium ended before it answered")
            message += byte
        return json.loads(message)


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """Run Chromium for the block; it reads commands from file 3 and writes answers to file 4."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        pipe = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
        # containers have no namespaces for Chromium's sandbox, and the pages are our own
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command = ["sh", "-c", pipe, program, *flags]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield Browser(process)
            finally:
                process.terminate()


def problems(browser: Browser, page: Path, look: str, screenshots: Path | None = None) -> list[str]:
    """Return what is wrong with a page at one width, colour scheme and medium."""
    width, scheme, medium = LOOKS[look]
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", **screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", media=medium, features=features)
    browser.open(page)
    answer = browser.call("Runtime.evaluate", expression=LOOK_INSIDE)
    seen = json.loads(answer["result"]["value"])
    if screenshots:
        clip = {"x": 0, "y": 0, "width": seen["width"], "height": seen["height"], "scale": 1}
        shot = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        screenshots.mkdir(parents=True, exist_ok=True)
        file = screenshots / f"{page.parent.name}-{look}.png"
        file.write_bytes(base64.b64decode(shot["data"]))
    found = [*_errors(browser.events)]
    requested = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    for url in sorted({*requested, *seen["urls"]}):
        if url.startswith("data:"):  # in the page itself, or the icons of the browser's player
            continue
        path = Path(unquote(urlparse(url).path))
        if urlparse(url).scheme != "file" or page.parent not in path.parents:
            found.append(f"leaves its folder for {url}")
        elif not path.is_file():
            found.append(f"lacks the file {path.name}")
    found += [f"cannot show {url}" for url in seen["broken"]]
    found += [f"shows {url} without alternative text" for url in seen["mute"]]
    if seen["width"] > width:
        found.append(f"is {seen['width']} pixels wide on a screen of {width}")
    return [f"{page}, {look}: {problem}" for problem in found]


def _errors(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        value: Any = event["params"]
        if event["method"] == "Runtime.consoleAPICalled" and value["type"] in ("error", "warning"):
            yield f"console: {' '.join(str(x.get('value')) for x in value['args'])}"
        elif event["method"] in EVENTS:
            for key in EVENTS[event["method"]]:
                value = value[key]
            yield f"error: {value}"


def main(arguments: list[str] | None = None) -> int:
    """Check pages; return 1 if something is wrong with one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, help="default: reports/*/index.html")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the pages")
    options = parser.parse_args(arguments)
    pages = options.pages or sorted(Path("reports").glob("*/index.html"))
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(f"pages not checked: none of {', '.join(BROWSERS)} is installed")
        return 0
    if not pages:
        print("pages not checked: there is no reports/*/index.html; first: make repro")
        return 0
    with running(program) as browser:
        found = [
            problem
            for page in pages
            for look in LOOKS
            for problem in problems(browser, page.resolve(), look, options.screenshots)
        ]
    print("\n".join(found) or f"checked at {len(LOOKS)} looks: {', '.join(map(str, pages))}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
