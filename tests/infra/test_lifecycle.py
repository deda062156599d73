"""The lifecycle script against S3, Secrets Manager and CloudFormation in memory (moto), with the real `okki-sync check`."""

import io
import json
import os
import re
import sys
import time
import tomllib

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws
from template import ROOT, source

sys.path.insert(0, str(ROOT / "infra"))
import credentials  # noqa: E402
import lifecycle  # noqa: E402
import settings  # noqa: E402

STACK = "okki-sync-dev"
REGION = "ap-east-1"
# Of the real template only what the script touches, under the names that it has there.
SMALL = {
    "Parameters": {"ScheduleState": {"Type": "String", "Default": "ENABLED"}},
    "Resources": {
        "Store": {"Type": "AWS::S3::Bucket"},
        "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "run-logs"}},
    },
    "Outputs": {
        "Store": {"Value": {"Ref": "Store"}}, "Secret": {"Value": "credentials"}, "Logs": {"Value": {"Ref": "Logs"}},
        "Function": {"Value": "the-function"}, "Connection": {"Value": "demo"}, "Pipeline": {"Value": "pipelines/demo.toml"},
        "Dashboard": {"Value": STACK},
    },
}
QEASY = {"OKKI_CLIENT_ID": "id-1", "OKKI_CLIENT_SECRET": "hunter2-okki", "QEASY_APP_KEY": "key-1", "QEASY_APP_SECRET": "hunter2-qeasy"}
PIPELINE = (ROOT / "pipeline.toml").read_text()


class Cloud:
    """moto, and SAM as far as the script can see it: what was called, and stacks that are made and changed."""

    def __init__(self):
        self.session = boto3.Session(region_name=REGION)
        self.session.client("secretsmanager").create_secret(Name="credentials")
        self.called = []

    def sam(self, env, command, *arguments, aws=True):
        self.called.append((command, [str(one) for one in arguments]))
        client = self.session.client("cloudformation")
        if command == "delete":
            client.delete_stack(StackName=STACK)
        if command == "deploy":
            state = [one.split('"')[1] for one in arguments if one.startswith("ScheduleState=")]
            exists = lifecycle.look(self.session, STACK)[0] is not None
            # What is not given keeps its previous value, as with SAM.
            value = {"ParameterValue": state[0]} if state else {"UsePreviousValue": True}
            put = client.update_stack if exists else client.create_stack
            try:
                put(StackName=STACK, TemplateBody=json.dumps(SMALL), Parameters=[{"ParameterKey": "ScheduleState", **value}])
            except ClientError as error:
                # samconfig.toml: fail_on_empty_changeset = false.
                assert "No updates are to be performed" in str(error)

    def schedules(self):
        """The ScheduleState of each `sam deploy`."""
        return [re.search(r'ScheduleState="(\w+)"', " ".join(given))[1] for command, given in self.called if command == "deploy"]

    def make_stack(self):
        settings_write(region=REGION)
        self.sam("dev", "deploy", 'ScheduleState="ENABLED"')
        self.called.clear()
        # moto's CloudFormation does not know it.
        self.session.client("s3").put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    @property
    def bucket(self):
        return lifecycle.look(self.session, STACK)[2]["Store"]

    def stored(self, key):
        return self.session.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def secret(self, name="credentials"):
        return json.loads(self.session.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])

    def put_secret(self, text):
        self.session.client("secretsmanager").put_secret_value(SecretId="credentials", SecretString=text)


def settings_write(**more):
    document, section = settings.read("dev")
    section.update(more)
    settings.SAMCONFIG.write_text(settings.tomlkit.dumps(document))


