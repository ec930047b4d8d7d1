"""The page of `cnnkernels learn` in a Chromium without a window: everything on it is drawn, follows mouse and keyboard,
shows the library's numbers, asks nothing of a network, and knows the dark. `make learn-page` runs it.

It looks for chromium, chromium-browser, google-chrome or chrome on the PATH, or takes the one that CHROMIUM names.

python tests/learn_page.py [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from cnnkernels import learn

NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"


class Browser:
    """Chromium, told what to do by DevTools' protocol over a pair of pipes."""

    def __init__(self, program: str, folder: str) -> None:
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        options = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        options += ["--no-first-run", "--window-size=1200,1400"] + ["--no-sandbox"] * (os.getuid() == 0)
        self._process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" "$@" 3<&{read} 4>&{write}', program, *options],
            pass_fds=(read, write),
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._number, self._rest, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = os.read(self._from, 1 << 16)
            if not received:
                raise RuntimeError("Chromium ended")
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        while self.run("document.readyState") != "complete":
            pass

    def run(self, code: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        code = {"ArrowRight": 39, "ArrowDown": 40, "Tab": 9, " ": 32}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({selector!r}).scrollIntoView()")
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        at = {"x": self.run(f"{box}.x + {box}.width / 2"), "y": self.run(f"{box}.y + {box}.height / 2")}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        self.call("Browser.close")
        self._process.wait(timeout=20)


def expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted}, but got {found}")
    print(f"ok  {what}")


def table(browser: Browser, title: str) -> list[list[str]]:
    """The texts of a table's cells."""
    return browser.run(
        f"[...[...document.querySelectorAll('table')].find((t) => t.caption.textContent.startsWith({title!r}))"
        ".tBodies[0].rows].map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
    )


def matrix(browser: Browser, title: str) -> list[list[float]]:
    return [[float(text) for text in row] for row in table(browser, title)]


def choose(browser: Browser, number: int) -> None:
    browser.click(f"#views label:nth-of-type({number + 1}) input")


def sizes(browser: Browser, **given: int) -> None:
    for name, value in given.items():
        field = f"document.getElementById({name!r})"
        browser.run(f"{field}.value = {value}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def check_numbers(browser: Browser) -> None:
    """A convolution, its gradients and a pool, as they are drawn after the last step."""
    sizes(browser, H=6, W=5, stride=2, padding=1, seed=7)
    given = {name: torch.tensor(value).float() for name, value in browser.run("numbers(readProblem())").items()}
    x, w = given["x"][None].requires_grad_(), given["w"].requires_grad_()
    y = F.conv2d(x, w, stride=2, padding=1)
    y.backward(given["dy"][None])
    pooled = given["x"][None].detach().requires_grad_()
    F.max_pool2d(pooled, 3, 2, 1).backward(given["dpool"][None, None])
    pool_y = F.max_pool2d(pooled, 3, 2, 1)
    for number, title, wanted in (
        (0, "y[0]", y[0, 0]), (1, "dx[0]", x.grad[0, 0]), (2, "dw[0, 0]", w.grad[0, 0]), (3, "dx", pooled.grad[0, 0]),
        (4, "C:", y[0].flatten(1).T), (5, "dx[0]", x.grad[0, 0]),
    ):  # fmt: skip
        choose(browser, number)
        browser.click("#last")
        expect(f"numbers of view {number + 1}", matrix(browser, title), wanted.tolist())
    choose(browser, 3)
    for _ in range(pool_y.numel() - 1):
        browser.click("#next")
    expect("numbers of the pool", matrix(browser, "y"), pool_y[0, 0].tolist())


def check_stepping(browser: Browser) -> None:
    choose(browser, 0)
    expect("it begins with the first step", browser.run("document.getElementById('count').textContent"), "1 of 9")
    browser.click("#next")
    expect("a click steps", browser.run("document.getElementById('count').textContent"), "2 of 9")
    browser.run("document.getElementById('step').focus()")
    browser.press("ArrowRight")
    expect("a key steps", browser.run("document.getElementById('count').textContent"), "3 of 9")
    expect("one cell is current", browser.run("document.querySelectorAll('td[aria-current=step]').length"), 1)
    browser.run("document.querySelector('#views input').focus()")
    browser.press("ArrowDown")
    expect("keys choose a view", browser.run("document.getElementById('name').textContent"), "Gradient of the input")
    sizes(browser, padding=-1)
    said = browser.run("document.getElementById('refusal').textContent")
    expect("bad sizes are refused", said, "padding must be a whole number from 0 to 6, but got -1")
    expect("and nothing is shown of them", browser.run("document.getElementById('shown').hidden"), True)
    sizes(browser, padding=1)


NAMELESS = """[...document.querySelectorAll('input, select, button, table, [role=region]')].filter((one) => !(
  one.labels?.length || one.textContent.trim() && one.tagName === 'BUTTON' || one.caption?.textContent ||
  one.getAttribute('aria-label'))).length"""
CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  const light = (colour) => { const [r, g, b] = parts(colour); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (one) => { const colour = getComputedStyle(one).backgroundColor;
    return colour !== 'rgba(0, 0, 0, 0)' ? colour : behind(one.parentElement); };
  return Math.min(...[...document.querySelectorAll('p, td, th, caption, label, #key span')].map((one) => {
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); }));
})()"""


def check_access(browser: Browser, pictures: Path | None) -> None:
    for number in range(7):
        choose(browser, number)
        expect(f"everything in view {number + 1} has a name", browser.run(NAMELESS), 0)
        if pictures is not None:
            browser.run("scrollTo(0, 0)")
            browser.picture(pictures / f"view{number + 1}.png")
    for scheme, wanted in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 28)")):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        expect(f"the page is {scheme}", browser.run("getComputedStyle(document.body).backgroundColor"), wanted)
        choose(browser, 0)
        expect(f"contrast of 4.5 or more in the {scheme}", browser.run(CONTRAST) >= 4.5, True)
        if pictures is not None:
            browser.picture(pictures / f"{scheme}.png")
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    wide = browser.run("document.documentElement.scrollWidth")
    expect("a telephone's width is enough", wide <= 360, True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="of every view, to look at")
    pictures = parser.parse_args().pictures
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print(f"no Chromium: none of {', '.join(NAMES)} is on the PATH, and CHROMIUM names none", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder, "page.html")
        page.write_text(learn.page(), encoding="utf-8")
        browser = Browser(program, folder)
        print(f"in {browser.call('Browser.getVersion')['product']}")
        browser.open(page.as_uri())
        check_numbers(browser)
        check_stepping(browser)
        check_access(browser, pictures)
        asked = [
            e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"
        ]
        expect("nothing but the page is loaded", asked, [page.as_uri()])
        bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        expect("no error and no warning", [e for e in browser.events if e.get("method") in bad], [])
        browser.close()
    print("the page is good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
