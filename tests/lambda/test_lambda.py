"""The contract's events, the store on S3, credentials and their rotation, logs and metrics. In order: each test finds
what the ones before it left, as invocations of a warm function do."""

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import GROUPS, ROOT, SECRET, VENV
from programs import PATIENCE


def event(name):
    return json.loads((ROOT / "events" / name).read_text())


def test_cargo_lambda_invoke_with_the_scheduled_event_delivers_everything(world):
    done = subprocess.run(
        ["cargo", "lambda", "invoke", "-A", "127.0.0.1", "-P", str(world.port), "okki-sync-lambda",
         "--data-file", "events/scheduled.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "PATH": f"{VENV}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["connection"], report["mode"]) == ("succeeded", "main", "sync")
    catalogue, rows = world.catalogue(), world.rows()
    groups = {str(group["id"]): group["name"] for group in catalogue["groups"]}
    assert len(groups) == 120
    assert {id: row["name"] for id, row in rows.items()} == groups
    items = {item["id"] for row in rows.values() for item in row["items"]}
    assert items == {str(product["product_id"]) for product in catalogue["products"]}
    assert report["source"]["products"] == len(items) == 600


def test_the_same_event_again_writes_nothing(world):
    before = world.stats()
    for name in ["scheduled.json", "scheduled-rule.json", "sync.json", "full.json", "allow-mass-delete.json"]:
        status, report = world.invoke(event(name))
        assert status == 200 and report["status"] == "succeeded", (name, report)
        assert report["plan"]["unchanged"] == 120 and report["target"]["requests"] == 0, name
    assert world.stats()["rows_written"] == before["rows_written"]


def test_state_and_reports_are_on_s3(world):
    header, *rows = world.get("state/main.state").splitlines()
    assert json.loads(header)["rows"] == len(rows) == 120
    reports = world.keys("reports/main/")
    assert len(reports) == 6
    assert json.loads(world.get(reports[0]))["status"] == "succeeded"


def test_plan_and_verify_write_nothing(world):
    world.control("change")
    before, keys = world.stats()["rows_written"], world.keys()
    _, plan = world.invoke(event("plan.json"))
    assert plan["status"] == "succeeded" and plan["plan"]["update"] > 0
    _, verify = world.invoke(event("verify.json"))
    assert verify["status"] == "partial" and verify["remaining"] > 0
    assert world.stats()["rows_written"] == before and world.keys() == keys
    _, report = world.invoke(event("sync.json"))
    assert report["plan"] == plan["plan"]
    _, verify = world.invoke(event("verify.json"))
    assert verify["status"] == "succeeded" and verify["remaining"] == 0


def test_a_connection_runs_its_own_pipeline_with_its_own_state(world):
    status, report = world.invoke(event("connection.json"))
    assert status == 200 and report["connection"] == "acme" and report["status"] == "succeeded"
    assert "state/acme.state" in world.keys("state/")


# Which run each sample asks for: mode and connection. The files are read from the directory: one without a line here fails.
SAMPLES = {
    "allow-mass-delete.json": ("sync", "main"),
    "connection.json": ("sync", "acme"),
    "full.json": ("sync", "main"),
    "only.json": ("sync", "main"),
    "plan.json": ("plan", "main"),
    "scheduled-rule.json": ("sync", "main"),
    "scheduled.json": ("sync", "main"),
    "sync.json": ("sync", "main"),
    "verify.json": ("verify", "main"),
}


# It starts no run.
QUESTION = "freshness.json"


def test_how_fresh_the_connections_are_can_be_asked(world):
    world.invoke(event("sync.json"))
    status, answer = world.invoke(event(QUESTION))
    assert status == 200 and "main" not in answer["stale_connections"]
    [line] = [line for line in world.log_lines() if line.get("mode") == "freshness" and "_aws" in line]
    assert line["OldestCompletedRunAge"] >= 0


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "events").iterdir() if path.name != QUESTION))
def test_every_sample_event_is_answered_with_the_run_that_it_asks_for(world, name):
    status, report = world.invoke(event(name))
    assert status == 200 and (report["mode"], report["connection"]) == SAMPLES[name]
    assert report["status"] == "succeeded" and report["error"] is None


def test_a_run_that_fails_answers_an_error_that_names_its_kind(world):
    table = [
        ({"mode": "sync", "connection": "nobody"}, "BadPipeline", "pipelines/nobody.toml"),
        ({"mode": "sync", "connection": "broken"}, "BadPipeline", "pipelines/broken.toml:1 connection: is a number"),
        ({"mode": "sync", "connection": "misfiled"}, "BadPipeline", 'connection = "acme"'),
        ({"mode": "sink"}, "BadEvent", '"mode"'),
        ({"mode": "sync", "connection": "../x"}, "BadEvent", '"connection"'),
        ({"mode": "sync", "fulll": True}, "BadEvent", '"full"'),
        ({}, "BadEvent", '"mode"'),
    ]
    for sent, kind, words in table:
        _, answer = world.invoke(sent)
        assert answer.get("errorType") == kind, (sent, answer)
        assert words.replace('"', "") in answer["errorMessage"].replace('"', ""), (sent, answer)


