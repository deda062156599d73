"""What the tests in a browser share: the browser, pages in either language, the accessibility check, and a served sandbox."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import chromium  # noqa: E402
from programs import PATIENCE, ROOT, Processes  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OKKI_SYNC = TARGET / "debug/okki-sync"
LOCALES = {"en": "en-US", "zh-CN": "zh-CN"}
PHONE = {"width": 375, "height": 667}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def browser():
    path = chromium.find_or_get()
    if path is None and chromium.is_ci():
        pytest.fail("CI has no browser, and none could be installed")
    if path is None:
        pytest.skip("no browser: install Chromium, or set CHROMIUM to one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens an address and returns its page. At the test's end, nothing may have gone wrong in any of them."""
    contexts, wrong = [], []

    def note(page):
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # Chromium reports every answer with 400, which is how a form learns that it was filled in wrongly.
        is_error = lambda message: message.type == "error" and "400 (Bad Request)" not in message.text  # noqa: E731
        page.on("console", lambda message: wrong.append(message.text) if is_error(message) else None)
        page.on("dialog", lambda dialog: (wrong.append("a dialog: " + dialog.message), dialog.dismiss()))

    def open_page(address, lang="en", viewport=DESK, **options):
        context = browser.new_context(locale=LOCALES[lang], viewport=viewport, **options)
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        note(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def accessible():
    """Asserts that axe-core finds nothing to object to."""

    def check(page):
        found = Axe().run(page)
        told = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found.response["violations"]]
        assert told == [], "\n".join(told)

    return check


def fits(page):
    """Whether nothing sticks out to the right."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def work(page, steps):
    """How many milliseconds the page's main thread works for these steps, until their result is drawn. It is time of the
    processor: a machine that is busy with something else takes longer by the clock, and that says nothing of the page."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration") * 1000

    before = worked()
    steps()
    page.evaluate(DRAWN)
    return worked() - before


def sample(name, lang):
    """The address of a report's sample page, which `make browser` has written."""
    file = TARGET / f"tmp/pages/{name}.{lang}.html"
    assert file.exists(), f"{file} is not there: run make browser"
    return file.as_uri()


class Sandbox:
    """A sandbox that serves its page, and runs against it."""

    def __init__(self, processes, name, *options):
        self.log = processes.start(name, [OKKI_SYNC, "sandbox", *options])
        address = lambda: re.search(r"play with: (http://\S+)", self.log.read_text())  # noqa: E731
        self.page = processes.wait_for(f"{name}'s page", address).group(1)
        self.variables = dict(re.findall(r"^([A-Z_]+)=(.*)$", self.log.read_text(), re.MULTILINE))

    def sync(self, directory):
        """A whole run of the program, with a pipeline of every default."""
        pipeline = directory / "pipeline.toml"
        pipeline.write_text('[source]\nmax_requests_per_second = 100\n[target]\nkind = "qeasy"\n')
        environment = {**self.variables, "OKKI_SYNC_STORE": f"file://{directory}/store", "PATH": os.environ["PATH"]}
        run = [OKKI_SYNC, "sync", "--pipeline", pipeline, "--json"]
        return subprocess.run(run, env=environment, cwd=directory, capture_output=True, timeout=PATIENCE)


@pytest.fixture
def sandbox(tmp_path):
    """Starts sandboxes that end with the test."""
    processes = Processes(tmp_path)
    try:
        yield lambda *options: Sandbox(processes, f"sandbox-{len(processes.running)}", *options)
    finally:
        processes.end()