@pytest.fixture
def config(tmp_path, monkeypatch):
    file = tmp_path / "samconfig.toml"
    file.write_text((ROOT / "infra/samconfig.toml").read_text())
    monkeypatch.setattr(settings, "SAMCONFIG", file)
    for name in [*os.environ]:
        if re.match("(OKKI|QEASY|TARGET|NOTIFY|AWS)_", name) or name in ("CONFIRM", "ALARM_EMAIL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    return file


@pytest.fixture
def cloud(config, monkeypatch):
    with mock_aws():
        made = Cloud()
        monkeypatch.setattr(lifecycle, "sam", made.sam)
        monkeypatch.setattr(lifecycle, "can_reserve", lambda session, wanted, function: True)
        yield made


@pytest.fixture
def stack(cloud):
    """A deployed stack."""
    cloud.make_stack()
    return cloud


@pytest.fixture
def pipeline_file(tmp_path):
    file = tmp_path / "demo.toml"
    file.write_text(PIPELINE)
    return str(file)


def with_credentials(monkeypatch):
    for name, value in QEASY.items():
        monkeypatch.setenv(name, value)


def at_a_terminal(monkeypatch, *answers):
    left = iter(answers)
    monkeypatch.setattr("builtins.input", lambda question: next(left))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return left


# ---------------------------------------------------------------- template and settings


def test_every_output_that_the_script_reads_is_one_of_the_template():
    read = set(re.findall(r'outputs(?:\[|\.get\()["\'](\w+)', (ROOT / "infra/lifecycle.py").read_text()))
    assert read >= {"Store", "Secret", "Function", "Connection", "Pipeline", "Logs", "Dashboard"}
    assert read <= set(source()["Outputs"]) and set(SMALL["Outputs"]) <= set(source()["Outputs"])


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_every_environment_has_a_stack_and_allowed_parameters(env):
    from test_template import allows
    _, section = settings.read(env)
    assert section["stack_name"] == f"okki-sync-{env}" and section["capabilities"] == "CAPABILITY_IAM"
    parameters = settings.overrides(section)
    assert len(parameters) >= 3
    for name, value in parameters.items():
        assert allows(name, value), (name, value)


def test_parameters_may_be_a_text_or_a_list():
    expected = {"ScheduleExpression": "cron(0 2 * * ? *)", "FreshnessHours": "49"}
    for given in ['ScheduleExpression="cron(0 2 * * ? *)" FreshnessHours=49', ["ScheduleExpression=cron(0 2 * * ? *)", "FreshnessHours=49"]]:
        assert settings.overrides({"parameter_overrides": given}) == expected


def test_an_environment_without_a_section_is_a_mistake_that_names_it(config):
    with pytest.raises(settings.Mistake, match=r"no \[test.deploy.parameters\]"):
        settings.read("test")


def test_the_first_deployment_asks_refuses_nonsense_and_keeps_the_answers(config, monkeypatch, capsys):
    left = at_a_terminal(
        monkeypatch, "Hongkong", "eu-west-1", "nobody", "ops@example.com", "rate(1 hours)", "cron(0 2 * * ? *)", "1", "49")
    section = settings.guide("prod")
    assert section["region"] == "eu-west-1"
    assert settings.overrides(section) == {
        "ScheduleExpression": "cron(0 2 * * ? *)", "FreshnessHours": "49", "LogRetentionDays": "90", "AlarmEmail": "ops@example.com"}
    told = capsys.readouterr().err
    for words in ["a region is written like", "one e-mail address", "six fields", "FreshnessHours: 2 to 168"]:
        assert words in told
    assert next(left, None) is None
    assert settings.guide("prod") == section, "the second deployment asks nothing"
    assert "region" not in settings.read("dev")[1]
    assert config.read_text().startswith("# What `make deploy")


@pytest.mark.parametrize(("schedule", "hours"), [
    ("rate(15 minutes)", "3"), ("rate(1 hour)", "3"), ("rate(5 hours)", "11"), ("rate(2 days)", "97"), ("rate(90 days)", "168")])
def test_the_hours_until_the_alarm_follow_from_a_rate(config, monkeypatch, schedule, hours):
    at_a_terminal(monkeypatch, "", "", schedule)
    parameters = settings.overrides(settings.guide("prod"))
    assert (parameters["ScheduleExpression"], parameters["FreshnessHours"]) == (schedule, hours)
    assert "AlarmEmail" not in parameters


def test_without_a_terminal_region_and_address_come_from_the_environment(config, monkeypatch):
    with pytest.raises(settings.Mistake, match="set AWS_REGION"):
        settings.guide("dev")
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    monkeypatch.setenv("ALARM_EMAIL", "ops@example.com")
    section = settings.guide("dev")
    assert section["region"] == "cn-north-1"
    assert settings.overrides(section) == {
        "ScheduleExpression": "rate(1 day)", "FreshnessHours": "49", "LogRetentionDays": "7", "AlarmEmail": "ops@example.com"}


# ---------------------------------------------------------------- deploy


def test_a_deployment_builds_deploys_puts_the_pipeline_and_fills_the_secret(stack, pipeline_file, monkeypatch, capsys):
    monkeypatch.setattr(lifecycle, "can_reserve", lambda session, wanted, function: (wanted, function) != (1, "the-function"))
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    build, deploy = stack.called
    assert (build[0], deploy[0]) == ("build", "deploy")
    for _, arguments in stack.called:
        given = arguments[arguments.index("--parameter-overrides") + 1:]
        assert {'Connection="demo"', 'PipelineFormat="toml"', 'ReservedConcurrency="0"', 'ScheduleExpression="rate(1 day)"'} <= set(given)
    assert deploy[1][deploy[1].index("--region") + 1] == REGION
    assert stack.stored("pipelines/demo.toml") == PIPELINE.encode()
    assert stack.secret() == {name.lower(): value for name, value in QEASY.items()}
    printed = "".join(capsys.readouterr())
    assert "hunter2" not in printed + json.dumps(stack.called) and "qeasy_app_secret" in printed


def test_the_schedule_starts_when_pipeline_and_credentials_are_there(cloud, pipeline_file, monkeypatch):
    settings_write(region=REGION)
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert cloud.schedules() == ["DISABLED", "ENABLED"]
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert cloud.schedules() == ["DISABLED", "ENABLED", "ENABLED"]
    assert lifecycle.look(cloud.session, STACK)[1] == {"ScheduleState": "ENABLED"}


def test_the_schedule_is_off_until_the_secret_has_a_value(cloud, pipeline_file, monkeypatch, capsys):
    settings_write(region=REGION)
    for _ in range(2):
        assert lifecycle.main("deploy", "dev", pipeline_file) == 0
        told = capsys.readouterr().err
        assert "QEASY_APP_SECRET missing" in told and "the schedule is off until then" in told
    assert cloud.schedules() == ["DISABLED", "DISABLED"]
    with_credentials(monkeypatch)
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert lifecycle.look(cloud.session, STACK)[1] == {"ScheduleState": "ENABLED"}


def test_a_deployment_leaves_a_running_schedule_on_and_a_stopped_one_off(stack, pipeline_file, monkeypatch):
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert stack.schedules() == ["ENABLED"]
    settings_write(parameter_overrides="ScheduleState=DISABLED")
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert stack.schedules() == ["ENABLED", "DISABLED"]


def test_what_a_failed_first_deployment_left_is_removed_first(stack, pipeline_file, monkeypatch, capsys):
    real, looks = lifecycle.look, []

    def look(session, name):
        looks.append(name)
        return ("ROLLBACK_COMPLETE", {"ScheduleState": "ENABLED"}, {}) if len(looks) == 1 else real(session, name)

    with_credentials(monkeypatch)
    monkeypatch.setattr(lifecycle, "look", look)
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert [command for command, _ in stack.called] == ["delete", "build", "deploy", "deploy"]
    assert stack.schedules() == ["DISABLED", "ENABLED"]
    assert "was rolled back" in capsys.readouterr().err


def test_a_deployment_leaves_a_secret_that_has_a_value_alone(stack, pipeline_file, monkeypatch):
    stack.put_secret('{"okki_client_id": "kept"}')
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", pipeline_file) == 0
    assert stack.secret() == {"okki_client_id": "kept"}


def test_a_pipeline_with_mistakes_stops_the_deployment_before_the_build(stack, tmp_path, monkeypatch, capsys):
    # None of these may reach the check: they would judge another file than the one that is deployed.
    for name in ["OKKI_SYNC_SECRET", "OKKI_SYNC_STORE", "OKKI_BASE_URL", "TARGET_BASE_URL"]:
        monkeypatch.setenv(name, "nonsense://")
    bad = [("bad.toml", 'connection = "A B"\n', "connection"), ("bad.toml", "connection = [", "bad.toml:1"),
           ("bad.toml", PIPELINE.replace("page_size", "page_sise"), "did you mean page_size"), ("bad.txt", PIPELINE, "neither .toml nor .json")]
    for what, (name, text, words) in zip(["deploy", "pipeline", "secret", "deploy"], bad):
        file = tmp_path / name
        file.write_text(text)
        assert lifecycle.main(what, "dev", str(file)) == 1
        told = capsys.readouterr().err
        assert words in told and "has mistakes" in told, told
    assert lifecycle.main("deploy", "dev", str(tmp_path / "none.toml")) == 1
    assert "name the pipeline file with PIPELINE=" in capsys.readouterr().err
    assert stack.called == []


def test_a_reserve_needs_a_quota_that_leaves_a_hundred():
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


# A program that notes how it was called, and with which environment. As cargo it runs the program that `make` has built.
NOTING = f"""#!{sys.executable}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open({{log!r}}, "a") as log:
    print(json.dumps([name, sys.argv[1:], dict(os.environ)]), file=log)
if name == "cargo":
    os.execv({str(ROOT / "target/debug/okki-sync")!r}, ["okki-sync", *sys.argv[sys.argv.index("--") + 1:]])
"""


def test_no_child_sees_credentials_and_no_build_sees_aws_keys(config, pipeline_file, tmp_path, monkeypatch):
    log = tmp_path / "log"
    for name in ["sam", "cargo"]:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(NOTING.format(log=str(log)))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    # Before the virtual environment's own programs.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    with_credentials(monkeypatch)
    secrets = {"TARGET_TOKEN": "hunter2", "NOTIFY_WEBHOOK": "hunter2", "NOTIFY_SECRET": "hunter2", "AWS_SESSION_TOKEN": "hunter2-aws"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lifecycle, "can_reserve", lambda session, wanted, function: True)
    with mock_aws():
        cloud = Cloud()
        cloud.make_stack()
        monkeypatch.setenv("CONFIRM", STACK)
        assert lifecycle.main("deploy", "dev", pipeline_file) == 0
        stop_runs_of(monkeypatch, [])
        assert lifecycle.main("destroy", "dev") == 0
    called = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(name, arguments[0]) for name, arguments, _ in called] == [
        ("cargo", "run"), ("sam", "build"), ("sam", "deploy"), ("sam", "delete")]
    for name, arguments, env in called:
        seen = {variable for variable in env if re.match("(OKKI|QEASY|NOTIFY|TARGET)_", variable)} - {"OKKI_SYNC_STORE", "OKKI_SYNC_HOSTS"}
        assert seen == set() and not set(QEASY.values()) & set(env.values()), (name, arguments[0])
        assert ("RUSTC_WORKSPACE_WRAPPER" in env) == (arguments[0] == "build"), "the deployed program carries its dependencies"
        of_aws = {variable for variable in env if variable.startswith("AWS_")}
        assert (of_aws >= {"AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"}) if arguments[0] in ("deploy", "delete") else (of_aws == set())


