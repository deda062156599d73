"""Two runs of one connection on one S3 store: the lease, over the real wire."""

import json
import subprocess

from conftest import BUCKET, PREFIX, ROOT, SECRET, wait_for
from programs import HANGS_SECONDS


def start(world, connection):
    """The command line on the S3 store, as a person would run it beside the function."""
    env = {
        "PATH": "/usr/bin:/bin", "AWS_ENDPOINT_URL": world.aws, "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_REGION": "ap-east-1",
        "OKKI_SYNC_STORE": f"s3://{BUCKET}/{PREFIX}", "OKKI_SYNC_PIPELINE": f"pipelines/{connection}.toml",
        "OKKI_SYNC_SECRET": SECRET, "OKKI_BASE_URL": world.okki, "TARGET_BASE_URL": world.target,
    }
    return subprocess.Popen([ROOT / "target/debug/okki-sync", "sync", "--json"], env=env, cwd=world.directory,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=HANGS_SECONDS)
    return process.returncode, json.loads(out), err


def record(world):
    keys = world.keys("state/overlap.run")
    return json.loads(world.get(keys[0])) if keys else {}


def hold_source(world):
    world.control("faults", {"at": "okki_groups", "kind": "hold"})


def test_of_two_runs_the_second_names_the_first_and_a_dead_one_expires(world):
    pipeline = (ROOT / "sandbox/src/pipeline.toml").read_text()
    world.put("pipelines/overlap.toml", pipeline.replace('"sandbox"', '"overlap"', 1))
    hold_source(world)
    first = start(world, "overlap")
    wait_for("the first run's lease", lambda: record(world).get("holder"))
    holder = record(world)["holder"]
    code, report, _ = end(start(world, "overlap"))
    assert (code, report["status"]) == (1, "failed")
    assert report["error"].startswith(f"Busy: run {holder['run_id']} (since {holder['since']})"), report["error"]
    assert report["source"]["requests"] == report["target"]["requests"] == 0
    world.control("release")
    code, report, error = end(first)
    assert code == 0, error
    rows = report["plan"]["create"]
    assert record(world)["holder"] is None and report["target"]["written"] == rows > 100

    hold_source(world)
    killed = start(world, "overlap")
    wait_for("the killed run's lease", lambda: record(world).get("holder"))
    killed.kill()
    killed.communicate()
    code, report, _ = end(start(world, "overlap"))
    assert code == 1 and "its lease ends in" in report["error"], report["error"]
    # What waits for 30 s in the field is cut short here: the record says that its time is over.
    late = record(world)
    late["holder"]["expires_at_ms"] = 1
    world.put("state/overlap.run", json.dumps(late))
    code, report, error = end(start(world, "overlap"))
    assert code == 0, error
    assert report["plan"]["unchanged"] == rows