def test_a_state_that_is_damaged_is_refused_and_left_as_it_is(world):
    good = world.get("state/main.state")
    damaged = good.replace(" ", "  ", 1)
    world.put("state/main.state", damaged)
    _, answer = world.invoke(event("sync.json"))
    assert answer["errorType"] == "BadState"
    assert world.get("state/main.state") == damaged
    world.put("state/main.state", good)


def test_a_state_that_somebody_else_saved_meanwhile_is_not_overwritten(world):
    good = world.get("state/main.state")
    world.control("change")
    with ThreadPoolExecutor() as pool:
        with world.gate.hold(GROUPS) as wait_for_its_call:
            running = pool.submit(world.invoke, event("sync.json"))
            wait_for_its_call()
            world.put("state/main.state", "somebody else's")
        _, answer = running.result()
    assert answer["errorType"] == "StateConflict"
    assert world.get("state/main.state") == "somebody else's"
    world.put("state/main.state", good)
    _, report = world.invoke(event("sync.json"))
    assert report["status"] == "succeeded"


def test_a_rotated_secret_takes_effect_without_restart_or_failed_run(world):
    world.secret.update(world.control("rotate"))
    world.secrets.put_secret_value(SecretId=SECRET, SecretString=json.dumps(world.secret))
    world.control("change")
    status, report = world.invoke(event("sync.json"))
    assert status == 200 and report["status"] == "succeeded" and report["target"]["written"] > 0, report


def test_wrong_credentials_end_the_run_and_the_right_ones_repair_it(world):
    fresh = world.control("rotate")
    _, answer = world.invoke(event("sync.json"))
    assert answer["errorType"] == "SourceCredentialsRefused"
    world.secret.update(fresh)
    world.secrets.put_secret_value(SecretId=SECRET, SecretString=json.dumps(world.secret))
    status, report = world.invoke(event("sync.json"))
    assert status == 200 and report["status"] == "succeeded"


def test_a_secret_without_a_field_is_named(world):
    lacking = {name: value for name, value in world.secret.items() if name != "qeasy_app_secret"}
    world.secrets.put_secret_value(SecretId=SECRET, SecretString=json.dumps(lacking))
    world.put("pipelines/fresh.toml", world.get("pipelines/acme.toml").replace('"acme"', '"fresh"'))
    _, answer = world.invoke({"mode": "plan", "connection": "fresh"})
    assert answer["errorType"] == "MissingCredentials" and "qeasy_app_secret" in answer["errorMessage"]
    world.secrets.put_secret_value(SecretId=SECRET, SecretString=json.dumps(world.secret))


def test_each_run_logs_its_steps_and_one_metrics_line_and_no_credential(world):
    lines = world.log_lines()
    steps = [line for line in lines if line.get("step") in ("fetched", "cleaned", "transformed", "written")]
    assert {line["step"] for line in steps} == {"fetched", "cleaned", "transformed", "written"}
    assert all("duration_ms" in line for line in steps)
    source = (ROOT / "src/metrics.rs").read_text()
    numbers = {name: kind for kind, name in re.findall(r'^    (published|property)\(\s*"(\w+)"', source, re.M)}
    published = {name for name, kind in numbers.items() if kind == "published"}
    # Left out where a run does not know it.
    seconds = set(re.findall(r'^    published_seconds\(\s*"(\w+)"', source, re.M))
    assert seconds == {"OldestReadAge"}
    metrics = [line for line in lines if "_aws" in line and line["mode"] != "freshness"]
    assert len({line["run_id"] for line in metrics}) == len(metrics) > 10
    for line in metrics:
        [directive] = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "OkkiSync" and directive["Dimensions"] == [["mode"]]
        names = {metric["Name"] for metric in directive["Metrics"]}
        assert names - seconds == published and names & seconds == seconds & line.keys()
        assert set(numbers) <= line.keys() and line["mode"] in ("sync", "plan", "verify")
    assert any(seconds <= line.keys() for line in metrics)
    printed = world.log.read_text(errors="replace")
    stored = "".join(world.get(key) for key in world.keys())
    for name, value in [*world.secret.items(), *world.sandbox.items()]:
        # Ids, addresses and hosts are no secrets.
        if "ID" not in name.upper() and "URL" not in name and "HOSTS" not in name:
            assert value not in printed and value not in stored, name