# ---------------------------------------------------------------- pipeline and secret


def test_only_a_fleet_takes_pipelines_of_other_connections(stack, tmp_path, monkeypatch, capsys):
    file = tmp_path / "acme.toml"
    file.write_text(PIPELINE.replace('connection = "demo"', 'connection = "acme"'))
    assert lifecycle.main("pipeline", "dev", str(file)) == 1
    assert "the stack runs pipelines/demo.toml" in capsys.readouterr().err
    monkeypatch.setitem(SMALL["Outputs"], "Fleet", {"Value": "machine"})
    stack.sam("dev", "deploy", 'ScheduleState="ENABLED"')
    assert lifecycle.main("pipeline", "dev", str(file)) == 0
    assert stack.stored("pipelines/acme.toml") == file.read_bytes()


def test_a_pipeline_that_names_a_host_of_its_own_is_refused_by_name(stack, tmp_path, monkeypatch, capsys):
    file = tmp_path / "demo.toml"
    file.write_text(PIPELINE.replace("https://api-sandbox.xiaoman.cn", "https://mine.example"))
    # The stack's list counts, not the one of the shell.
    monkeypatch.setenv("OKKI_SYNC_HOSTS", "mine.example")
    for command in ["pipeline", "deploy", "secret"]:
        assert lifecycle.main(command, "dev", str(file)) == 1
        told = capsys.readouterr().err
        assert "source.base_url: names the host mine.example:443" in told and "add it to the parameter Hosts" in told, told
    assert stack.called == []
    settings_write(parameter_overrides='Hosts="mine.example,api.qeasy.cloud"')
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", str(file)) == 0
    assert stack.stored("pipelines/demo.toml") == file.read_bytes()
    monkeypatch.setattr(lifecycle, "hosts", lambda session, stack: "mine.example,api.qeasy.cloud")
    assert lifecycle.main("pipeline", "dev", str(file)) == 0


