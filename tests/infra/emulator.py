"""The emulator of AWS (ministack) that runs the real Lambda program, with the sandbox as source and target.

Everything listens on 127.0.0.1 and is ended by id. The emulator is told to shorten the waits of state machines."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
from botocore.config import Config
from samtranslator.yaml_helper import yaml_parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from programs import PATIENCE, ROOT, Processes, call, free_port, listens, wait_for  # noqa: E402

BUCKET = "okki-sync-test"
REGION = "ap-east-1"
SECRET = "okki-sync/test"
MACHINE = "okki-sync-fleet"
# A second of a state machine's wait takes 2 ms here; the function's own clock is the real one.
WAIT_SCALE = 0.002
ASL = ROOT / "infra/fleet.asl.json"


class Sandbox:
    """`okki-sync sandbox` with a small catalogue."""

    def __init__(self, processes, name, *options):
        env_file = processes.directory / f"{name}.env"
        processes.start(f"sandbox-{name}", [
            ROOT / "target/debug/okki-sync", "sandbox", "--groups", "12", "--products", "60", "--env-file", env_file, *options])
        processes.wait_for(f"the sandbox {name}", lambda: env_file.exists() and "TARGET_TOKEN" in env_file.read_text())
        self.env = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.okki, self.target = self.env["OKKI_BASE_URL"], self.env["TARGET_BASE_URL"]

    def pipeline(self, connection):
        text = (ROOT / "sandbox/src/pipeline.toml").read_text().replace('"sandbox"', f'"{connection}"', 1)
        text = text.replace("[source]\n", f'[source]\nbase_url = "{self.okki}"\n', 1)
        return text.replace("[target]\n", f'[target]\nbase_url = "{self.target}"\n', 1)

    def secret(self):
        names = ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET"]
        return json.dumps({name.lower(): self.env[name] for name in names})

    def control(self, what, body=None):
        status, answer = call(f"{self.target}/_sandbox/{what}", body or {})
        assert status == 200, answer
        return answer

    def look(self, what):
        return call(f"{self.target}/_sandbox/{what}")[1]

    def holds_the_catalogue(self):
        groups = call(f"{self.okki}/_sandbox/catalogue")[1]["groups"]
        names = {str(group["id"]): group["name"] for group in groups}
        return len(names) == 12 and {id: row["name"] for id, row in self.look("rows").items()} == names


def bootstrap_zip():
    """The dev build as Lambda wants it. Without its debug information it is a fifth as large."""
    program = ROOT / "target/debug/okki-sync-lambda"
    stripped = program.with_name("bootstrap")
    if not stripped.exists() or stripped.stat().st_mtime < program.stat().st_mtime:
        subprocess.run(["strip", "-o", stripped, program], check=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(stripped, "bootstrap")
    return packed.getvalue()


def literal(text):
    """For the emulator: it reads the numbers of a distributed Map only as literals, where AWS evaluates them too."""
    return re.sub(r'"[{]% ([$][{]\w+}) %[}]"', r"\1", text)


def filled(text, values):
    """The state machine as a deployment fills it in."""
    text = literal(text)
    for name, value in values.items():
        text = text.replace("${" + name + "}", str(value))
    return json.loads(text)


class Cloud:
    def __init__(self, processes):
        self.processes = processes
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._mocks = processes.directory / "mocks.json"
        self._mocks.write_text(json.dumps(MOCKS))
        self.log = processes.start("ministack", [
            ROOT / ".venv/emulator/bin/python", Path(__file__).with_name("patient_emulator.py")], {
            "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "MINISTACK_REGION": REGION, "AWS_ENDPOINT_URL": self.url,
            "SFN_WAIT_SCALE": str(WAIT_SCALE), "SFN_MOCK_CONFIG": str(self._mocks), "TMPDIR": str(processes.directory),
            # The functions inherit this environment, and a shell that sourced dev.env would override every pipeline.
            **{name: "" for name in os.environ if name.startswith(("OKKI_", "QEASY_", "TARGET_"))},
        })
        processes.wait_for("ministack", lambda: listens(port))
        self.s3, self.secrets, self.functions, self.scheduler, self.machines, self.formation = (
            self.client(name) for name in
            ["s3", "secretsmanager", "lambda", "scheduler", "stepfunctions", "cloudformation"])
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.zip = bootstrap_zip()

    def client(self, service):
        # No second try: the emulator loses nothing, and to create something twice is an error.
        config = Config(read_timeout=PATIENCE, connect_timeout=PATIENCE, retries={"total_max_attempts": 1})
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, config=config,
                            aws_access_key_id="test", aws_secret_access_key="test-secret-key")

    def function(self, name, prefix, seconds=PATIENCE):
        """The real program as a function whose store is below `prefix`; answers its ARN."""
        self.functions.create_function(
            FunctionName=name, Runtime="provided.al2023", Handler="bootstrap", Role="arn:aws:iam::000000000000:role/any",
            Code={"ZipFile": self.zip}, Timeout=seconds, MemorySize=512, Environment={"Variables": {
                "OKKI_SYNC_SECRET": SECRET, "OKKI_SYNC_STORE": f"s3://{BUCKET}/{prefix}",
                # Its pipelines name sandboxes.
                "OKKI_SYNC_HOSTS": "127.0.0.1"}})
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return self.functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]

    def put(self, key, text):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())

    def keys(self, under):
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=under).get("Contents", [])]

    def machine(self, name, definition):
        return self.machines.create_state_machine(
            name=name, definition=json.dumps(definition), roleArn="arn:aws:iam::000000000000:role/any")["stateMachineArn"]

    def start(self, machine, data=None):
        """Starts the state machine; answers the execution's ARN."""
        started = self.machines.start_execution(stateMachineArn=machine, input=json.dumps(data if data is not None else {}))
        return started["executionArn"]

    def end_of(self, execution):
        """Waits for the execution's end; answers it as described."""
        def ended():
            described = self.machines.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        return wait_for("the end of the execution", ended)

    def execute(self, machine, data=None):
        return self.end_of(self.start(machine, data))

    def children(self, execution):
        """The child executions, by the key of the pipeline file: output and events. None before the map has begun."""
        found, pages = {}, []
        for run in self.machines.list_map_runs(executionArn=execution)["mapRuns"]:
            pages.extend(self.machines.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"]))
        for entry in (entry for page in pages for entry in page["executions"]):
            child = self.machines.describe_execution(executionArn=entry["executionArn"])
            history = self.machines.get_paginator("get_execution_history").paginate(executionArn=entry["executionArn"])
            events = [event for page in history for event in page["events"]]
            found[json.loads(child["input"])["Key"]] = (json.loads(child.get("output") or "null"), events)
        return found


def throws(error):
    return {"0-999": {"Throw": {"Error": error, "Cause": "as the test wishes"}}}


# Errors that Lambda itself would have to be broken for: by the name of the execution's test case.
MOCKS = {
    "StateMachines": {MACHINE: {"TestCases": {
        "ServiceFails": {"Sync": "ServiceFails"}, "Throttles": {"Sync": "Throttles"}, "OursFails": {"Sync": "OursFails"}}}},
    "MockedResponses": {
        "ServiceFails": throws("Lambda.ServiceException"),
        "Throttles": throws("Lambda.TooManyRequestsException"),
        "OursFails": throws("SourceUnavailable")},
}


class Fleet:
    """The state machine over a store of its own, and three sandboxes: one well, one in trouble, one with bad rows."""

    def __init__(self, cloud, processes):
        self.cloud = cloud
        self.well = Sandbox(processes, "well")
        self.troubled = Sandbox(processes, "troubled")
        self.dirty = Sandbox(processes, "dirty", "--dirty")
        cloud.secrets.create_secret(Name=SECRET, SecretString=self.well.secret())
        self.function = cloud.function("okki-sync", "fleet")
        self.values = {
            "Partition": "aws", "FunctionArn": self.function, "StoreBucket": BUCKET, "StorePrefix": "fleet/",
            "MaxConcurrency": 8, "ToleratedFailurePercentage": 20}
        self.definition = filled(ASL.read_text(), self.values)
        self.machine = cloud.machine(MACHINE, self.definition)

    def start(self, pipelines, machine=None, case=None):
        """Begins to sync exactly these pipelines; answers the execution's ARN."""
        for key in self.cloud.keys("fleet/pipelines/"):
            self.cloud.s3.delete_object(Bucket=BUCKET, Key=key)
        for name, text in pipelines.items():
            self.cloud.put(f"fleet/pipelines/{name}", text)
        return self.cloud.start((machine or self.machine) + (f"#{case}" if case else ""))

    def children(self, execution):
        """By file name."""
        return {key.removeprefix("fleet/pipelines/"): child for key, child in self.cloud.children(execution).items()}

    def run(self, pipelines, machine=None, case=None):
        """Syncs exactly these pipelines; answers the execution and its children by file name."""
        execution = self.start(pipelines, machine, case)
        return self.cloud.end_of(execution), self.children(execution)


def is_emulated(resource):
    """The emulator's CloudFormation knows no composite alarms and no metric math. Nothing that is tested runs through one."""
    return resource["Type"] != "AWS::CloudWatch::CompositeAlarm" and "Metrics" not in resource["Properties"]


class Stack:
    """A stack of infra/template.yaml, with a sandbox of its own, whose schedule fires each minute."""

    def __init__(self, cloud, processes, name, **parameters):
        self.cloud, self.name = cloud, name
        self.sandbox = Sandbox(processes, name)
        self.template = self._template()
        cloud.formation.create_stack(
            StackName=name, TemplateBody=json.dumps(self.template), Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in {
                "Architecture": "x86_64", "Connection": "main", "ScheduleExpression": "rate(1 minute)",
                "FlexibleWindowMinutes": "0", "Hosts": "127.0.0.1", **parameters}.items()])
        described = processes.wait_for(f"the stack {name}", self._created)
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        self.bucket = self.outputs["Store"]
        # As `make deploy` does after the stack: the credentials, and a pipeline.
        cloud.secrets.put_secret_value(SecretId=self.outputs["Secret"], SecretString=self.sandbox.secret())
        cloud.s3.put_object(Bucket=self.bucket, Key="pipelines/main.toml", Body=self.sandbox.pipeline("main").encode())

    def _created(self):
        [stack] = self.cloud.formation.describe_stacks(StackName=self.name)["Stacks"]
        if stack["StackStatus"] == "CREATE_IN_PROGRESS":
            return None
        events = self.cloud.formation.describe_stack_events(StackName=self.name)["StackEvents"]
        why = [(event["LogicalResourceId"], event.get("ResourceStatusReason")) for event in events
               if event["ResourceStatus"] == "CREATE_FAILED"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", why or stack
        return stack

    def _template(self):
        """As written, with the program and the state machine where `sam package` would have put them."""
        self.cloud.s3.put_object(Bucket=BUCKET, Key="code/function.zip", Body=self.cloud.zip)
        self.cloud.s3.put_object(Bucket=BUCKET, Key="code/fleet.asl.json", Body=literal(ASL.read_text()).encode())
        template = yaml_parse((ROOT / "infra/template.yaml").read_text())
        resources = template["Resources"]
        resources["Function"]["Properties"]["CodeUri"] = f"s3://{BUCKET}/code/function.zip"
        resources["FleetMachine"]["Properties"]["DefinitionUri"] = f"s3://{BUCKET}/code/fleet.asl.json"
        template["Resources"] = {name: resource for name, resource in resources.items() if is_emulated(resource)}
        return template

    def resources(self):
        """Physical ids by type."""
        pages = self.cloud.formation.get_paginator("list_stack_resources").paginate(StackName=self.name)
        found = {}
        for entry in (entry for page in pages for entry in page["StackResourceSummaries"]):
            found.setdefault(entry["ResourceType"], {})[entry["LogicalResourceId"]] = entry["PhysicalResourceId"]
        return found

    def stored(self, under):
        listed = self.cloud.s3.list_objects_v2(Bucket=self.bucket, Prefix=under).get("Contents", [])
        return [self.cloud.s3.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"].read() for entry in listed]
