"""infra/fleet.asl.json executed by an emulator of Step Functions, S3 listing and distributed Map included, with the real
Lambda program behind it and the sandbox behind that."""

import json
import re
import subprocess
import time
from datetime import timedelta

import pytest
from emulator import ASL, BUCKET, WAIT_SCALE, filled
from programs import VENV

LIMIT_BYTES = 256 * 1024


def rounds(child):
    return sum(event["type"] == "TaskScheduled" for event in child[1])


def summary(execution):
    assert execution["status"] == "SUCCEEDED", execution
    return json.loads(execution["output"])


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
    assert summary(execution) == {
        "connections": 1, "succeeded": 1, "partial": 0, "paused": 0, "failed": 0,
        "paused_connections": [], "failed_connections": [], "ignored": []}
    assert children["once.toml"][0] == "succeeded" and rounds(children["once.toml"]) == 1
    assert fleet.well.holds_the_catalogue()
    assert len(fleet.cloud.keys("fleet/reports/once/")) == 1


def test_a_connection_that_pauses_three_times_is_run_again_when_it_said(fleet):
    told_seconds = 500
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": told_seconds}}, "times": 3})
    execution, children = fleet.run({"pausing.toml": fleet.troubled.pipeline("pausing")})
    assert summary(execution)["succeeded"] == 1
    assert rounds(children["pausing.toml"]) == 4
    reports = [json.loads(fleet.cloud.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
               for key in sorted(fleet.cloud.keys("fleet/reports/pausing/"))]
    assert [report["status"] for report in reports] == ["paused"] * 3 + ["succeeded"]
    assert [report["resume_after_seconds"] for report in reports[:3]] == [told_seconds] * 3
    ended = [event["timestamp"] for event in children["pausing.toml"][1] if event["type"] == "TaskSucceeded"]
    begun = [event["timestamp"] for event in children["pausing.toml"][1] if event["type"] == "TaskScheduled"]
    for end, begin in zip(ended, begun[1:]):
        # The emulator's times are whole milliseconds.
        assert begin - end >= timedelta(seconds=told_seconds * WAIT_SCALE) - timedelta(milliseconds=2)
    assert fleet.troubled.holds_the_catalogue()


def test_a_connection_that_somebody_else_is_running_is_waited_for(fleet):
    holder = {"run_id": "of-somebody-else", "since": "2026-11-23T00:00:00Z", "expires_at_ms": int((time.time() + 4) * 1000)}
    record = {"format": "okki-sync run", "version": 1, "holder": holder, "target_calls_ms": [], "target_blocked_until_ms": None}
    fleet.cloud.s3.put_object(Bucket=BUCKET, Key="fleet/state/held.run", Body=json.dumps(record))
    execution, children = fleet.run({"held.toml": fleet.well.pipeline("held")})
    assert summary(execution)["succeeded"] == 1
    assert any(event["type"] == "TaskFailed" for event in children["held.toml"][1]), "it was busy at first"


def test_a_run_that_says_no_time_to_wait_for_is_taken_up_again(fleet):
    # Five of these seven seconds are kept for saving, so a slow answer of the source ends the run.
    short = fleet.cloud.function("okki-sync-short", "fleet", seconds=7)
    machine = fleet.cloud.machine("short", filled(ASL.read_text(), {**fleet.values, "FunctionArn": short}))
    fleet.troubled.control("faults", {"at": "okki_groups", "kind": {"slow": 3}})
    execution, children = fleet.run({"slow.toml": fleet.troubled.pipeline("slow")}, machine)
    assert summary(execution)["succeeded"] == 1
    assert rounds(children["slow.toml"]) >= 2
    first = json.loads(next(
        event["taskSucceededEventDetails"]["output"] for event in children["slow.toml"][1] if event["type"] == "TaskSucceeded"))
    assert (first["Payload"]["status"], first["Payload"]["resume_after_seconds"]) == ("paused", None)


def test_a_connection_that_never_stops_pausing_is_named_after_fifty_rounds(fleet):
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": 80}}, "times": 50})
    execution, children = fleet.run({"endless.toml": fleet.troubled.pipeline("endless")})
    assert rounds(children["endless.toml"]) == 50
    told = summary(execution)
    assert (told["paused"], told["failed"], told["paused_connections"]) == (1, 0, ["endless"])


def test_a_mixed_fleet_of_twenty_goes_on_past_what_is_broken_and_names_it(fleet):
    well = [f"well-{n}" for n in range(12)]
    pausing = [f"pausing-{n}" for n in range(3)]
    fleet.troubled.control("faults", {
        "at": "okki_groups", "kind": {"throttle": {"retry_after_seconds": 400}}, "times": 5})
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
    assert {name: count for name, count in told.items() if isinstance(count, int)} == {
        "connections": 20, "succeeded": 15, "partial": 1, "paused": 0, "failed": 4}
    assert sorted(told["failed_connections"]) == ["Not A Name", "deeper/nested", "misfiled", "unreadable"]
    assert sorted(told["ignored"]) == ["", "README.md"]
    assert sum(rounds(children[f"{name}.toml"]) for name in pausing) == 3 + 5
    failed = {name: [event["taskFailedEventDetails"]["error"] for event in events if event["type"] == "TaskFailed"]
              for name, (output, events) in children.items() if str(output).startswith("failed")}
    assert failed == {"unreadable.toml": ["BadPipeline"], "misfiled.toml": ["BadPipeline"],
                      "Not A Name.toml": ["BadEvent"], "deeper/nested.json": ["BadEvent"]}
    states = {key.removeprefix("fleet/state/") for key in fleet.cloud.keys("fleet/state/")}
    assert {f"{name}.state" for name in [*well, *pausing, "dirty"]} <= states


def test_too_many_failures_fail_the_fleet_after_everybody_had_a_turn(fleet):
    pipelines = {"good.toml": fleet.well.pipeline("good"), "bad.toml": "connection = 5"}
    execution, children = fleet.run(pipelines)
    assert (execution["status"], execution.get("error")) == ("FAILED", "TooManyFailed")
    cause = json.loads(execution["cause"])
    assert (cause["connections"], cause["succeeded"], cause["failed_connections"]) == (2, 1, ["bad"])
    assert children["good.toml"][0] == "succeeded"


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


def test_the_summary_of_ten_thousand_connections_fits_a_payload(fleet):
    answers = ["succeeded"] * 9_000 + ["partial"] * 600 + [f"failed connection-number-{n}" for n in range(398)]
    answers += ["paused slow-one", None]
    assert len(json.dumps(answers)) < LIMIT_BYTES / 1.5
    machine = fleet.cloud.machine("summary", {**fleet.definition, "StartAt": "Summary"})
    told = summary(fleet.cloud.execute(machine, answers))
    assert {name: count for name, count in told.items() if isinstance(count, int)} == {
        "connections": 10_000, "succeeded": 9_000, "partial": 600, "paused": 1, "failed": 399}
    assert len(told["failed_connections"]) == 398 and told["paused_connections"] == ["slow-one"]
