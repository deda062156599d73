"""Two runs of one connection on one S3 store: the lease, over the real wire."""

import json
import subprocess
import time

from conftest import BUCKET, GROUPS, PREFIX, ROOT, SECRET
from programs import PATIENCE, renewed


def start(world, connection):
    """The command line on the S3 store, as a person would run it beside the function."""
    env = {
        "PATH": "/usr/bin:/bin", "AWS_ENDPOINT_URL": world.aws, "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_REGION": "ap-east-1",
        "OKKI_SYNC_STORE": f"s3://{BUCKET}/{PREFIX}", "OKKI_SYNC_PIPELINE": f"pipelines/{connection}.toml",
        "OKKI_SYNC_SECRET": SECRET, "OKKI_BASE_URL": world.gate.url, "TARGET_BASE_URL": world.target,
    }
    return subprocess.Popen([ROOT / "target/debug/okki-sync", "sync", "--json"], env=env, cwd=world.directory,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, json.loads(out), err


def record(world):
    keys = world.keys("state/overlap.run")
    return json.loads(world.get(keys[0])) if keys else {}


def test_the_second_of_two_runs_names_the_first_and_a_killed_one_expires(world):
    pipeline = (ROOT / "sandbox/src/pipeline.toml").read_text()
    world.put("pipelines/overlap.toml", pipeline.replace('"sandbox"', '"overlap"', 1))
    with world.gate.hold(GROUPS) as wait_for_its_call:
        first = start(world, "overlap")
        wait_for_its_call()
        holder = record(world)["holder"]
        code, report, _ = end(start(world, "overlap"))
        assert (code, report["status"]) == (1, "failed")
        assert report["error"].startswith(f"Busy: run {holder['run_id']} (since {holder['since']})"), report["error"]
        assert report["source"]["requests"] == report["target"]["requests"] == 0
    code, report, error = end(first)
    assert code == 0, error
    rows = report["plan"]["create"]
    assert record(world)["holder"] is None and report["target"]["written"] == rows > 100

    with world.gate.hold(GROUPS) as wait_for_its_call:
        killed = start(world, "overlap")
        wait_for_its_call()
        killed.kill()
        killed.communicate()
    left = record(world)
    assert left["holder"]["expires_at_ms"] <= (time.time() + 30) * 1000
    # As if it had been killed just now, however long the next run takes to start.
    with renewed(left, lambda text: world.put("state/overlap.run", text)):
        code, report, _ = end(start(world, "overlap"))
    assert code == 1 and "its lease ends in" in report["error"], report["error"]
    # What waits for 30 s in the field is cut short here: the record says that its time is over.
    left["holder"]["expires_at_ms"] = 1
    world.put("state/overlap.run", json.dumps(left))
    code, report, error = end(start(world, "overlap"))
    assert code == 0, error
    assert report["plan"]["unchanged"] == rows
