"""Draws the pictures of the README from a real run: `make pictures`.

A sandbox of the built program, a sync, a working day of changes, and then what `okki-sync plan` prints in a terminal, as
an SVG, and the sandbox's page in a browser, as a PNG."""

import html
import os
import pty
import re
import subprocess
import sys
import tempfile
import unicodedata
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/browser"))
import chromium  # noqa: E402

PROGRAM = ROOT / "target/debug/okki-sync"
HERE = Path(__file__).parent
START_SECONDS = 30
# Of the picture, in characters; lines that are longer are cut.
COLUMNS, LINES = 118, 34
CHAR_WIDTH, LINE_HEIGHT, MARGIN = 7.8, 18, 14
# By SGR code: readable on the dark ground of the picture.
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60"}
FOREGROUND, DIM, GROUND = "#e6edf3", "#8b949e", "#0d1117"


def in_terminal(command, env, folder):
    """What a program prints to a terminal of COLUMNS, colours included."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, env={**env, "COLUMNS": str(COLUMNS)}, cwd=folder,
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            read = os.read(ours, 65_536)
        except OSError:  # Linux says so when the other end is closed.
            break
        if not read:
            break
        text += read
    os.close(ours)
    process.wait()
    return text.decode().replace("\r\n", "\n")


def pieces(line):
    """The parts of a line, each with its colour and its column; Han characters take two columns."""
    colour, column, bold = FOREGROUND, 0, False
    for part in re.split(r"(\x1b\[[\d;]*m)", line):
        if codes := re.fullmatch(r"\x1b\[([\d;]*)m", part):
            for code in codes[1].split(";"):
                if code in ("", "0", "39"):
                    colour, bold = FOREGROUND, False
                elif code == "1":
                    bold = True
                elif code == "2":
                    colour = DIM
                else:
                    colour = COLOURS.get(code, colour)
            continue
        # Latin and Han are placed apart, whatever the fonts' widths are.
        # Spaces are places: an SVG would join them.
        for run in re.findall(r"(?: ?[!-~\u00a0-\u2fff]+)+|[^ -~\u00a0-\u2fff]+| +", part):
            width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in run)
            room = max(0, COLUMNS - column)
            if width > room:
                run, width = run[: max(0, room - 1)] + "…", room
            if room:
                yield column, width, colour, bold, run
            column += width


def as_svg(text, title):
    """The terminal as a picture. Its text can be read and found."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) > LINES:
        summary = next(i for i, line in enumerate(lines) if not line.strip())
        tail = lines[summary:]
        lines = lines[: LINES - len(tail)] + ["\x1b[2m…\x1b[0m"] + tail
    width = round(COLUMNS * CHAR_WIDTH + 2 * MARGIN)
    height = len(lines) * LINE_HEIGHT + 2 * MARGIN
    drawn = []
    for row, line in enumerate(lines):
        for column, columns, colour, bold, run in pieces(line):
            if not run.strip():
                continue
            if run.startswith(" "):
                run, column, columns = run[1:], column + 1, columns - 1
            x, y = MARGIN + column * CHAR_WIDTH, MARGIN + (row + 0.75) * LINE_HEIGHT
            weight = ' font-weight="bold"' if bold else ""
            drawn.append(
                f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{weight} textLength="{columns * CHAR_WIDTH:.1f}" '
                f'lengthAdjust="spacingAndGlyphs">{html.escape(run, quote=False)}</text>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13" xml:space="preserve">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def press(page, **fields):
    body = urllib.parse.urlencode(fields).encode()
    urllib.request.urlopen(urllib.request.Request(page + "do", data=body), timeout=START_SECONDS).read()


def photograph(page):
    browser_path = chromium.find_or_get()
    if not browser_path:
        sys.exit("no browser: set CHROMIUM to the path of one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=chromium.OPTIONS)
        view = browser.new_page(viewport={"width": 1100, "height": 1150}, color_scheme="light")
        view.goto(page + "?lang=en")
        first = view.locator("#tree details").first
        if first.count():
            first.locator("summary").first.click()
        view.wait_for_timeout(1_500)
        view.screenshot(path=HERE / "sandbox.png")
        browser.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Path(folder, "pipeline.toml")
        pipeline.write_text((ROOT / "pipeline.toml").read_text().replace("max_requests_per_second = 5.0", "max_requests_per_second = 50.0"))
        command = [PROGRAM, "sandbox", "--groups", "24", "--products", "240", "--seed", "7", "--env-file", "sandbox.env"]
        sandbox = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            page = next(m[1] for line in sandbox.stderr if (m := re.search(r"(http://127\.0\.0\.1:\d+/)$", line.strip())))
            lines = Path(folder, "sandbox.env").read_text().split()
            env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **dict(line.split("=", 1) for line in lines)}
            env.pop("NO_COLOR", None)
            subprocess.run([PROGRAM, "sync"], env=env, cwd=folder, check=True, capture_output=True)
            press(page, do="day")
            plan = in_terminal([PROGRAM, "plan"], env, folder)
            (HERE / "plan.svg").write_text(as_svg(plan, "okki-sync plan: what would change, from old to new"))
            photograph(page)
        finally:
            sandbox.terminate()
            sandbox.wait()


if __name__ == "__main__":
    main()
