"""Which browser the tests drive: one of this machine, else Playwright's own, which is fetched into the checkout.

In CI there is always one: as root of a Debian it is installed there. Elsewhere the system is left as it is, and the tests are
skipped with a word where no browser can be had."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
# Han characters need a font to be seen; the browser works without it.
PACKAGES = ["chromium", "fonts-noto-cjk"]
INSTALL_SECONDS = 600
# Where the network reaches no more than registries, this ends at once or never.
DOWNLOAD_SECONDS = 120
# No sandbox within the browser: as root, as in containers, it cannot have one. Only pages of this checkout are opened.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-component-update", "--disable-background-networking"]

os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(Path(__file__).resolve().parents[2] / ".venv/browser/browsers"))


def is_ci():
    return os.environ.get("CI", "") not in ("", "false", "0")


def find():
    """A browser's path, or None."""
    if named := os.environ.get("CHROMIUM"):
        return named
    if known := next(filter(None, map(shutil.which, NAMES)), None):
        return known
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def _get(command, seconds):
    """Runs a command, as far as it gets in its time. Whether there is a browser then is what counts."""
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        pass


def find_or_get():
    """A browser's path; None where none can be had."""
    if found := find():
        return found
    if is_ci() and os.geteuid() == 0 and shutil.which("apt-get"):
        _get(["apt-get", "update", "-q"], INSTALL_SECONDS)
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
        _get(["env", "DEBIAN_FRONTEND=noninteractive", *install], INSTALL_SECONDS)
    if not find():
        _get([sys.executable, "-m", "playwright", "install", "chromium"], DOWNLOAD_SECONDS)
    return find()
