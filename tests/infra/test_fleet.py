"""infra/fleet.asl.json executed by an emulator of Step Functions, S3 listing and distributed Map included, with the real
Lambda program behind it and the sandbox behind that."""

import json
import re
import subprocess
import time
from datetime import timedelta

import jsonata
import pytest
from emulator import ASL, BUCKET, WAIT_SCALE, filled
from programs import VENV, renewed, wait_for

LIMIT_BYTES = 256 * 1024


def rounds(child):
    return sum(event["type"] == "TaskScheduled" for event in child[1])


def summary(execution):
    assert execution["status"] == "SUCCEEDED", execution
    return json.loads(execution["output"])


def counts(told):
    return {name: count for name, count in told.items() if isinstance(count, int) and name != "oldest_age_seconds"}


def test_the_definition_is_one_that_cloudformation_accepts(tmp_path):
    values = {"Partition": "aws", "FunctionArn": "arn:aws:lambda:ap-east-1:123456789012:function:f", "StoreBucket": "b",
              "StorePrefix": "p/", "MaxConcurrency": 40, "ToleratedFailurePercentage": 5}
    text = ASL.read_text()
    assert set(re.findall(r"[$][{](\w+)}", text)) == values.keys()
    # With its numbers as literals: the linter knows no expressions there, though the language has them.
    template = {"Resources": {"Fleet": {"Type": "AWS::StepFunctions::StateMachine", "Properties": {
        "RoleArn": "arn:aws:iam::123456789012:role/r", "Definition": filled(text, values)}}}}
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    done = subprocess.run([VENV / "cfn-lint", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_connection_that_is_done_at_once_is_run_once(fleet):
    execution, children = fleet.run({"once.toml": fleet.well.pipeline("once")})
    told = summary(execution)
    assert 0 <= told.pop("oldest_age_seconds") < 300
    assert told == {
        "connections": 1, "succeeded": 1, "partial": 0, "paused": 0, "failed": 0,
        "paused_connections": [], "stalled_connections": [], "failed_connections": [], "ignored": [],
        "stale_connections": [], "oldest_connection": "once"}
    assert children["once.toml"][0] == "succeeded" and rounds(children["once.toml"]) == 1
    assert fleet.well.holds_the_catalogue()
    assert len(fleet.cloud.keys("fleet/reports/once/")) == 1


def test_a_pausing_connection_runs_again_when_it_said_and_stays_silent(fleet):
    # Five of these seconds are kept for saving, so a run cannot wait as long as the source wants silence. The machine's waits
    # are shorter here than in the field, and the silence is not: so dozens of rounds come, which must not call.
    told_seconds, throttled = 9, 2
    brief = fleet.cloud.function("okki-sync-brief", "fleet", seconds=12)
    text = ASL.read_text().replace("$round < 50 ", "$round < 5000000 ").replace("$stalled >= 3 ", "$stalled >= 3000000 ")
    machine = fleet.cloud.machine("brief", filled(text, {**fleet.values, "FunctionArn": brief}))
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": told_seconds}}, "times": throttled})
    execution, children = fleet.run({"pausing.toml": fleet.troubled.pipeline("pausing")}, machine)
    assert summary(execution)["succeeded"] == 1
    reports = [json.loads(fleet.cloud.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
               for key in sorted(fleet.cloud.keys("fleet/reports/pausing/"))]
    assert [report["status"] for report in reports] == ["paused"] * (len(reports) - 1) + ["succeeded"]
    refused = [report for report in reports[:-1] if report["source"]["throttled"] > 0]
    assert [report["resume_after_seconds"] for report in refused] == [told_seconds] * throttled
    # A run that begins shortly before the end of the silence waits for it, and may then have no time left. All others are silent.
    told = [report["resume_after_seconds"] or 0 for report in reports[:-1]]
    silent = [report for report, seconds in zip(reports, told) if seconds >= told_seconds - 1 and report not in refused]
    assert [report["source"]["requests"] for report in silent] == [0] * len(silent)
    events = children["pausing.toml"][1]
    ended = [event["timestamp"] for event in events if event["type"] == "TaskSucceeded"]
    begun = [event["timestamp"] for event in events if event["type"] == "TaskScheduled"]
    for end, begin, seconds in zip(ended, begun[1:], told):
        # The emulator's times are whole milliseconds.
        assert begin - end >= timedelta(seconds=seconds * WAIT_SCALE) - timedelta(milliseconds=2)
    assert fleet.troubled.holds_the_catalogue()


def test_a_connection_that_somebody_else_is_running_is_waited_for(fleet):
    holder = {"run_id": "of-somebody-else", "since": "2026-11-23T00:00:00Z", "expires_at_ms": 1}
    record = {"format": "okki-sync run", "version": 1, "holder": holder, "target_calls_ms": [], "target_blocked_until_ms": None}
    # Its rounds are shorter than in the field: fifty may be over before this test has seen the first.
    text = ASL.read_text()
    assert "$round < 50 " in text
    machine = fleet.cloud.machine("patient", filled(text.replace("$round < 50 ", "$round < 5000000 "), fleet.values))

    def busy():
        events = [event for _, events in fleet.children(execution).values() for event in events]
        return any(event["type"] == "TaskFailed" and event["taskFailedEventDetails"]["error"] == "Busy" for event in events)

    with renewed(record, lambda text: fleet.cloud.put("fleet/state/held.run", text)):
        execution = fleet.start({"held.toml": fleet.well.pipeline("held")}, machine)
        wait_for("a round that finds it busy", busy)
    fleet.cloud.put("fleet/state/held.run", json.dumps({**record, "holder": None}))
    assert summary(fleet.cloud.end_of(execution))["succeeded"] == 1


def test_a_run_that_says_no_time_to_wait_for_is_taken_up_again(fleet):
    # Five of these seconds are kept for saving, so a slow answer of the source ends the run. The other ten are far more than
    # a run needs without it.
    short = fleet.cloud.function("okki-sync-short", "fleet", seconds=15)
    machine = fleet.cloud.machine("short", filled(ASL.read_text(), {**fleet.values, "FunctionArn": short}))
    fleet.troubled.control("faults", {"at": "okki_groups", "kind": {"slow": 12}})
    execution, children = fleet.run({"slow.toml": fleet.troubled.pipeline("slow")}, machine)
    assert summary(execution)["succeeded"] == 1
    assert rounds(children["slow.toml"]) >= 2
    first = json.loads(next(
        event["taskSucceededEventDetails"]["output"] for event in children["slow.toml"][1] if event["type"] == "TaskSucceeded"))
    assert (first["Payload"]["status"], first["Payload"]["resume_after_seconds"]) == ("paused", None)


def test_a_connection_without_progress_is_left_after_three_rounds_and_named(fleet):
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": 80}}, "times": 4})
    execution, children = fleet.run({"endless.toml": fleet.troubled.pipeline("endless")})
    assert rounds(children["endless.toml"]) == 4
    told = summary(execution)
    assert (told["paused"], told["failed"]) == (1, 0)
    assert told["paused_connections"] == told["stalled_connections"] == ["endless"]


def test_a_connection_that_never_ends_is_named_after_fifty_rounds(fleet):
    text = ASL.read_text()
    assert "$stalled >= 3 " in text
    machine = fleet.cloud.machine("progressing", filled(text.replace("$stalled >= 3 ", "$stalled >= 3000 "), fleet.values))
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": 80}}, "times": 50})
    execution, children = fleet.run({"endless.toml": fleet.troubled.pipeline("endless")}, machine)
    assert rounds(children["endless.toml"]) == 50
    told = summary(execution)
    assert (told["paused"], told["paused_connections"], told["stalled_connections"]) == (1, ["endless"], [])


def stalled_after(runs):
    """The number of runs without progress after each of these paused ones: (rows taken by the target, rows that remain)."""
    states = json.loads(ASL.read_text())["States"]["Connections"]["ItemProcessor"]["States"]
    known, counts = dict(states["Name"]["Assign"]), []
    for taken, remaining in runs:
        payload = {"status": "paused", "target": {"written": taken, "deleted": 0}, "remaining": remaining}
        bindings = {"states": {"result": {"Payload": payload}}, **{name: known[name] for name in ("round", "fewest", "stalled")}}
        for name, expression in states["Sync"]["Assign"].items():
            parsed = jsonata.Jsonata.jsonata(expression.removeprefix("{%").removesuffix("%}").strip())
            for variable, value in bindings.items():
                parsed.assign(variable, value)
            known[name] = parsed.evaluate(None)
        counts.append(known["stalled"])
    return counts


@pytest.mark.parametrize(("runs", "stalled"), [
    # A million products: three runs read, then rows are written, of which more remain than were left to read.
    ([(0, 553_000), (0, 106_000), (375_000, 625_000), (375_000, 250_000)], [0, 0, 0, 0]),
    # The same rows remain.
    ([(0, 5_000), (0, 5_000), (0, 5_000), (0, 5_000)], [0, 1, 2, 3]),
    # Two steps forward, one back: what counts is the fewest so far.
    ([(0, 5_000), (0, 3_000), (0, 4_000), (0, 3_500), (0, 2_999)], [0, 0, 1, 2, 0]),
    # Runs that were stopped before they could count say 1.
    ([(0, 1), (0, 1), (0, 1), (0, 1)], [0, 1, 2, 3]),
    ([(0, 5_000), (0, 1), (0, 4_000), (0, 1), (0, 1), (0, 3_000)], [0, 1, 0, 1, 2, 0]),
    # Rows that the target takes are progress, whatever comes after them.
    ([(10, 100), (0, 200), (0, 150), (10, 300), (0, 250)], [0, 1, 2, 0, 0]),
])
def test_progress_is_rows_that_the_target_took_or_fewer_that_remain(runs, stalled):
    assert stalled_after(runs) == stalled


def test_a_mixed_fleet_of_twenty_goes_on_past_what_is_broken_and_names_it(fleet):
    well = [f"well-{n}" for n in range(12)]
    pausing = [f"pausing-{n}" for n in range(3)]
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": 400}}, "times": 1})
    pipelines = {f"{name}.toml": fleet.well.pipeline(name) for name in well}
    pipelines |= {f"{name}.toml": fleet.troubled.pipeline(name) for name in pausing}
    pipelines["dirty.toml"] = fleet.dirty.pipeline("dirty")
    pipelines["unreadable.toml"] = "connection = [[[\n"
    pipelines["misfiled.toml"] = fleet.well.pipeline("another")
    pipelines["Not A Name.toml"] = fleet.well.pipeline("name")
    pipelines["deeper/nested.json"] = "{}"
    # No pipelines: a folder's marker as consoles make it, and a note.
    pipelines |= {"": "", "README.md": "what stands here"}
    execution, children = fleet.run(pipelines)
    told = summary(execution)
    assert counts(told) == {
        "connections": 20, "succeeded": 12, "partial": 1, "paused": 3, "failed": 4}
    # In the field they would wait longer than their source wants silence.
    assert sorted(told["stalled_connections"]) == sorted(told["paused_connections"]) == pausing
    assert sorted(told["failed_connections"]) == ["Not A Name", "deeper/nested", "misfiled", "unreadable"]
    assert sorted(told["ignored"]) == ["", "README.md"]
    assert [rounds(children[f"{name}.toml"]) for name in pausing] == [4] * 3
    failed = {name: [event["taskFailedEventDetails"]["error"] for event in events if event["type"] == "TaskFailed"]
              for name, (output, events) in children.items() if str(output).startswith("failed")}
    assert failed == {"unreadable.toml": ["BadPipeline"], "misfiled.toml": ["BadPipeline"],
                      "Not A Name.toml": ["BadEvent"], "deeper/nested.json": ["BadEvent"]}
    states = {key.removeprefix("fleet/state/") for key in fleet.cloud.keys("fleet/state/")}
    assert {f"{name}.state" for name in [*well, "dirty"]} <= states


def test_too_many_failures_fail_the_fleet_after_everybody_had_a_turn(fleet):
    pipelines = {"good.toml": fleet.well.pipeline("good"), "bad.toml": "connection = 5"}
    execution, children = fleet.run(pipelines)
    assert (execution["status"], execution.get("error")) == ("FAILED", "TooManyFailed")
    cause = json.loads(execution["cause"])
    assert (cause["connections"], cause["succeeded"], cause["failed_connections"]) == (2, 1, ["bad"])
    assert children["good.toml"][0] == "succeeded"


def test_a_connection_that_has_not_completed_for_hours_is_named_with_its_age(fleet):
    hours_ago_ms = int(time.time() * 1000) - 10 * 3600 * 1000
    record = {"format": "okki-sync run", "version": 1, "holder": None, "target_calls_ms": [], "target_blocked_until_ms": None}
    fleet.cloud.put("fleet/state/broken.run", json.dumps({**record, "completed_at_ms": hours_ago_ms}))
    machine = fleet.cloud.machine("tolerant", filled(ASL.read_text(), {**fleet.values, "ToleratedFailurePercentage": 100}))
    pipelines = {"good.toml": fleet.well.pipeline("good"), "broken.toml": "connection = 5"}
    told = summary(fleet.run(pipelines, machine)[0])
    assert (told["stale_connections"], told["oldest_connection"], told["failed_connections"]) == (["broken"], "broken", ["broken"])
    assert 10 * 3600 <= told["oldest_age_seconds"] < 11 * 3600


def test_a_store_without_pipelines_is_no_success(fleet):
    execution, _ = fleet.run({"README.md": "nothing here"})
    assert (execution["status"], execution.get("error")) == ("FAILED", "NoPipelines")
    assert "s3://okki-sync-test/fleet/pipelines/" in execution["cause"]


@pytest.mark.parametrize(("case", "tries"), [("ServiceFails", 7), ("Throttles", 21), ("OursFails", 1)])
def test_what_lambda_could_not_do_is_retried_and_a_failure_of_our_own_is_not(fleet, case, tries):
    execution, children = fleet.run({"retried.toml": fleet.well.pipeline("retried")}, case=case)
    assert rounds(children["retried.toml"]) == tries
    assert children["retried.toml"][0] == "failed retried"
    assert execution.get("error") == "TooManyFailed"


def ten_thousand_answers():
    answers = ["succeeded"] * 9_000 + ["partial"] * 600 + [f"failed connection-number-{n}" for n in range(398)]
    return answers + ["stalled slow-one", None]


def test_the_summary_of_ten_thousand_connections_fits_a_payload(fleet):
    answers = ten_thousand_answers()
    assert len(json.dumps(answers)) < LIMIT_BYTES / 1.5
    machine = fleet.cloud.machine("summary", {**fleet.definition, "StartAt": "Summary"})
    told = summary(fleet.cloud.execute(machine, answers))
    assert counts(told) == {
        "connections": 10_000, "succeeded": 9_000, "partial": 600, "paused": 1, "failed": 399}
    assert len(told["failed_connections"]) == 398 and told["paused_connections"] == told["stalled_connections"] == ["slow-one"]


def test_the_summary_of_ten_thousand_connections_takes_five_steps_for_each():
    # AWS ends an expression after a second. Its speed is not ours to measure; the evaluator's steps are.
    expression = json.loads(ASL.read_text())["States"]["Summary"]["Output"].removeprefix("{%").removesuffix("%}").strip()
    parsed, steps = jsonata.Jsonata.jsonata(expression), []
    parsed.environment.set_evaluate_entry_callback(lambda *_: steps.append(1))
    assert parsed.evaluate(None, {"states": {"input": ten_thousand_answers()}})["connections"] == 10_000
    assert 10_000 < len(steps) < 50_000