def test_a_pipeline_may_be_json_and_a_connection_has_one_file(stack, pipeline_file, tmp_path, monkeypatch, capsys):
    assert lifecycle.main("pipeline", "dev", pipeline_file) == 0
    file = tmp_path / "demo.json"
    file.write_text(json.dumps(tomllib.loads(PIPELINE)))
    assert lifecycle.main("pipeline", "dev", str(file)) == 1, "the function reads the .toml until it is deployed otherwise"
    assert "run make deploy with it" in capsys.readouterr().err
    with_credentials(monkeypatch)
    assert lifecycle.main("deploy", "dev", str(file)) == 0
    assert all('PipelineFormat="json"' in arguments for _, arguments in stack.called)
    assert stack.stored("pipelines/demo.json") == file.read_bytes()
    listed = stack.session.client("s3").list_objects_v2(Bucket=stack.bucket)["Contents"]
    assert [one["Key"] for one in listed] == ["pipelines/demo.json"]


def test_a_stack_of_the_first_version_takes_its_toml(stack, pipeline_file, monkeypatch):
    monkeypatch.delitem(SMALL["Outputs"], "Pipeline")
    stack.sam("dev", "deploy", 'ScheduleState="ENABLED"')
    assert lifecycle.main("pipeline", "dev", pipeline_file) == 0


