#!/usr/bin/env python3
"""`make bench-ledger`: what the row ledger costs, and how fast a plan shows old values.

It runs okki-sync against the static source and sink of `make bench`. With `--before PROGRAM`, a build without a ledger,
both take turns, and each number has the median of the ratios within the rounds. It changes no file.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import run
from run import OURS, PIPELINE, ROOT, SIZES, Bench, Server, expect, median, ratio, say

# What each number may be, where it is compared: (wall, CPU, peak), as a share of the program before.
BARS = {"first sync": (1.10, 1.10, 1.15), "nothing changed": (1.10, 1.10, 1.10), "one row changed": (1.30, 1.30, 1.30)}
PLAN_S = 1.0
OVERHEAD_BYTES = 12
GUARDS = """
[[guard.values]]
field = "cost"
max_change = 0.5
"""
# A block in the table of a segment, as docs/formats.md has it.
TABLE_BYTES = 20


class Contestant:
    """A build of okki-sync with a store of its own."""

    def __init__(self, bench, program, pipeline):
        self.bench, self.program, self.pipeline = bench, program, pipeline
        self.store = bench.fresh_store()

    def run(self, store=None):
        self.bench.okki_sync = self.program
        return self.bench.run(OURS, store=store or self.store, pipeline=self.pipeline)


def first_syncs(bench, programs, runs, costs):
    for turn in range(runs):
        for name, program in programs.items():
            say(f"first sync, round {turn + 1}/{runs}: {name}")
            contestant = Contestant(bench, program, bench.pipeline)
            costs["first sync"][name].append(contestant.run())
            expect(bench.server.told("digest") == bench.expected, f"{name} wrote something else")
            shutil.rmtree(contestant.store)


def repeats(bench, contestants, runs, costs):
    for contestant in contestants.values():
        contestant.run()
    for turn in range(runs):
        say(f"no change, then one row, round {turn + 1}/{runs}")
        for name, contestant in contestants.items():
            costs["nothing changed"][name].append(contestant.run())
            expect(calls(costs["nothing changed"][name][-1]) == 4, f"{name} made other calls than 4 without a change")
        bench.server.ask("change")
        for name, contestant in contestants.items():
            costs["one row changed"][name].append(contestant.run())
            expect(bench.server.told("digest")["sent"] == 1, f"{name} did not write one row")
    bench.server.ask("restore")


def calls(cost):
    return cost["requests"] + cost["posts"]


def plans(bench, contestant, runs):
    """Seconds until a plan of one changed row shows its old value, of all the process."""
    contestant.run()
    bench.server.ask("change")
    environment = dict(os.environ) | run.CREDENTIALS | {
        "OKKI_BASE_URL": bench.server.url,
        "TARGET_BASE_URL": bench.server.url,
        "OKKI_SYNC_STORE": f"file://{contestant.store}",
    }
    command = [contestant.program, "plan", "--json", "--pipeline", contestant.pipeline]
    seconds = []
    for _ in range(runs):
        began = time.monotonic()
        done = subprocess.run(command, env=environment, cwd=bench.scratch, capture_output=True, check=True)
        seconds.append(time.monotonic() - began)
        changes = json.loads(done.stdout)["changes"]
        fields = changes[0]["fields"]
        expect(len(changes) == 1 and fields and all("old" in field for field in fields), f"the plan shows {changes}")
    bench.server.ask("restore")
    return seconds


def ledger_files(store):
    """Rows, bytes of the packed blocks, and all other bytes."""
    rows = packed = other = 0
    for path in sorted(Path(store).glob("state/*.ledger*")):
        data = path.read_bytes()
        line, _, body = data.partition(b"\n")
        header = json.loads(line)
        blocks = range(0, header["blocks"] * TABLE_BYTES, TABLE_BYTES)
        in_blocks = sum(int.from_bytes(body[at : at + 4], "little") for at in blocks)
        rows, packed, other = rows + header["rows"], packed + in_blocks, other + len(data) - in_blocks
    return rows, packed, other


def shown(name, before, after):
    """A row for each program, and whether the ratios are within their bars."""
    columns = ("wall", "cpu", "peak_mib")
    bars = BARS[name]
    cells = [f"{median(after, column):.3f}" for column in columns[:2]] + [f"{median(after, 'peak_mib'):.1f}"]
    if not before:
        return f"| {name} | {' | '.join(cells)} |", True
    old = [f"{median(before, column):.3f}" for column in columns[:2]] + [f"{median(before, 'peak_mib'):.1f}"]
    ratios = [ratio(after, before, column) for column in columns]
    compared = [f"{old} → {new} ({times:.2f} ×, at most {bar:.2f})" for old, new, times, bar in zip(old, cells, ratios, bars)]
    return f"| {name} | {' | '.join(compared)} |", all(times <= bar for times, bar in zip(ratios, bars))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="L", choices=SIZES, help="[L]")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each measurement [5]")
    parser.add_argument("--before", type=Path, help="a build without a row ledger, to compare with")
    parser.add_argument("--no-build", action="store_true", help="use the programs as they were built last")
    parser.add_argument("--okki-sync", type=Path, default=ROOT / "target/release/okki-sync", help="another build of it")
    args = parser.parse_args()
    if not args.no_build:
        subprocess.run(["cargo", "build", "--release", "--bin", "okki-sync"], cwd=ROOT, check=True)
        subprocess.run(["cargo", "build", "--release"], cwd=run.HERE, check=True)
    programs = {"before": args.before and args.before.resolve(), "after": args.okki_sync.resolve()}
    programs = {name: program for name, program in programs.items() if program}

    costs = {kind: {name: [] for name in programs} for kind in BARS}
    scratch = Path(tempfile.mkdtemp(prefix="okki-bench-"))
    try:
        with Server(*SIZES[args.size]) as server:
            bench = Bench(args.size, server, scratch, programs["after"])
            first_syncs(bench, programs, args.runs, costs)
            repeats(bench, {name: Contestant(bench, program, bench.incremental) for name, program in programs.items()}, args.runs, costs)
            after = Contestant(bench, programs["after"], bench.incremental)
            seconds = plans(bench, after, args.runs)
            rows, packed, other = ledger_files(after.store)
            guarded_pipeline = scratch / "guarded.toml"
            guarded_pipeline.write_text(PIPELINE.replace('products = "full"', 'products = "incremental"') + GUARDS)
            guarded = Contestant(bench, programs["after"], guarded_pipeline)
            guarded.run()
            with_guard = [guarded.run() for _ in range(args.runs)]
    finally:
        shutil.rmtree(scratch)
    say("")

    print(f"{args.size}: {SIZES[args.size][0]:,} groups, {SIZES[args.size][1]:,} products; medians of {args.runs} rounds. {run.machine()}.\n")
    print("| run | wall s | CPU s | peak MiB |\n|---|--:|--:|--:|")
    kept = []
    for kind, of_kind in costs.items():
        line, is_kept = shown(kind, of_kind.get("before"), of_kind["after"])
        kept.append(is_kept)
        print(line)
    cells = [f"{median(with_guard, 'wall'):.3f}", f"{median(with_guard, 'cpu'):.3f}", f"{median(with_guard, 'peak_mib'):.1f}"]
    print(f"| nothing changed, with `max_change` | {' | '.join(cells)} |\n")
    plan, overhead = statistics.median(seconds), other / rows
    print(f"A plan of one changed row shows its old value after {plan:.3f} s (at most {PLAN_S}).")
    print(f"The ledger of {rows:,} rows: {packed:,} bytes packed ({packed / rows:.1f} a row), and {overhead:.1f} bytes a row for all else (at most {OVERHEAD_BYTES}).")
    if not all(kept) or plan > PLAN_S or overhead > OVERHEAD_BYTES:
        sys.exit("a bar is not met")


if __name__ == "__main__":
    main()
