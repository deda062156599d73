"""What both suites of programs need: ports, waiting, calls, a gate, and programs that end with the test that started them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv" / "bin"
# How long a test waits for what must come, before it gives up. It is far more than a loaded machine needs, and includes
# cargo's own check that the programs are built.
PATIENCE = 900

_kept = []


def free_port():
    """A port for a program that is started next. Each program sets SO_REUSEADDR, so that on Linux it can listen although this
    process keeps the port, and nobody else is given it."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    if sys.platform == "linux":
        _kept.append(probe)
    else:
        probe.close()
    return port


def wait_for(what, condition, check=lambda: None):
    """The first true answer of the condition. `check` may raise what makes waiting pointless."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        check()
        time.sleep(0.05)
    raise TimeoutError(f"{what} did not come within {PATIENCE} s")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def call(url, body=None):
    """GET, or POST of JSON; answers (status, JSON)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


class Processes:
    """Starts programs, each in a group of its own, so that what they start ends with them."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def start(self, name, command, env=None):
        log = self.directory / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command], cwd=ROOT, env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.running.append((process, log))
        return log

    def wait_for(self, what, condition):
        return wait_for(what, condition, self.check)

    def check(self):
        for process, log in self.running:
            if process.poll() is not None:
                raise RuntimeError(f"{log.stem} ended with {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")

    def end(self):
        for process, _ in reversed(self.running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process, _ in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


class Gate:
    """Stands before a server and can hold calls back. What a test does meanwhile runs against no clock."""

    def __init__(self, server):
        self.server = urlsplit(server).netloc
        self.held, self.arrived, self.opened = None, threading.Event(), threading.Event()
        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.listener.daemon_threads = True
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.listener.server_port}"

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()

    @contextmanager
    def hold(self, path):
        """Holds the calls of this path until the block ends. Its value waits until one has come."""
        self.arrived.clear()
        self.opened.clear()
        self.held = path
        try:
            yield lambda: wait_for(f"a call of {path}", self.arrived.is_set)
        finally:
            self.held = None
            self.opened.set()

    def _pass_through(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        if self.held and urlsplit(handler.path).path == self.held:
            self.arrived.set()
            self.opened.wait()
        connection = http.client.HTTPConnection(self.server, timeout=PATIENCE)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        try:
            handler.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    handler.send_header(name, value)
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            # The caller was killed while it waited.
            handler.close_connection = True

    def _handler(gate):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                gate._pass_through(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        return Handler


@contextmanager
def renewed(record, put):
    """Keeps the lease of a run record alive, as its run would, until the block ends."""
    ended = threading.Event()

    def renew():
        record["holder"]["expires_at_ms"] = int((time.time() + 30) * 1000)
        put(json.dumps(record))

    def renew_until_the_end():
        while not ended.wait(1):
            renew()

    renew()
    thread = threading.Thread(target=renew_until_the_end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
