"""The emulator of AWS (ministack) that runs the real Lambda program, with the sandbox as source and target.

Everything listens on 127.0.0.1 and is ended by id. The emulator is told to shorten the waits of state machines."""

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from programs import ROOT, VENV, Processes, call, free_port, listens, wait_for  # noqa: E402

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
        wait_for(f"the sandbox {name}", lambda: env_file.exists() and "TARGET_TOKEN" in env_file.read_text())
        self.env = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.okki, self.target = self.env["OKKI_BASE_URL"], self.env["TARGET_BASE_URL"]

    def pipeline(self, connection):
        text = (ROOT / "src/sandbox/pipeline.toml").read_text().replace('"sandbox"', f'"{connection}"', 1)
        text = text.replace("[source]\n", f'[source]\nbase_url = "{self.okki}"\n', 1)
        return text.replace("[target]\n", f'[target]\nbase_url = "{self.target}"\n', 1)

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


def filled(text, values):
    """The state machine as a deployment fills it in, and one thing for the emulator: it reads numbers of a distributed Map
    only as literals, where AWS evaluates them."""
    for name, value in values.items():
        text = text.replace("${" + name + "}", str(value))
    definition = json.loads(text)
    for state in definition["States"].values():
        for field in ("MaxConcurrency", "ToleratedFailurePercentage"):
            if field in state:
                state[field] = int(state[field].removeprefix("{%").removesuffix("%}"))
    return definition


class Cloud:
    def __init__(self, processes):
        self.processes = processes
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._mocks = processes.directory / "mocks.json"
        self._mocks.write_text(json.dumps(MOCKS))
        self.log = processes.start("ministack", [VENV / "ministack"], {
            "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "MINISTACK_REGION": REGION, "AWS_ENDPOINT_URL": self.url,
            "SFN_WAIT_SCALE": str(WAIT_SCALE), "SFN_MOCK_CONFIG": str(self._mocks), "TMPDIR": str(processes.directory),
        })
        wait_for("ministack", lambda: listens(port))
        self.s3, self.secrets, self.functions, self.scheduler, self.machines, self.iam, self.formation = (
            self.client(name) for name in
            ["s3", "secretsmanager", "lambda", "scheduler", "stepfunctions", "iam", "cloudformation"])
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.zip = bootstrap_zip()

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION,
                            aws_access_key_id="test", aws_secret_access_key="test-secret-key")

    def put_secret(self, sandbox):
        names = ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET"]
        value = json.dumps({name.lower(): sandbox.env[name] for name in names})
        self.secrets.create_secret(Name=SECRET, SecretString=value)

    def function(self, name, prefix, pipeline="", seconds=60):
        """The real program as a function whose store is below `prefix`; answers its ARN."""
        self.functions.create_function(
            FunctionName=name, Runtime="provided.al2023", Handler="bootstrap", Role="arn:aws:iam::000000000000:role/any",
            Code={"ZipFile": self.zip}, Timeout=seconds, MemorySize=512, Environment={"Variables": {
                "OKKI_SYNC_SECRET": SECRET, "OKKI_SYNC_STORE": f"s3://{BUCKET}/{prefix}",
                **({"OKKI_SYNC_PIPELINE": pipeline} if pipeline else {})}})
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return self.functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]

    def put(self, key, text):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())

    def keys(self, under):
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=under).get("Contents", [])]

    def machine(self, name, definition):
        return self.machines.create_state_machine(
            name=name, definition=json.dumps(definition), roleArn="arn:aws:iam::000000000000:role/any")["stateMachineArn"]

    def execute(self, machine, data=None, seconds=120):
        """Runs the state machine to its end; answers the execution as described."""
        started = self.machines.start_execution(stateMachineArn=machine, input=json.dumps(data if data is not None else {}))
        arn = started["executionArn"]

        def ended():
            execution = self.machines.describe_execution(executionArn=arn)
            return execution if execution["status"] != "RUNNING" else None

        return wait_for("the end of the execution", ended, seconds)

    def children(self, execution):
        """The child executions, by the key of the pipeline file: output and events."""
        [run] = self.machines.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]
        found = {}
        pages = self.machines.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"])
        for entry in (entry for page in pages for entry in page["executions"]):
            child = self.machines.describe_execution(executionArn=entry["executionArn"])
            history = self.machines.get_paginator("get_execution_history").paginate(executionArn=entry["executionArn"])
            events = [event for page in history for event in page["events"]]
            found[json.loads(child["input"])["Key"]] = (json.loads(child["output"]), events)
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
        cloud.put_secret(self.well)
        self.function = cloud.function("okki-sync", "fleet")
        self.values = {
            "Partition": "aws", "FunctionArn": self.function, "StoreBucket": BUCKET, "StorePrefix": "fleet/",
            "MaxConcurrency": 8, "ToleratedFailurePercentage": 20}
        self.definition = filled(ASL.read_text(), self.values)
        self.machine = cloud.machine(MACHINE, self.definition)

    def run(self, pipelines, machine=None, case=None):
        """Syncs exactly these pipelines; answers the execution and its children by file name."""
        for key in self.cloud.keys("fleet/pipelines/"):
            self.cloud.s3.delete_object(Bucket=BUCKET, Key=key)
        for name, text in pipelines.items():
            self.cloud.put(f"fleet/pipelines/{name}", text)
        execution = self.cloud.execute((machine or self.machine) + (f"#{case}" if case else ""))
        children = self.cloud.children(execution)
        return execution, {key.removeprefix("fleet/pipelines/"): child for key, child in children.items()}


class Scheduled:
    """A schedule that fires the function each minute, with a sandbox and a store of its own. It is made first, so that its
    minute passes while other tests run."""

    def __init__(self, cloud, processes):
        self.sandbox = Sandbox(processes, "scheduled")
        self.function = cloud.function("okki-sync-scheduled", "scheduled", "pipelines/main.toml")
        cloud.put("scheduled/pipelines/main.toml", self.sandbox.pipeline("main"))
        cloud.scheduler.create_schedule(
            Name="okki-sync", ScheduleExpression="rate(1 minute)", FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": self.function, "RoleArn": "arn:aws:iam::000000000000:role/any"})
        self.since = time.monotonic()


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("infra"))
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="session")
def cloud(processes):
    return Cloud(processes)


@pytest.fixture(scope="session")
def scheduled(cloud, processes):
    return Scheduled(cloud, processes)


@pytest.fixture(scope="session")
def fleet(scheduled, cloud, processes):
    return Fleet(cloud, processes)