def test_credentials_come_from_the_environment_then_from_the_terminal(config, monkeypatch):
    asked = []

    def getpass(text):
        asked.append(text)
        return "typed " if len(asked) == 1 else " "

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(credentials.getpass, "getpass", getpass)
    monkeypatch.setenv("OKKI_CLIENT_ID", "set")
    needed, optional = ["OKKI_CLIENT_ID", "TARGET_TOKEN"], ["NOTIFY_WEBHOOK", "NOTIFY_SECRET"]
    assert credentials.collect(needed, optional) == ({"okki_client_id": "set", "target_token": "typed"}, [])
    assert asked == ["TARGET_TOKEN (not shown): "], "nobody is asked for what is optional"
    assert credentials.collect(needed, optional)[1] == ["TARGET_TOKEN"]
    for name, value in {"TARGET_TOKEN": "set", "NOTIFY_WEBHOOK": "https://robot", "NOTIFY_SECRET": " "}.items():
        monkeypatch.setenv(name, value)
    assert credentials.collect(["TARGET_TOKEN"], optional) == ({"target_token": "set", "notify_webhook": "https://robot"}, [])


def answering(monkeypatch, answers):
    """A terminal that answers by the name that is asked for; the questions."""
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(credentials.getpass, "getpass", lambda text: asked.append(text) or answers.get(text.split()[0], ""))
    return asked


def test_the_robot_s_address_is_asked_for_so_that_no_shell_remembers_it(stack, pipeline_file, monkeypatch, capsys):
    stack.put_secret(json.dumps({name.lower(): value for name, value in QEASY.items()} | {"other": "field"}))
    asked = answering(monkeypatch, {"NOTIFY_WEBHOOK": "https://robot/hunter2-key", "NOTIFY_SECRET": "hunter2-sign"})
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert [text.split()[0] for text in asked] == [*QEASY, "NOTIFY_WEBHOOK", "NOTIFY_SECRET"]
    assert all("empty keeps what the secret holds" in text for text in asked[:4])
    assert all("empty for none" in text for text in asked[4:])
    kept = {name.lower(): value for name, value in QEASY.items()}
    robot = {"notify_webhook": "https://robot/hunter2-key", "notify_secret": "hunter2-sign"}
    assert stack.secret() == kept | robot | {"other": "field"}
    told = capsys.readouterr().err
    assert "new notify_secret, notify_webhook" in told and "kept okki_client_id" in told and "hunter2" not in told

    asked = answering(monkeypatch, {"QEASY_APP_SECRET": "hunter2-new", "NOTIFY_WEBHOOK": "-", "NOTIFY_SECRET": "-"})
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert "- removes it" in asked[-1] and "- removes it" not in asked[0]
    assert stack.secret() == kept | {"qeasy_app_secret": "hunter2-new", "other": "field"}
    assert "removed notify_secret, notify_webhook" in capsys.readouterr().err


