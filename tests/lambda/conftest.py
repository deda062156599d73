"""The real Lambda program under cargo-lambda's runtime emulator, with Secrets Manager and S3 spoken over the wire (moto),
against the sandbox. Everything listens on 127.0.0.1 and is ended by id."""

import json
import os
import re
import sys
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from programs import ROOT, VENV, Gate, Processes, call, free_port, listens  # noqa: E402

BUCKET = "okki-sync-test"
PREFIX = "store"
SECRET = "okki-sync/test"
# The first call of a run's read.
GROUPS = "/v1/product/groups"


class World:
    def __init__(self, processes):
        self.processes = processes
        self.directory = processes.directory
        self._start_sandbox()
        self._start_aws()
        self._start_lambda()

    def _start_sandbox(self):
        env_file = self.directory / "sandbox.env"
        self.processes.start(
            "sandbox", [ROOT / "target/debug/okki-sync", "sandbox", "--products", "600", "--env-file", env_file])
        self.processes.wait_for("the sandbox", env_file.exists)
        self.sandbox = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.okki, self.target = self.sandbox["OKKI_BASE_URL"], self.sandbox["TARGET_BASE_URL"]
        self.gate = Gate(self.okki)

    def _start_aws(self):
        port = free_port()
        self.processes.start("moto", [VENV / "moto_server", "-H", "127.0.0.1", "-p", port])
        self.aws = f"http://127.0.0.1:{port}"
        self.processes.wait_for("moto", lambda: listens(port))
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test-secret-key", "region_name": "ap-east-1"}
        self.s3 = boto3.client("s3", endpoint_url=self.aws, **keys)
        self.secrets = boto3.client("secretsmanager", endpoint_url=self.aws, **keys)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-east-1"})
        names = ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET", "TARGET_TOKEN"]
        self.secret = {name.lower(): self.sandbox[name] for name in names}
        self.secrets.create_secret(Name=SECRET, SecretString=json.dumps(self.secret))
        pipeline = (ROOT / "sandbox/src/pipeline.toml").read_text()
        self.put("pipelines/main.toml", pipeline.replace('"sandbox"', '"main"', 1))
        self.put("pipelines/acme.toml", pipeline.replace('"sandbox"', '"acme"', 1))
        self.put("pipelines/misfiled.toml", pipeline.replace('"sandbox"', '"acme"', 1))
        self.put("pipelines/broken.toml", "connection = 5\n[target]\nkind = \"qeesy\"\n")

    def _start_lambda(self):
        port = free_port()
        env = {
            "AWS_ENDPOINT_URL": self.aws, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_REGION": "ap-east-1", "OKKI_SYNC_SECRET": SECRET, "OKKI_SYNC_STORE": f"s3://{BUCKET}/{PREFIX}",
            "OKKI_SYNC_PIPELINE": "pipelines/main.toml", "OKKI_BASE_URL": self.gate.url, "TARGET_BASE_URL": self.target,
        }
        env_file = self.directory / "lambda.env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        self.port = port
        self.log = self.processes.start("watch", [
            "cargo", "lambda", "watch", "--ignore-changes", "--wait", "--env-file", env_file, "-A", "127.0.0.1", "-P", port,
        ], {"PATH": f"{VENV}:{os.environ['PATH']}"})
        self.processes.wait_for("cargo lambda watch", lambda: listens(port))

    def invoke(self, event):
        """One event over the Invoke API; answers (status, answer)."""
        return call(f"http://127.0.0.1:{self.port}/2015-03-31/functions/okki-sync-lambda/invocations", event)

    def rows(self):
        return call(f"{self.target}/_sandbox/rows")[1]

    def stats(self):
        return call(f"{self.target}/_sandbox/stats")[1]

    def catalogue(self):
        return call(f"{self.okki}/_sandbox/catalogue")[1]

    def control(self, what, body=None):
        status, answer = call(f"{self.target}/_sandbox/{what}", body or {})
        assert status == 200, answer
        return answer

    def put(self, key, text):
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=text.encode())

    def get(self, key):
        return self.s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["Body"].read().decode(errors="replace")

    def keys(self, under=""):
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/{under}").get("Contents", [])
        return [entry["Key"].removeprefix(f"{PREFIX}/") for entry in listed]

    def log_lines(self):
        """What the function printed: its JSON lines."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))
        lines = [line[line.index("{"):] for line in text.splitlines() if "{" in line]
        parsed = []
        for line in lines:
            try:
                parsed.append(json.loads(line))
            except ValueError:
                continue
        return parsed


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    processes = Processes(tmp_path_factory.mktemp("lambda"))
    try:
        made = World(processes)
        yield made
        made.gate.close()
    finally:
        processes.end()
