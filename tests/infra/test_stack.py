"""The stack of infra/template.yaml in the emulator: what it makes is there, and its schedule really fires the real program,
until the target holds the catalogue."""

import json

import pytest
from emulator import wait_for


@pytest.mark.parametrize("name", ["one", "fleet"])
def test_everything_that_the_template_declares_is_made(stacks, cloud, name):
    made = stacks[name].resources()
    conditions = {None, "SecretMade"} | ({"WithFleet"} if name == "fleet" else set())
    declared = {id for id, resource in stacks[name].template["Resources"].items() if resource.get("Condition") in conditions}
    assert declared <= {id for ids in made.values() for id in ids}
    assert ("AWS::StepFunctions::StateMachine" in made) == (name == "fleet")
    [function] = made["AWS::Lambda::Function"].values()
    configuration = cloud.functions.get_function_configuration(FunctionName=function)
    variables = configuration["Environment"]["Variables"]
    assert variables["OKKI_SYNC_STORE"] == f"s3://{stacks[name].bucket}"
    assert variables["OKKI_SYNC_PIPELINE"] == "pipelines/main.toml"
    assert (configuration["Runtime"], configuration["Timeout"]) == ("provided.al2023", 900)
    [schedule] = cloud.scheduler.list_schedules(NamePrefix=made["AWS::Scheduler::Schedule"]["Schedule"])["Schedules"]
    target = cloud.scheduler.get_schedule(Name=schedule["Name"])["Target"]["Arn"]
    assert target == (stacks[name].outputs["Fleet"] if name == "fleet" else configuration["FunctionArn"])


@pytest.mark.parametrize("name", ["one", "fleet"])
def test_the_schedule_fires_the_program_until_the_target_holds_the_catalogue(stacks, name):
    stack = stacks[name]
    wait_for("the catalogue at the target", stack.sandbox.holds_the_catalogue)
    report = json.loads(wait_for("the run's report", lambda: stack.stored("reports/main/"))[0])
    assert (report["mode"], report["connection"], report["status"]) == ("sync", "main", "succeeded")
    assert report["plan"]["create"] == report["target"]["written"] == 12
    [state] = stack.stored("state/main.state")
    assert b'"rows":12' in state and b'\n0 "' not in state, "all of them acknowledged"


def test_the_scheduled_fleet_ends_with_its_summary(stacks, cloud):
    def ended():
        machine = stacks["fleet"].outputs["Fleet"]
        return cloud.machines.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"]

    [execution, *_] = wait_for("the end of the execution", ended)
    output = json.loads(cloud.machines.describe_execution(executionArn=execution["executionArn"])["output"])
    assert (output["connections"], output["succeeded"], output["failed_connections"]) == (1, 1, [])