def test_without_an_answer_the_secret_stays_as_it_is(stack, pipeline_file, monkeypatch, capsys):
    stack.put_secret(json.dumps({name.lower(): value for name, value in QEASY.items()}))
    answering(monkeypatch, {})
    assert lifecycle.main("secret", "dev", pipeline_file) == 1
    assert "no value" in capsys.readouterr().err
    assert stack.secret() == {name.lower(): value for name, value in QEASY.items()}


def test_one_variable_rotates_one_field_without_a_terminal(stack, pipeline_file, monkeypatch):
    stack.put_secret(json.dumps({name.lower(): value for name, value in QEASY.items()}))
    monkeypatch.setenv("QEASY_APP_SECRET", "hunter2-new")
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert stack.secret() == {name.lower(): value for name, value in QEASY.items()} | {"qeasy_app_secret": "hunter2-new"}


def test_the_credentials_that_are_asked_for_are_those_that_the_target_needs(stack, tmp_path, monkeypatch, capsys):
    file = tmp_path / "http.toml"
    file.write_text('[target]\nkind = "http"\nurl = "https://host/x"\nauth = "bearer"\n')
    monkeypatch.setattr(lifecycle, "hosts", lambda session, stack: "api-sandbox.xiaoman.cn,host")
    assert lifecycle.main("secret", "dev", str(file)) == 1
    assert "OKKI_CLIENT_ID, OKKI_CLIENT_SECRET, TARGET_TOKEN: no value" in capsys.readouterr().err


def test_filling_the_secret_keeps_its_other_fields_or_makes_a_new_one(stack, pipeline_file, monkeypatch, capsys):
    credentials.fill(stack.session, "credentials", {"okki_client_id": "a", "target_token": "old"})
    credentials.fill(stack.session, "credentials", {"target_token": "new"})
    assert stack.secret() == {"okki_client_id": "a", "target_token": "new"}
    stack.put_secret("hunter2")
    with pytest.raises(settings.Mistake, match="not JSON") as refused:
        credentials.fill(stack.session, "credentials", {"target_token": "x"})
    assert "hunter2" not in str(refused.value)
    with_credentials(monkeypatch)
    stack.put_secret("{}")
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert stack.secret()["okki_client_secret"] == "hunter2-okki"
    monkeypatch.setitem(SMALL["Outputs"], "Secret", {"Value": "okki-sync/dev/{connection}"})
    stack.sam("dev", "deploy", 'ScheduleState="ENABLED"')
    assert lifecycle.main("secret", "dev", pipeline_file) == 0
    assert stack.secret("okki-sync/dev/demo")["qeasy_app_secret"] == "hunter2-qeasy"
    assert "hunter2" not in "".join(capsys.readouterr())


# ---------------------------------------------------------------- invoke, logs, destroy


@pytest.mark.parametrize(("answer", "code"), [
    ({"Payload": b'{"status": "succeeded"}'}, 0), ({"Payload": b'{"status": "partial"}'}, 3), ({"Payload": b'{"status": "paused"}'}, 3),
    ({"Payload": b'{"errorType": "BadPipeline", "errorMessage": "why"}', "FunctionError": "Unhandled"}, 1),
])
def test_an_invocation_ends_with_the_exit_codes_of_the_command_line(stack, answer, code, monkeypatch, capsys):
    invoked, real = [], boto3.Session.client

    def client(self, name, **more):
        made = real(self, name, **more)
        if name == "lambda":
            assert more["config"].read_timeout > 900 and more["config"].retries["total_max_attempts"] == 1
            made.invoke = lambda **given: invoked.append(given) or {**answer, "Payload": io.BytesIO(answer["Payload"])}
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    assert lifecycle.main("invoke", "dev", str(ROOT / "events/plan.json")) == code
    assert invoked == [{"FunctionName": "the-function", "Payload": (ROOT / "events/plan.json").read_bytes()}]
    out, err = capsys.readouterr()
    assert ("BadPipeline: why" in err and not out) if code == 1 else (json.loads(out)["status"] in str(answer))


def test_an_event_that_is_no_json_is_refused_before_anything_is_called(config, tmp_path, capsys):
    file = tmp_path / "event.json"
    file.write_text("{mode: sync}")
    assert lifecycle.main("invoke", "dev", str(file)) == 1
    assert "EVENT=" in capsys.readouterr().err


