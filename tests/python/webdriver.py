"""A real browser, driven over WebDriver with nothing but Python's standard library.

    with Browser() as browser:
        browser.open("http://127.0.0.1:9464/")
        browser.until("it is ready", "return document.readyState === 'complete'")

Chromium and chromedriver are Debian's packages chromium and chromium-driver.
"""

import base64
import http.client
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import time
import zlib

# How long something may take that takes milliseconds on a computer with nothing else to do.
BOUND = 60
POLL = 0.05
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--metrics-recording-only", "--hide-scrollbars", "--force-device-scale-factor=1",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
]


class WebDriverError(Exception):
    """The browser did not do what it was asked to."""


class Key:
    """Keys as WebDriver names them."""

    TAB = "\ue004"
    SHIFT = "\ue008"
    ENTER = "\ue007"
    ESCAPE = "\ue00c"
    SPACE = " "


def driver_program():
    path = shutil.which("chromedriver")
    if path is None:
        raise WebDriverError("chromedriver is missing: install Debian's chromium and chromium-driver")
    return path


class Browser:
    """One browser with one window, and the chromedriver that drives it; both end with the `with` block."""

    def __init__(self, width=1280, height=900):
        self.size = (width, height)

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="seeway-browser-", ignore_cleanup_errors=True)
        environment = dict(os.environ, HOME=self.folder.name, XDG_CONFIG_HOME=self.folder.name)
        self.log = open(pathlib.Path(self.folder.name) / "chromedriver.log", "w+")
        self.driver = subprocess.Popen(
            [driver_program(), "--port=0", "--allowed-ips=127.0.0.1"],
            stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )
        try:
            self.port = wait_for("chromedriver listens", self._port)
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _port(self):
        if self.driver.poll() is not None:
            raise WebDriverError(f"chromedriver ended: {self._driver_log()}")
        found = re.search(r"started successfully on port (\d+)", self._driver_log())
        return int(found.group(1)) if found else None

    def _driver_log(self):
        return (pathlib.Path(self.folder.name) / "chromedriver.log").read_text(errors="replace")

    def _begin(self):
        width, height = self.size
        options = {"args": [*ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={self.folder.name}/profile"]}
        wanted = {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.session = None
        self.session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def __exit__(self, *_):
        if getattr(self, "session", None):
            try:
                self._ask("DELETE", f"/session/{self.session}")
            except (OSError, WebDriverError):
                pass
        self.driver.terminate()
        try:
            self.driver.wait(10)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()
        self.log.close()
        self.folder.cleanup()

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2 * BOUND)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(f"{value['error']}: {value.get('message', '').splitlines()[:1]}")
        return value

    def command(self, method, path, body=None):
        """A command of WebDriver's, within the browser's window."""
        return self._ask(method, f"/session/{self.session}{path}", {} if body is None and method == "POST" else body)

    def devtools(self, command, **parameters):
        """A command of Chromium's own, for what WebDriver has none."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.command("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """What a piece of JavaScript returns that runs in the page."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, what, script, *arguments, bound=BOUND):
        """Waits until JavaScript gives something true; returns that."""
        return wait_for(what, lambda: self.run(script, *arguments), bound, self.describe)

    def describe(self):
        return self.run("return document.body.innerText")[:3000]

    def find(self, selector):
        """The element that a CSS selector finds first."""
        return self.command("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def find_all(self, selector):
        found = self.command("POST", "/elements", {"using": "css selector", "value": selector})
        return [element[ELEMENT] for element in found]

    def click(self, element):
        """Clicks as a hand does: where it is, if nothing is in front of it."""
        self.command("POST", f"/element/{element}/click")

    def label(self, element):
        """The name by which a screen reader calls it."""
        return self.command("GET", f"/element/{element}/computedlabel")

    def role(self, element):
        return self.command("GET", f"/element/{element}/computedrole")

    def press(self, *keys):
        """Presses and releases keys, one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def logged(self, kind):
        """What the browser has logged since the last time: `browser` (the page's console) or `performance` (requests)."""
        return self.command("POST", "/se/log", {"type": kind})

    def resize(self, width, height):
        """Makes the page as wide and high as a screen of this size shows it."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colours(self, scheme):
        """`light` or `dark`, as the reader's system wants it."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, file):
        image = self.devtools("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(file).write_bytes(smaller(base64.b64decode(image)))


def smaller(png):
    """The same picture in fewer bytes: a page is flat, and packs best as it is, without transparency and filters."""
    at, chunks = 8, []
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at:at + 8])
        chunks.append((kind, png[at + 8:at + 8 + size]))
        at += size + 12
    width, height, depth, colour = struct.unpack(">IIBB", chunks[0][1][:10])
    channels = {(8, 2): 3, (8, 6): 4}[depth, colour]
    packed = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    length = width * channels
    rows, above = bytearray(), bytearray(length)
    for start in range(0, height * (length + 1), length + 1):
        row = bytearray(packed[start + 1:start + 1 + length])
        unfilter(packed[start], row, above, channels)
        rows += b"\0" + b"".join(row[pixel:pixel + 3] for pixel in range(0, length, channels))
        above = row

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def unfilter(kind, row, above, channels):
    """Undoes one of PNG's filters, in place."""
    for place in range(len(row) if kind else 0):
        left = row[place - channels] if place >= channels else 0
        corner = above[place - channels] if place >= channels else 0
        up = above[place]
        if kind == 4:
            guess = left + up - corner
            guess = min((left, up, corner), key=lambda value: abs(guess - value))
        else:
            guess = {1: left, 2: up, 3: (left + up) // 2}[kind]
        row[place] = (row[place] + guess) & 255


def wait_for(what, probe, bound=BOUND, describe=None):
    """Waits until `probe` gives something true; fails with `what` when it has not within `bound` seconds."""
    end = time.monotonic() + bound
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            seen = f"; there is:\n{describe()}" if describe else ""
            raise WebDriverError(f"waited {bound} s in vain until {what}{seen}")
        time.sleep(POLL)
