#!/usr/bin/env python3
"""`make bench`: runs okki-sync and the others against a static source and sink, and writes benches/results.md.

Every number is of a whole process, from its start to its end: nothing is warmed up, nobody is asked how long it took. The
contestants take turns, so that a noisy minute hits all of them; a ratio is the median of the ratios within the rounds.
With two CPUs or more, the contestants run on CPU 0 and the server on CPU 1.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = HERE / "target/release"
PYTHON = HERE / ".venv/bin/python"
SIZES = {"S": (200, 2_000), "M": (2_000, 50_000), "L": (5_000, 200_000)}
# Only where it is asked for: nobody waits for a Python script with a million rows.
MORE_SIZES = {"XL": (5_000, 1_000_000)}
CONTESTANTS = ["okki-sync", "bare", "wire", "aio", "plain"]
OURS = "okki-sync"
LATENCY_MS = 20
PINNED = len(os.sched_getaffinity(0)) > 1

PIPELINE = """
connection = "bench"

[source]
products = "full"
page_size = 100
max_requests_per_second = 100000
max_concurrency = 8

[record]
shape = "products"

[target]
kind = "qeasy"
scheme_id = "bench"
max_rows_per_batch = 500
max_bytes_per_batch = 1_000_000
requests_per_minute = 5000
"""
CREDENTIALS = {
    "OKKI_CLIENT_ID": "bench",
    "OKKI_CLIENT_SECRET": "bench-secret",
    "QEASY_APP_KEY": "benchbenchbe",
    "QEASY_APP_SECRET": "benchbenchbenchbench",
}


class Server:
    """The static source and sink, as a process of its own."""

    def __init__(self, groups, products):
        pin = ["taskset", "-c", "1"] if PINNED else []
        command = [*pin, BIN / "server", "--groups", str(groups), "--products", str(products)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started = json.loads(self.process.stdout.readline())
        self.product_bytes = started["product_bytes"]
        self.url = f"http://127.0.0.1:{started['port']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, what):
        with urllib.request.urlopen(f"{self.url}/_bench/{what}") as answer:
            return answer.read()

    def told(self, what):
        return json.loads(self.ask(what))

    def cpu(self):
        """Seconds of CPU so far: a server that is busy all the time would be what is measured."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Bench:
    """One size: its server, and the files that its contestants need."""

    def __init__(self, size, server, scratch, okki_sync):
        self.size, self.server, self.scratch, self.okki_sync = size, server, scratch, okki_sync
        self.products = (SIZES | MORE_SIZES)[size][1]
        self.stores = 0
        self.posts = scratch / f"{size}.posts"
        self.tree_posts = scratch / f"{size}.tree.posts"
        self.pipeline = scratch / "pipeline.toml"
        self.pipeline.write_text(PIPELINE)
        # As it is by default: from the second run on only what changed is read.
        self.incremental = scratch / "incremental.toml"
        self.incremental.write_text(PIPELINE.replace('products = "full"', 'products = "incremental"'))
        # The default shape: a row for each group, with its products, and no row before the rows above it.
        self.tree = scratch / "tree.toml"
        self.tree.write_text(PIPELINE.replace('shape = "products"', 'shape = "groups-with-items"'))
        # What every output is compared with, and what `wire` sends.
        self.run("bare")
        self.expected = server.told("digest")
        self.posts.write_bytes(server.ask("posts"))
        if self.expected["rows"] != self.products:
            sys.exit(f"bench: the sink holds {self.expected['rows']} rows of {self.products}")

    def fresh_store(self):
        self.stores += 1
        return self.scratch / f"store-{self.size}-{self.stores}"

    def run(self, name, latency_ms=0, store=None, pipeline=None, posts=None):
        """Runs a contestant to its end and returns what it cost."""
        url = self.server.url
        environment = dict(os.environ)
        if name == OURS:
            store = store or self.fresh_store()
            environment |= CREDENTIALS | {
                "OKKI_BASE_URL": url,
                "TARGET_BASE_URL": url,
                "OKKI_SYNC_STORE": f"file://{store}",
            }
            command = [self.okki_sync, "sync", "--json", "--pipeline", pipeline or self.pipeline]
        elif name in ("bare", "wire"):
            command = [BIN / name, "--url", url, "--products", str(self.products), "--posts", posts or self.posts]
        else:
            command = [PYTHON, HERE / f"{name}.py", url]
        self.server.ask(f"reset?latency_ms={latency_ms}")
        served = self.server.cpu()
        lines = launch(command, environment, self.scratch)
        served = self.server.cpu() - served
        started, cost = json.loads(lines[0]), json.loads(lines[1])
        if cost["code"] != 0:
            sys.exit(f"bench: {name} ended with {cost['code']}:\n{(self.scratch / 'stderr').read_text()[-2000:]}")
        stats = self.server.told("stats")
        return {
            "wall": cost["wall"],
            "cpu": cost["user"] + cost["sys"],
            "peak_mib": cost["peak_kib"] / 1024,
            "first_ms": (stats["first_ns"] - started["started_ns"]) / 1e6,
            "server_cpu": served,
            "requests": stats["reads"] + stats["logins"],
            "posts": stats["posts"],
        }

    def rounds(self, names, runs, latency_ms=0, shape="", expected=None, **how):
        """Every contestant once per round; each output is compared. `how` is what `run` takes besides."""
        expected = expected or self.expected
        results = {name: [] for name in names}
        for turn in range(runs):
            for name in names:
                say(f"{self.size} {shape}{'20 ms ' if latency_ms else ''}round {turn + 1}/{runs}: {name}")
                results[name].append(self.run(name, latency_ms, **how))
                found = self.server.told("digest")
                if found != expected:
                    sys.exit(f"bench: {name} wrote {found}, not {expected}")
        return results

    def tree_rounds(self, runs):
        """The default shape, which only okki-sync builds, next to its own bytes on the wire."""
        self.run(OURS, pipeline=self.tree)
        expected = self.server.told("digest")
        self.tree_posts.write_bytes(self.server.ask("posts"))
        how = {"pipeline": self.tree, "posts": self.tree_posts}
        return self.rounds((OURS, "wire"), runs, LATENCY_MS, "groups with products, ", expected, **how)

    def repeats(self, runs):
        """okki-sync again on the same store, as its schedule runs it: nothing has changed, then one row."""
        unchanged, one_row = [], []
        store = self.fresh_store()
        again = lambda: self.run(OURS, store=store, pipeline=self.incremental)
        again()
        for turn in range(runs):
            say(f"{self.size} no change, then one row, round {turn + 1}/{runs}")
            unchanged.append(again())
            expect(unchanged[-1]["posts"] == 0, "a run without a change wrote something")
            self.server.ask("change")
            one_row.append(again())
            expect(self.server.told("digest")["sent"] == 1, "a change of one row did not write one row")
        self.server.ask("restore")
        return unchanged, one_row