def test_logs_are_shown_once_and_in_order_until_ctrl_c(stack, capsys, monkeypatch):
    client, now = stack.session.client("logs"), int(time.time() * 1000)
    client.create_log_stream(logGroupName="run-logs", logStreamName="one")

    def put(*events):
        client.put_log_events(logGroupName="run-logs", logStreamName="one", logEvents=[
            {"timestamp": now - before, "message": message} for before, message in events])

    put((2_000_000, "first"), (1000, "second"))
    rounds = []

    def sleep(seconds):
        rounds.append(seconds)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        # It comes late, with a time before the last one that was shown.
        put((1500, "late")) if len(rounds) == 1 else None

    monkeypatch.setattr(lifecycle.time, "sleep", sleep)
    monkeypatch.setattr(lifecycle.time, "time", lambda: now / 1000)
    assert lifecycle.main("logs", "dev") == 130
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["first", "second", "late"]


def stop_runs_of(monkeypatch, stopped, sleep=lambda seconds: None, reserved=1):
    """moto's CloudFormation makes no function: what is asked of Lambda is noted. Nobody waits."""
    real = boto3.Session.client
    monkeypatch.setattr(lifecycle.time, "sleep", sleep)

    def client(self, name, **more):
        made = real(self, name, **more)
        if name == "lambda":
            made.get_function_concurrency = lambda **given: {} if reserved is None else {"ReservedConcurrentExecutions": reserved}
            made.put_function_concurrency = lambda **given: stopped.append(given)
            made.delete_function_concurrency = lambda **given: stopped.append(given)
        return made

    monkeypatch.setattr(boto3.Session, "client", client)


def test_destroying_asks_then_stops_empties_and_deletes(stack, monkeypatch, capsys):
    stopped = []
    stop_runs_of(monkeypatch, stopped)
    s3, bucket = stack.session.client("s3"), stack.bucket
    for text in ["one", "x"]:
        s3.put_object(Bucket=bucket, Key="state/demo.state", Body=text)
    s3.put_object(Bucket=bucket, Key="reports/demo/1.json", Body="{}")
    s3.delete_object(Bucket=bucket, Key="reports/demo/1.json")
    for answer in [None, "yes", "okki-sync-prod"]:
        monkeypatch.setenv("CONFIRM", answer or "")
        assert lifecycle.main("destroy", "dev") == 1
        assert "nothing was deleted" in capsys.readouterr().err
    assert stack.stored("state/demo.state") == b"x" and stopped == [] and stack.called == []
    monkeypatch.delenv("CONFIRM")
    at_a_terminal(monkeypatch, STACK)
    assert lifecycle.main("destroy", "dev") == 0
    assert stopped == [{"FunctionName": "the-function", "ReservedConcurrentExecutions": 0}]
    assert "4 objects and versions deleted" in capsys.readouterr().err, "former versions and markers too"
    assert stack.called == [("delete", ["--no-prompts", "--stack-name", STACK, "--region", REGION])]
    assert lifecycle.look(stack.session, STACK) == (None, {}, {})
    assert s3.list_buckets()["Buckets"] == [], "it was empty"


def put_lease(stack, connection, seconds):
    """A lease that ends in so many seconds; `None`: nobody holds it."""
    holder = None if seconds is None else {"run_id": "r", "since": "2026-11-24T18:00:00Z", "expires_at_ms": int((time.time() + seconds) * 1000)}
    stack.session.client("s3").put_object(
        Bucket=stack.bucket, Key=f"state/{connection}.run", Body=json.dumps({"format": "okki-sync run", "version": 1, "holder": holder}))


def test_a_run_that_goes_on_is_waited_for_and_its_last_words_are_deleted_too(stack, monkeypatch, capsys):
    stopped, slept, bucket, s3 = [], [], stack.bucket, stack.session.client("s3")
    put_lease(stack, "running", 20)
    put_lease(stack, "killed", -1)
    put_lease(stack, "done", None)
    s3.put_object(Bucket=bucket, Key="state/damaged.run", Body="?")

    def sleep(seconds):
        assert stopped, "no other run may begin meanwhile"
        assert stack.called == []
        slept.append(seconds)
        if len(slept) == 3:
            # The run ends, and then writes its report.
            put_lease(stack, "running", None)
        if len(slept) == 4:
            s3.put_object(Bucket=bucket, Key="reports/running/1.json", Body="{}")

    stop_runs_of(monkeypatch, stopped, sleep)
    monkeypatch.setenv("CONFIRM", STACK)
    assert lifecycle.main("destroy", "dev") == 0
    assert slept == [lifecycle.LOOK_SECONDS] * 4
    told = capsys.readouterr().err
    assert told.count("waiting for the end of running: ") == 3 and "killed" not in told and "state/damaged.run is damaged" in told
    assert s3.list_buckets()["Buckets"] == [], "it was empty"


