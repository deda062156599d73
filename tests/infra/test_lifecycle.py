"""The lifecycle script against S3, Secrets Manager and CloudFormation in memory (moto)."""

import io
import json
import re
import sys
import time

import boto3
import pytest
from moto import mock_aws
from template import ROOT, source

sys.path.insert(0, str(ROOT / "infra"))
import lifecycle  # noqa: E402

STACK = "okki-sync-dev"
REGION = "ap-east-1"
# Of the real template only what the script touches, under the names that it has there.
SMALL = {
    "Resources": {
        "Store": {"Type": "AWS::S3::Bucket"},
        "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "run-logs"}},
    },
    "Outputs": {
        "Store": {"Value": {"Ref": "Store"}}, "Secret": {"Value": "credentials"}, "Logs": {"Value": {"Ref": "Logs"}},
        "Function": {"Value": "the-function"}, "Connection": {"Value": "demo"}, "Dashboard": {"Value": STACK},
    },
}
QEASY = {"OKKI_CLIENT_ID": "id-1", "OKKI_CLIENT_SECRET": "hunter2-okki", "QEASY_APP_KEY": "key-1", "QEASY_APP_SECRET": "hunter2-qeasy"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    file = tmp_path / "samconfig.toml"
    file.write_text((ROOT / "infra/samconfig.toml").read_text())
    monkeypatch.setattr(lifecycle, "SAMCONFIG", file)
    for name in [*QEASY, "TARGET_TOKEN", "CONFIRM", "ALARM_EMAIL", "AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setattr(lifecycle.sys.stdin, "isatty", lambda: False, raising=False)
    return file


@pytest.fixture
def stack(config):
    """A deployed stack; gives its session."""
    lifecycle.remember("dev", "region", REGION, config)
    with mock_aws():
        session = boto3.Session(region_name=REGION)
        session.client("cloudformation").create_stack(StackName=STACK, TemplateBody=json.dumps(SMALL))
        # moto's CloudFormation knows neither of these two.
        session.client("s3").put_bucket_versioning(
            Bucket=lifecycle.outputs(session, STACK)["Store"], VersioningConfiguration={"Status": "Enabled"})
        session.client("secretsmanager").create_secret(Name="credentials")
        yield session


@pytest.fixture
def pipeline_file(tmp_path):
    file = tmp_path / "demo.toml"
    file.write_text((ROOT / "pipeline.toml").read_text())
    return file


@pytest.fixture
def unchecked(monkeypatch):
    """The pipeline's check needs the Rust program; its own test is below."""
    monkeypatch.setattr(lifecycle, "check_pipeline", lambda path, needed: None)


def stored(session, key, stack=STACK):
    bucket = lifecycle.outputs(session, stack)["Store"]
    return session.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def secret_value(session, name="credentials"):
    return json.loads(session.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def test_every_output_that_the_script_reads_is_one_of_the_template():
    text = (ROOT / "infra/lifecycle.py").read_text()
    read = set(re.findall(r'(?:now|found|before|deployed\(session, env, stack\))(?:\[|\.get\()["\']([A-Z]\w+)', text)) - {"StackStatus"}
    assert read >= {"Store", "Secret", "Function", "Connection", "Logs", "Dashboard"}
    assert read - {"Outputs"} <= set(source()["Outputs"]), read
    assert set(SMALL["Outputs"]) <= set(source()["Outputs"])


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_every_environment_has_a_stack_and_allowed_parameters(env):
    from test_template import allows
    section = lifecycle.settings(env)
    assert section["stack_name"] == f"okki-sync-{env}" and section["capabilities"] == "CAPABILITY_IAM"
    parameters = lifecycle.overrides(section)
    assert len(parameters) >= 3
    for name, value in parameters.items():
        assert allows(name, value), (name, value)


def test_an_environment_without_a_section_is_a_mistake_that_names_it(config):
    with pytest.raises(lifecycle.Mistake, match=r"no \[test.deploy.parameters\]"):
        lifecycle.settings("test")


def test_the_first_deployment_asks_refuses_nonsense_and_keeps_the_answers(config, monkeypatch, capsys):
    answers = iter(["Hongkong", "eu-west-1", "nobody", "ops@example.com", "rate(1 hours)", "cron(0 2 * * ? *)", "1", "49"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    monkeypatch.setattr(lifecycle.sys.stdin, "isatty", lambda: True, raising=False)
    section = lifecycle.guide("prod", None)
    assert (section["region"], section["stack_name"]) == ("eu-west-1", "okki-sync-prod")
    assert lifecycle.overrides(section) == {
        "ScheduleExpression": "cron(0 2 * * ? *)", "FreshnessHours": "49", "LogRetentionDays": "90", "AlarmEmail": "ops@example.com"}
    assert next(answers, None) is None
    assert lifecycle.guide("prod", None) == section, "the second deployment asks nothing"
    assert "region" not in lifecycle.settings("dev")
    assert config.read_text().startswith("# What `make deploy")


def test_without_a_terminal_the_first_deployment_takes_the_environment(config):
    with pytest.raises(lifecycle.Mistake, match="set AWS_REGION"):
        lifecycle.guide("dev", None)
    assert lifecycle.guide("dev", "cn-north-1")["region"] == "cn-north-1"


def test_a_deployment_builds_deploys_puts_the_pipeline_and_fills_the_secret(stack, pipeline_file, unchecked, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(lifecycle, "run", lambda command, **more: commands.append([str(part) for part in command]))
    monkeypatch.setattr(lifecycle, "can_reserve", lambda session, wanted, function=None: False)
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    build, deploy = commands
    assert (build[1], deploy[1]) == ("build", "deploy")
    for command in commands:
        given = command[command.index("--parameter-overrides") + 1:]
        assert {'Connection="demo"', 'ReservedConcurrency="0"', 'ScheduleExpression="rate(1 day)"'} <= set(given)
    assert deploy[deploy.index("--region") + 1] == REGION
    assert stored(stack, "pipelines/demo.toml") == pipeline_file.read_bytes()
    assert secret_value(stack) == {name.lower(): value for name, value in QEASY.items()}
    printed = "".join(capsys.readouterr())
    assert "hunter2" not in printed + json.dumps(commands) and "qeasy_app_secret" in printed


def first_deployment(monkeypatch):
    """Deploys as if there were no stack before; answers the parameters of each `sam deploy`."""
    given, real, calls = [], lifecycle.outputs, []

    def run(command, **more):
        if command[1] == "deploy":
            given.append([str(part) for part in command])

    def outputs(session, name):
        calls.append(name)
        return None if len(calls) == 1 else real(session, name)

    monkeypatch.setattr(lifecycle, "run", run)
    monkeypatch.setattr(lifecycle, "outputs", outputs)
    monkeypatch.setattr(lifecycle, "can_reserve", lambda *more: True)
    return given


def test_the_first_deployment_starts_the_schedule_when_all_is_there(stack, pipeline_file, unchecked, monkeypatch):
    given = first_deployment(monkeypatch)
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    assert ['ScheduleState="DISABLED"' in command for command in given] == [True, False]


def test_without_credentials_the_first_deployment_leaves_the_schedule_off(stack, pipeline_file, unchecked, monkeypatch, capsys):
    given = first_deployment(monkeypatch)
    monkeypatch.setattr(lifecycle, "secret_is_filled", lambda session, secret: False)
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    assert len(given) == 1 and 'ScheduleState="DISABLED"' in given[0]
    assert "the schedule is off until then" in capsys.readouterr().err


@pytest.mark.parametrize("schedule, hours", [("rate(15 minutes)", 1), ("rate(1 hour)", 1), ("rate(2 days)", 48), ("cron(0 2 * * ? *)", None)])
def test_the_hours_between_two_runs_are_known_of_a_rate_and_not_of_a_cron(schedule, hours):
    assert lifecycle.hours_between_runs(schedule) == hours


def test_a_deployment_leaves_a_secret_that_has_a_value_alone(stack, pipeline_file, unchecked, monkeypatch):
    stack.client("secretsmanager").put_secret_value(SecretId="credentials", SecretString='{"okki_client_id": "kept"}')
    monkeypatch.setattr(lifecycle, "run", lambda command, **more: None)
    monkeypatch.setattr(lifecycle, "can_reserve", lambda *more: True)
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    assert secret_value(stack) == {"okki_client_id": "kept"}


def test_a_deployment_without_credentials_at_hand_says_which_and_how(stack, pipeline_file, unchecked, monkeypatch, capsys):
    monkeypatch.setattr(lifecycle, "run", lambda command, **more: None)
    monkeypatch.setattr(lifecycle, "can_reserve", lambda *more: True)
    monkeypatch.setattr(lifecycle, "secret_is_filled", lambda session, secret: False)
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    assert "QEASY_APP_SECRET missing" in capsys.readouterr().err


def test_a_pipeline_with_mistakes_stops_the_deployment_before_a_build(stack, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lifecycle, "run", lambda command, **more: pytest.fail("built"))
    for text, words in [("connection = \"A B\"\n", "is no name"), ("connection = [", "is not TOML")]:
        file = tmp_path / "bad.toml"
        file.write_text(text)
        assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(file)]) == 1
        assert words in capsys.readouterr().err
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(tmp_path / "none.toml")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.skipif(not (ROOT / "target/debug/okki-sync").exists(), reason="the Rust program is not built (make build)")
def test_the_program_itself_judges_the_pipeline_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OKKI_SYNC_SECRET", "not-asked")
    _, needed, _ = lifecycle.read_pipeline(ROOT / "pipeline.toml")
    lifecycle.check_pipeline(ROOT / "pipeline.toml", needed)
    bad = tmp_path / "bad.toml"
    bad.write_text((ROOT / "pipeline.toml").read_text().replace("page_size", "page_sise"))
    with pytest.raises(lifecycle.Mistake, match="page_size"):
        lifecycle.check_pipeline(bad, needed)


def test_only_a_fleet_takes_pipelines_of_other_connections(stack, pipeline_file, unchecked, capsys):
    pipeline_file.write_text(pipeline_file.read_text().replace('connection = "demo"', 'connection = "acme"'))
    assert lifecycle.main(["pipeline", "--env", "dev", "--pipeline", str(pipeline_file)]) == 1
    assert "the stack runs demo" in capsys.readouterr().err
    bucket = lifecycle.outputs(stack, STACK)["Store"]
    lifecycle.put_pipeline(stack, bucket, pipeline_file, fleet=True, deployed="demo")
    assert stored(stack, "pipelines/acme.toml") == pipeline_file.read_bytes()


@pytest.mark.parametrize(("text", "needed"), [
    ('[target]\nkind = "qeasy"', ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET"]),
    ('[target]\nkind = "http"\nauth = "bearer"', ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "TARGET_TOKEN"]),
    ('[target]\nkind = "http"', ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET"]),
])
def test_the_credentials_that_are_asked_are_those_that_the_target_needs(tmp_path, text, needed):
    file = tmp_path / "p.toml"
    file.write_text(text)
    assert lifecycle.read_pipeline(file)[:2] == ("default", needed)


def test_credentials_come_from_the_environment_or_else_the_terminal():
    asked = []

    def prompt(text):
        asked.append(text)
        return "typed"

    values, missing = lifecycle.collect(["OKKI_CLIENT_ID", "TARGET_TOKEN"], {"OKKI_CLIENT_ID": "set"}, prompt)
    assert (values, missing) == ({"okki_client_id": "set", "target_token": "typed"}, [])
    assert asked == ["TARGET_TOKEN (not shown): "]
    assert lifecycle.collect(["TARGET_TOKEN"], {}, lambda text: " ") == (None, ["TARGET_TOKEN"])
    robot = {"TARGET_TOKEN": "set", "NOTIFY_WEBHOOK": "https://robot", "NOTIFY_SECRET": " "}
    assert lifecycle.collect(["TARGET_TOKEN"], robot)[0] == {"target_token": "set", "notify_webhook": "https://robot"}


def test_the_terminal_does_not_echo_a_credential(monkeypatch):
    monkeypatch.setattr(lifecycle.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(lifecycle.getpass, "getpass", lambda text: "typed")
    assert lifecycle.collect(["TARGET_TOKEN"], {})[0] == {"target_token": "typed"}


def test_filling_the_secret_keeps_its_other_fields(stack, pipeline_file, monkeypatch, capsys):
    lifecycle.fill_secret(stack, "credentials", {"okki_client_id": "a", "target_token": "old"})
    lifecycle.fill_secret(stack, "credentials", {"target_token": "new"})
    assert secret_value(stack) == {"okki_client_id": "a", "target_token": "new"}
    lifecycle.fill_secret(stack, "okki-sync/prod/acme", {"target_token": "hunter2"})
    assert secret_value(stack, "okki-sync/prod/acme") == {"target_token": "hunter2"}
    stack.client("secretsmanager").put_secret_value(SecretId="credentials", SecretString="hunter2")
    with pytest.raises(lifecycle.Mistake, match="not JSON") as refused:
        lifecycle.fill_secret(stack, "credentials", {"target_token": "x"})
    assert "hunter2" not in str(refused.value)
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)
    stack.client("secretsmanager").put_secret_value(SecretId="credentials", SecretString="{}")
    assert lifecycle.main(["secret", "--env", "dev", "--pipeline", str(pipeline_file)]) == 0
    assert secret_value(stack)["okki_client_secret"] == "hunter2-okki"
    assert "hunter2" not in "".join(capsys.readouterr())


def test_a_reserve_needs_a_quota_that_leaves_a_hundred(monkeypatch):
    class Session:
        def client(self, name):
            return self

        def get_account_settings(self):
            return {"AccountLimit": {"UnreservedConcurrentExecutions": self.free}}

        def get_function_concurrency(self, FunctionName):
            return {"ReservedConcurrentExecutions": 1}

    session = Session()
    for free, function, answer in [(10, None, False), (100, None, False), (101, None, True), (100, "f", True)]:
        session.free = free
        assert lifecycle.can_reserve(session, 1, function) is answer, (free, function)


@pytest.mark.parametrize(("answer", "code"), [
    ({"Payload": b'{"status": "succeeded"}'}, 0), ({"Payload": b'{"status": "partial"}'}, 3), ({"Payload": b'{"status": "paused"}'}, 3),
    ({"Payload": b'{"errorType": "BadPipeline", "errorMessage": "why"}', "FunctionError": "Unhandled"}, 1),
])
def test_an_invocation_ends_with_the_exit_codes_of_the_command_line(answer, code, capsys):
    assert lifecycle.show_answer({**answer, "Payload": io.BytesIO(answer["Payload"])}) == code
    out, err = capsys.readouterr()
    assert ("BadPipeline: why" in err) if code == 1 else (json.loads(out)["status"] in str(answer))


def test_an_event_that_is_no_json_is_refused_before_anything_is_called(config, tmp_path, capsys):
    file = tmp_path / "event.json"
    file.write_text("{mode: sync}")
    assert lifecycle.main(["invoke", "--env", "dev", "--event", str(file)]) == 1
    assert "EVENT=" in capsys.readouterr().err


def test_logs_are_shown_once_and_in_order(stack, capsys, monkeypatch):
    client, now = stack.client("logs"), int(time.time() * 1000)
    client.create_log_stream(logGroupName="run-logs", logStreamName="one")
    events = [{"timestamp": now - 2000, "message": "first"}, {"timestamp": now - 1000, "message": "second"}]
    client.put_log_events(logGroupName="run-logs", logStreamName="one", logEvents=events)
    assert lifecycle.main(["logs", "--env", "dev"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["first", "second"]
    rounds = iter([None, KeyboardInterrupt()])

    def sleep(seconds):
        if ended := next(rounds):
            raise ended

    monkeypatch.setattr(lifecycle.time, "sleep", sleep)
    assert lifecycle.main(["logs", "--env", "dev", "--follow"]) == 130
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["first", "second"], "shown twice"


def test_emptying_takes_objects_former_versions_and_markers(stack):
    s3, bucket = stack.client("s3"), lifecycle.outputs(stack, STACK)["Store"]
    for text in ["one", "two"]:
        s3.put_object(Bucket=bucket, Key="state/demo.state", Body=text)
    s3.put_object(Bucket=bucket, Key="reports/demo/1.json", Body="{}")
    s3.delete_object(Bucket=bucket, Key="reports/demo/1.json")
    assert lifecycle.empty_bucket(stack, bucket) == 4
    left = s3.list_object_versions(Bucket=bucket)
    assert "Versions" not in left and "DeleteMarkers" not in left
    assert lifecycle.empty_bucket(stack, bucket) == 0


def test_destroying_asks_for_the_name_empties_the_store_deletes_the_stack(stack, monkeypatch, capsys):
    stopped = []
    real = boto3.Session.client

    def client(self, name, **more):
        made = real(self, name, **more)
        if name == "lambda":
            made.put_function_concurrency = lambda **given: stopped.append(given)
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    bucket = lifecycle.outputs(stack, STACK)["Store"]
    stack.client("s3").put_object(Bucket=bucket, Key="state/demo.state", Body="x")
    for answer in [None, "yes", "okki-sync-prod"]:
        monkeypatch.setenv("CONFIRM", answer or "")
        assert lifecycle.main(["destroy", "--env", "dev"]) == 1
        assert "nothing was deleted" in capsys.readouterr().err
    assert stored(stack, "state/demo.state") == b"x" and stopped == []
    monkeypatch.setenv("CONFIRM", STACK)
    assert lifecycle.main(["destroy", "--env", "dev"]) == 0
    assert stopped == [{"FunctionName": "the-function", "ReservedConcurrentExecutions": 0}]
    assert lifecycle.outputs(stack, STACK) is None
    assert stack.client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize("what", ["pipeline", "secret", "invoke", "logs", "destroy"])
def test_before_the_first_deployment_everything_else_says_to_deploy(config, what, unchecked, monkeypatch, capsys):
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    assert lifecycle.main([what, "--env", "dev"]) == 1
    assert "run make deploy ENV=dev" in capsys.readouterr().err
    lifecycle.remember("dev", "region", REGION, config)
    with mock_aws():
        assert lifecycle.main([what, "--env", "dev"]) == 1
    assert f"no stack {STACK} in {REGION}; run make deploy ENV=dev" in capsys.readouterr().err


def test_what_aws_refuses_is_one_line(config, pipeline_file, capsys, monkeypatch):
    lifecycle.remember("dev", "region", REGION, config)
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert lifecycle.main(["deploy", "--env", "dev", "--pipeline", str(pipeline_file)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "credentials" in line