def expect(condition, otherwise):
    if not condition:
        sys.exit(f"bench: {otherwise}")


def say(text):
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def launch(command, environment, scratch):
    pin = ["--cpu", "0"] if PINNED else []
    with open(scratch / "stderr", "w") as stderr:
        command = [BIN / "launch", *pin, "--", *command]
        done = subprocess.run(command, env=environment, cwd=scratch, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True)
    return done.stdout.splitlines()


def cold_starts(server, scratch, okki_lambda, runs):
    """From the start of the process to its first call to the runtime API, in ms."""
    (scratch / "pipeline.toml").write_text(PIPELINE)
    environment = dict(os.environ) | CREDENTIALS | {
        "AWS_LAMBDA_RUNTIME_API": server.url.removeprefix("http://"),
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
        "AWS_LAMBDA_LOG_GROUP_NAME": "bench",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "OKKI_SYNC_STORE": "s3://bench/okki",
        "OKKI_SYNC_PIPELINE": str(scratch / "pipeline.toml"),
    }
    commands = {"okki-sync-lambda": [okki_lambda], "python": [PYTHON, HERE / "cold.py"]}
    results = {name: {"first_ms": [], "peak_mib": []} for name in commands}
    for turn in range(runs):
        say(f"cold start {turn + 1}/{runs}")
        for name, command in commands.items():
            server.ask("reset")
            pin = ["--cpu", "0"] if PINNED else []
            with open(scratch / "stderr", "w") as stderr:
                process = subprocess.Popen(
                    [BIN / "launch", *pin, "--", *command], env=environment, cwd=scratch, stdout=subprocess.PIPE, stderr=stderr, text=True
                )
            started = json.loads(process.stdout.readline())
            deadline = time.monotonic() + 20
            # Asked rarely, so that the asking does not disturb what is measured.
            while not (first := server.told("stats")["first_ns"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            expect(first, f"{name} never called the runtime API: {(scratch / 'stderr').read_text()[-1000:]}")
            os.kill(started["pid"], 9)
            cost = json.loads(process.stdout.readline())
            process.wait()
            results[name]["first_ms"].append((first - started["started_ns"]) / 1e6)
            results[name]["peak_mib"].append(cost["peak_kib"] / 1024)
    return results


# What the numbers say


def median(runs, what):
    return statistics.median(run[what] for run in runs)


def ratio(theirs, ours, what):
    """The median of the ratios within the rounds."""
    return statistics.median(a[what] / b[what] for a, b in zip(theirs, ours))


ALT = "Wall time by size and program"
HEAD = ["size", "program", "wall s", "×", "CPU s", "×", "peak MiB", "first request ms"]
NAMES = {
    "okki-sync": "**okki-sync**",
    "bare": "reqwest + serde_json, no safety",
    "wire": "the wire alone",
    "aio": "aiohttp + orjson",
    "plain": "Python, requests",
}


# What was measured, and what its rows say besides the program.
KINDS = {
    "full": "",
    "latency": f", {LATENCY_MS} ms latency",
    "tree": f", groups with their products, {LATENCY_MS} ms latency",
}


def row(size, name, runs, ours):
    cells = [size, name, f"{median(runs, 'wall'):.3f}"]
    cells.append(f"{ratio(runs, ours, 'wall'):.2f}" if ours else "")
    cells.append(f"{median(runs, 'cpu'):.3f}")
    cells.append(f"{ratio(runs, ours, 'cpu'):.2f}" if ours else "")
    cells += [f"{median(runs, 'peak_mib'):.0f}", f"{median(runs, 'first_ms'):.1f}"]
    return f"| {' | '.join(cells)} |"


def table(results):
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|" + "--:|" * 6]
    for size, of_size in results["sizes"].items():
        for kind, added in KINDS.items():
            runs = of_size.get(kind, {})
            for name in runs:
                shown = f"{NAMES[name]}{added}"
                lines.append(row(size, shown, runs[name], runs.get(OURS)))
            if kind == "full":
                for key, what in (("unchanged", "nothing changed"), ("one_row", "one row changed")):
                    if again := of_size.get(key):
                        calls = statistics.median(run["requests"] + run["posts"] for run in again)
                        lines.append(row(size, f"okki-sync, {what} ({calls:.0f} calls)", again, runs.get(OURS)))
    sizes = " · ".join(
        f"{size}: {groups:,} groups, {products:,} products"
        for size, (groups, products) in (SIZES | MORE_SIZES).items()
        if size in results["sizes"]
    )
    note = f"Medians of {results['runs']} interleaved runs of whole processes; × is the ratio to okki-sync within the rounds. {results['machine']}."
    size, of_size = list(results["sizes"].items())[-1]
    if results["pinned"] and (ours := of_size["full"].get(OURS)):
        share = 100 * median(ours, "server_cpu") / median(ours, "wall")
        note += f" The server, on a CPU of its own, was busy for {share:.0f} % of okki-sync's wall time at {size}."
    lines += ["", sizes, "", note]
    if cold := results.get("cold"):
        ours, theirs = (statistics.median(cold[name]["first_ms"]) for name in ("okki-sync-lambda", "python"))
        lines += [
            "",
            f"Start to the first call of the Lambda runtime: {ours:.1f} ms; a Python handler with boto3 and requests: {theirs:.0f} ms"
            f" ({theirs / ours:.0f} ×). Both start with the pipeline in a local file and the credentials in variables, so no TLS"
            " handshake is in it; a deployment also reads its secret and its pipeline.",
        ]
    return "\n".join(lines)


def plot(results):
    """Bars of wall time, a panel for each size, each panel with its own scale. Readable on light and on dark."""
    bar, gap, left, width = 16, 6, 250, 760
    out, y = [], 10
    for size, of_size in results["sizes"].items():
        runs = of_size["full"]
        longest = max(median(of_one, "wall") for of_one in runs.values())
        groups, products = (SIZES | MORE_SIZES)[size]
        y += 20
        out.append(f'<text class="title" x="10" y="{y}">{size}: {groups:,} groups, {products:,} products</text>')
        y += 10
        for name, of_one in sorted(runs.items(), key=lambda item: median(item[1], "wall")):
            wall = median(of_one, "wall")
            length = max(1.0, wall / longest * (width - left - 90))
            shown = NAMES[name].strip("*")
            kind = "ours" if name == OURS else "theirs"
            out.append(f'<text class="name" x="{left - 8}" y="{y + 12}">{shown}</text>')
            out.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="2"/>')
            out.append(f'<text x="{left + length + 6:.1f}" y="{y + 12}">{wall:.3f} s</text>')
            y += bar + gap
        y += 8
    style = (
        "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.name{text-anchor:end}"
        ".ours{fill:#d1480f}.theirs{fill:#8c959f}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#ff8a4c}.theirs{fill:#6e7681}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" role="img">'
        f"<title>{ALT}</title><style>{style}</style>\n" + "\n".join(out) + "\n</svg>\n"
    )


def put_into(document, block):
    """Replaces the text between the markers. What people wrote around them stays."""
    before, found, rest = document.read_text().partition("<!-- bench -->")
    _, ended, after = rest.partition("<!-- /bench -->")
    expect(found and ended, f"{document} has no <!-- bench --> … <!-- /bench -->")
    document.write_text(f"{before}{found}\n{block}\n{ended}{after}")


def machine():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.machine()
    return f"{processor}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def build(args):
    if args.no_build:
        return
    subprocess.run(["cargo", "build", "--release", "--bins"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", "--release"], cwd=HERE, check=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", HERE / "requirements.txt"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="S,M,L", help="S, M, L and XL, with commas [S,M,L]")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each measurement [5]")
    parser.add_argument("--cold-runs", type=int, default=20, help="cold starts; 0 leaves them out [20]")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, with commas")
    parser.add_argument("--no-build", action="store_true", help="use the programs as they were built last")
    parser.add_argument("--okki-sync", type=Path, default=ROOT / "target/release/okki-sync", help="another build of it")
    args = parser.parse_args()
    sizes, names = args.sizes.split(","), args.only.split(",")
    if unknown := [size for size in sizes if size not in SIZES | MORE_SIZES] + [name for name in names if name not in CONTESTANTS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    build(args)

    results = {"machine": machine(), "runs": args.runs, "pinned": PINNED, "sizes": {}}
    scratch = Path(tempfile.mkdtemp(prefix="okki-bench-"))
    try:
        for size in sizes:
            with Server(*(SIZES | MORE_SIZES)[size]) as server:
                bench = Bench(size, server, scratch, args.okki_sync.resolve())
                of_size = results["sizes"][size] = {"product_bytes": server.product_bytes}
                of_size["full"] = bench.rounds(names, args.runs)
                fast = [name for name in names if name in (OURS, "bare", "wire")]
                # The source's answers are what takes time here: one size says it.
                if size == "M":
                    of_size["latency"] = bench.rounds(fast, args.runs, LATENCY_MS)
                    if {OURS, "wire"} <= set(names):
                        of_size["tree"] = bench.tree_rounds(args.runs)
                if OURS in names:
                    of_size["unchanged"], of_size["one_row"] = bench.repeats(args.runs)
        if OURS in names and args.cold_runs:
            with Server(*SIZES["S"]) as server:
                okki_lambda = args.okki_sync.resolve().with_name("okki-sync-lambda")
                results["cold"] = cold_starts(server, scratch, okki_lambda, args.cold_runs)
    finally:
        shutil.rmtree(scratch)
    say("")

    print(table(results))
    # A part of the picture does not replace the whole one.
    if sizes == list(SIZES) and names == CONTESTANTS:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "plot.svg").write_text(plot(results))
        put_into(HERE / "results.md", f"![{ALT}](plot.svg)\n\n{table(results)}")


if __name__ == "__main__":
    main()