def test_the_wait_for_runs_ends_when_no_run_can_be_left(stack, monkeypatch, capsys):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        put_lease(stack, "endless", 20)

    stop_runs_of(monkeypatch, [], sleep)
    put_lease(stack, "endless", 20)
    monkeypatch.setenv("CONFIRM", STACK)
    assert lifecycle.main("destroy", "dev") == 0
    assert lifecycle.INVOKE_SECONDS <= sum(slept) <= lifecycle.INVOKE_SECONDS + 2 * lifecycle.LOOK_SECONDS
    assert "no run lasts longer than 930 s" in capsys.readouterr().err


@pytest.mark.parametrize(("reserved", "back"), [
    (3, {"FunctionName": "the-function", "ReservedConcurrentExecutions": 3}), (None, {"FunctionName": "the-function"})])
def test_ctrl_c_while_a_run_is_waited_for_leaves_everything_as_it_was(stack, monkeypatch, reserved, back):
    def sleep(seconds):
        raise KeyboardInterrupt

    stopped = []
    stop_runs_of(monkeypatch, stopped, sleep, reserved)
    put_lease(stack, "running", 20)
    monkeypatch.setenv("CONFIRM", STACK)
    assert lifecycle.main("destroy", "dev") == 130
    assert stopped == [{"FunctionName": "the-function", "ReservedConcurrentExecutions": 0}, back]
    assert stack.called == [] and stack.stored("state/running.run")


def test_a_second_destroy_goes_on_where_the_function_is_gone(stack, monkeypatch):
    real = boto3.Session.client

    def client(self, name, **more):
        made = real(self, name, **more)
        if name == "lambda":
            def gone(**given):
                raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "gone"}}, "PutFunctionConcurrency")
            made.get_function_concurrency = made.put_function_concurrency = gone
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    monkeypatch.setattr(lifecycle.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("CONFIRM", STACK)
    assert lifecycle.main("destroy", "dev") == 0
    assert [command for command, _ in stack.called] == ["delete"]


def test_what_cannot_be_deleted_keeps_the_stack(stack, monkeypatch, capsys):
    stop_runs_of(monkeypatch, [])
    monkeypatch.setenv("CONFIRM", STACK)
    stack.session.client("s3").put_object(Bucket=stack.bucket, Key="state/demo.state", Body="x")
    refused, real = {"Errors": [{"Key": "state/demo.state", "Message": "AccessDenied"}]}, BaseClient._make_api_call
    monkeypatch.setattr(
        BaseClient, "_make_api_call", lambda self, name, given: refused if name == "DeleteObjects" else real(self, name, given))
    assert lifecycle.main("destroy", "dev") == 1
    assert "state/demo.state cannot be deleted: AccessDenied" in capsys.readouterr().err
    assert stack.called == []


# ---------------------------------------------------------------- what every command says


@pytest.mark.parametrize("what", ["pipeline", "secret", "invoke", "logs", "destroy"])
def test_before_the_first_deployment_everything_else_says_to_deploy(config, what, pipeline_file, capsys):
    argument = {"pipeline": [pipeline_file], "secret": [pipeline_file], "invoke": [str(ROOT / "events/plan.json")]}.get(what, [])
    assert lifecycle.main(what, "dev", *argument) == 1
    assert "run make deploy ENV=dev" in capsys.readouterr().err
    settings_write(region=REGION)
    with mock_aws():
        assert lifecycle.main(what, "dev", *argument) == 1
    assert f"no stack {STACK} in {REGION}; run make deploy ENV=dev" in capsys.readouterr().err


def test_what_aws_refuses_is_one_line(config, pipeline_file, capsys, monkeypatch):
    settings_write(region=REGION)
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert lifecycle.main("deploy", "dev", pipeline_file) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "credentials" in line
