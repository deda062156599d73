"""The infrastructure: linted as written and as transformed, its properties, its tie to the program's metric names and to the runbook."""

import json
import re
import subprocess
import sys

import pytest
from programs import PATIENCE
from template import (
    ROOT, TEMPLATE, alarms, dashboard, every, metric_constants, metric_of_the_fleet, metrics_read, properties, resolved, resources,
    source, statements, transformed, walk,
)

BIN = ROOT / ".venv" / "bin"
RUNBOOK = ROOT / "infra" / "README.md"
STACK = {"Ref": "AWS::StackName"}
TOPIC = [{"Ref": "AlarmTopic"}]
# X-Ray and the delivery of logs know no resources.
WITHOUT_RESOURCES = {
    "FunctionRole/Trace": {"xray:PutTraceSegments", "xray:PutTelemetryRecords"},
    "FleetRole/Trace": {
        "xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules", "xray:GetSamplingTargets"},
    "FleetRole/DeliverLogs": {
        "logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
        "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups"},
}


def ran(*command):
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def as_json(tmp_path_factory):
    file = tmp_path_factory.mktemp("template") / "transformed.json"
    file.write_text(json.dumps(transformed(), indent=1))
    return file


# ---------------------------------------------------------------- linters


def test_cfn_lint_finds_nothing_in_the_template_as_written():
    done = ran(BIN / "cfn-lint", TEMPLATE)
    assert done.returncode == 0, done.stdout


def test_cfn_lint_finds_nothing_in_what_cloudformation_gets(as_json):
    done = ran(BIN / "cfn-lint", as_json)
    assert done.returncode == 0, done.stdout


def test_checkov_finds_nothing_that_is_not_suppressed_with_a_reason(as_json):
    done = ran(BIN / "checkov", "--skip-download", "--quiet", "--compact", "--framework", "cloudformation", "-o", "json",
               "-f", TEMPLATE, as_json)
    report = json.loads(done.stdout)
    failed = [(one["check_id"], one["resource"]) for one in report["results"]["failed_checks"]]
    assert failed == []
    assert report["summary"]["passed"] > 40 and report["summary"]["parsing_errors"] == 0
    for resource in source()["Resources"].values():
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert len(skip["comment"]) > 40, skip


# ---------------------------------------------------------------- least privilege


def test_no_statement_that_allows_names_all_actions_or_all_resources():
    allowing = [(name, one) for name, one in statements() if one["Effect"] == "Allow"]
    assert len(allowing) >= 15
    for name, statement in allowing:
        where = f"{name}/{statement.get('Sid')}"
        assert "NotAction" not in statement and "NotResource" not in statement, where
        actions = [action for action in json.dumps(statement["Action"]).split('"') if ":" in action and "::" not in action]
        assert actions and not any("*" in action for action in actions), where
        if "Resource" not in statement:
            assert statement["Action"] == "sts:AssumeRole", where
        elif "*" in every(statement["Resource"]):
            assert set(every(statement["Action"])) == WITHOUT_RESOURCES.get(where), where
        principal = statement.get("Principal")
        assert principal is None or (list(principal) == ["Service"] and "*" not in principal["Service"]), where


def role(name):
    [policy] = properties(name)["Policies"]
    found = {}
    for part in walk(policy["PolicyDocument"]):
        if "Sid" in part:
            found[part["Sid"]] = part
    return found


def test_the_function_may_read_secret_and_pipelines_and_write_its_records():
    may = role("FunctionRole")
    assert set(may) == {
        "ReadCredentials", "ReadPipelines", "KeepRecords", "TellMissingFromForbidden", "LeaveDeadLetters", "Log", "Trace", "UseKey"}
    assert may["ReadCredentials"]["Action"] == "secretsmanager:GetSecretValue"
    each, one = may["ReadCredentials"]["Resource"]["Fn::If"][1:]
    assert each["Fn::Sub"].endswith(":secret:${SecretPrefix}*")
    assert one == {"Fn::If": ["SecretGiven", {"Ref": "SecretArn"}, {"Ref": "Secret"}]}
    assert (may["ReadPipelines"]["Action"], may["ReadPipelines"]["Resource"]) == (
        "s3:GetObject", {"Fn::Sub": "${Store.Arn}/pipelines/*"})
    assert may["KeepRecords"]["Action"] == ["s3:GetObject", "s3:PutObject"]
    assert [one["Fn::Sub"] for one in may["KeepRecords"]["Resource"]] == [
        f"${{Store.Arn}}/{folder}/*" for folder in ["state", "cache", "reports", "quarantine", "notices", "limits", "changes"]]
    # S3 answers 403 instead of 404 for what is missing unless the bucket may be listed: the first run needs the 404.
    assert may["TellMissingFromForbidden"]["Action"] == "s3:ListBucket"
    assert "Condition" not in may["TellMissingFromForbidden"]
    assert (may["LeaveDeadLetters"]["Action"], may["LeaveDeadLetters"]["Resource"]) == (
        "sqs:SendMessage", {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]})
    assert may["Log"]["Resource"] == {"Fn::GetAtt": ["FunctionLogs", "Arn"]}


def test_the_schedule_may_start_its_target_and_leave_dead_letters_only():
    may = role("ScheduleRole")
    assert set(may) == {"Start", "LeaveDeadLetters", "UseKey"}
    assert may["Start"]["Action"] == {"Fn::If": ["WithFleet", "states:StartExecution", "lambda:InvokeFunction"]}
    assert may["Start"]["Resource"] == properties("Schedule")["Target"]["Arn"]


def test_the_fleet_may_run_the_function_list_pipelines_and_start_itself():
    may = role("FleetRole")
    assert set(may) == {"RunConnections", "ListPipelines", "StartChildren", "FollowChildren", "DeliverLogs", "Trace"}
    assert may["RunConnections"]["Resource"] == {"Fn::GetAtt": ["Function", "Arn"]}
    assert may["ListPipelines"]["Condition"] == {"StringLike": {"s3:prefix": "pipelines/*"}}
    name = properties("FleetMachine")["StateMachineName"]["Fn::Sub"]
    assert may["StartChildren"]["Resource"]["Fn::Sub"].endswith(f":stateMachine:{name}")
    assert may["FollowChildren"]["Resource"]["Fn::Sub"].endswith(f":execution:{name}/*")


@pytest.mark.parametrize("policy", ["StorePolicy", "DeadLetterQueuePolicy", "AlarmTopicPolicy"])
def test_bucket_queue_and_topic_refuse_whoever_comes_without_tls(policy):
    [denied] = [one for one in properties(policy)["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
    assert denied["Principal"] == "*" and denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# ---------------------------------------------------------------- partitions


def test_the_template_works_in_every_partition():
    services = {"lambda", "scheduler", "states", "cloudwatch"}
    for name, part in ((name, part) for name, one in resources().items() for part in walk(one)):
        if "Service" in part:
            # The one form of a service principal that IAM takes in aws, aws-cn and aws-us-gov alike.
            assert re.fullmatch(r"([a-z]+)\.amazonaws\.com", part["Service"])[1] in services, name
    text = re.sub(r'"Service": "[a-z]+\.amazonaws\.com"', "", json.dumps(transformed()["Resources"]))
    assert "amazonaws" not in text
    assert set(re.findall(r"arn:(\$\{AWS::Partition\}|[^:\"]*):", text)) == {"${AWS::Partition}"}
    assert not re.search(r"(cn|us|eu|ap)-[a-z]+-\d", text), "a region is written down"


# ---------------------------------------------------------------- function, schedule, what is kept


def test_the_function_is_what_the_parameters_say():
    function = properties("Function")
    assert function["Runtime"] == "provided.al2023" and function["Handler"] == "bootstrap"
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert (function["MemorySize"], function["Timeout"]) == ({"Ref": "MemorySize"}, {"Ref": "TimeoutSeconds"})
    assert function["TracingConfig"] == {"Mode": {"Ref": "Tracing"}}
    assert function["ReservedConcurrentExecutions"] == {"Fn::If": [
        "WithReserve", {"Fn::If": ["WithFleet", {"Ref": "FleetMaxConcurrency"}, {"Ref": "ReservedConcurrency"}]},
        {"Ref": "AWS::NoValue"}]}
    assert function["LoggingConfig"] == {
        "LogFormat": "JSON", "ApplicationLogLevel": {"Ref": "LogLevel"}, "SystemLogLevel": "INFO",
        "LogGroup": {"Ref": "FunctionLogs"}}
    assert properties("FunctionLogs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert properties("FleetLogs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_every_variable_that_the_function_gets_is_one_that_the_program_reads():
    variables = properties("Function")["Environment"]["Variables"]
    program = "".join(file.read_text() for file in (ROOT / "src").rglob("*.rs"))
    assert len(variables) == 8
    for name in variables:
        assert f'"{name}"' in program, name
    assert variables["OKKI_SYNC_STORE"] == {"Fn::Sub": "s3://${Store}"}
    assert variables["OKKI_SYNC_METRICS_NAMESPACE"] == STACK
    assert variables["OKKI_SYNC_STALE_AFTER"] == {"Fn::Sub": "${FreshnessHours}h"}, "the chat and the alarms agree"
    assert variables["OKKI_SYNC_SECRET"]["Fn::If"][:2] == ["SecretEach", {"Fn::Sub": "${SecretPrefix}{connection}"}]
    assert '"{connection}"' in program
    assert variables["OKKI_SYNC_HOSTS"] == {"Fn::If": ["HostsGiven", {"Ref": "Hosts"}, {"Ref": "AWS::NoValue"}]}


def test_only_the_lambda_program_is_built_and_without_the_command_line():
    built = source()["Resources"]["Function"]
    assert built["Metadata"]["BuildMethod"] == "rust-cargolambda"
    assert built["Metadata"]["BuildProperties"] == {"Binary": "okki-sync-lambda"}
    assert (TEMPLATE.parent / built["Properties"]["CodeUri"] / "Cargo.toml").exists()
    cargo = (ROOT / "Cargo.toml").read_text()
    assert re.search(r"\[package\.metadata\.lambda\.build\]\n(#.*\n)*no_default_features = true\n", cargo)


def test_a_scheduled_run_that_fails_is_repeated_then_kept_with_its_reason():
    retries = properties("FunctionRetries")
    assert retries["FunctionName"] == {"Ref": "Function"} and retries["Qualifier"] == "$LATEST"
    assert retries["MaximumRetryAttempts"] == {"Ref": "AsyncRetries"}
    assert retries["MaximumEventAgeInSeconds"] == {"Ref": "MaximumEventAgeSeconds"}
    assert retries["DestinationConfig"] == {"OnFailure": {"Destination": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}}
    assert properties("DeadLetterQueue")["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_schedule_has_its_time_zone_window_retries_and_dead_letters():
    schedule = properties("Schedule")
    assert schedule["ScheduleExpression"] == {"Ref": "ScheduleExpression"}
    assert schedule["ScheduleExpressionTimezone"] == {"Ref": "ScheduleTimezone"}
    assert source()["Parameters"]["ScheduleTimezone"]["Default"] == "Asia/Shanghai"
    assert schedule["State"] == {"Ref": "ScheduleState"}
    assert schedule["FlexibleTimeWindow"]["Fn::If"] == [
        "WithWindow", {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": {"Ref": "FlexibleWindowMinutes"}}, {"Mode": "OFF"}]
    target = schedule["Target"]
    assert target["RetryPolicy"] == {
        "MaximumRetryAttempts": {"Ref": "ScheduleRetries"}, "MaximumEventAgeInSeconds": {"Ref": "MaximumEventAgeSeconds"}}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}
    assert target["Arn"] == {"Fn::If": ["WithFleet", {"Ref": "FleetMachine"}, {"Fn::GetAtt": ["Function", "Arn"]}]}
    fleet, single = target["Input"]["Fn::If"][1:]
    assert json.loads(fleet) == {} and json.loads(single) == json.loads((ROOT / "events/sync.json").read_text())


def test_the_fleet_gets_the_substitutions_that_its_definition_names():
    machine = properties("FleetMachine")
    assert set(machine["DefinitionSubstitutions"]) == {
        "Partition", "FunctionArn", "StoreBucket", "StorePrefix", "MaxConcurrency", "ToleratedFailurePercentage"}
    definition = ROOT / "infra" / source()["Resources"]["FleetMachine"]["Properties"]["DefinitionUri"]
    if definition.exists():
        named = set(re.findall(r"\$\{(\w+)\}", definition.read_text()))
        assert named == set(machine["DefinitionSubstitutions"])
    assert machine["LoggingConfiguration"]["Level"] == "ERROR"
    assert machine["TracingConfiguration"] == {"Enabled": {"Fn::If": ["WithTraces", True, False]}}
    assert resources()["FleetMachine"]["Condition"] == "WithFleet"


def test_the_store_is_private_versioned_encrypted_and_forgets_in_time():
    store = properties("Store")
    assert store["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(store["PublicAccessBlockConfiguration"].values()) == {True} and len(store["PublicAccessBlockConfiguration"]) == 4
    assert store["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    [rule] = store["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == {"Fn::If": ["WithKey", "aws:kms", "AES256"]}
    rules = {one["Id"]: one for one in store["LifecycleConfiguration"]["Rules"]}
    assert {one["Status"] for one in rules.values()} == {"Enabled"}
    assert rules["former-versions"]["NoncurrentVersionExpiration"] == {
        "NoncurrentDays": {"Ref": "VersionDays"}, "NewerNoncurrentVersions": 10}
    kept = {one["Prefix"] for one in rules.values() if one.get("NoncurrentVersionExpiration") == {"NoncurrentDays": 1}}
    assert kept == {"cache/", "limits/", "reports/", "quarantine/", "changes/", "notices/"}, "in a versioned bucket an expired object is only hidden"
    assert rules["states"]["Prefix"] == "state/"
    assert rules["states"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7, "NewerNoncurrentVersions": 10}
    expiring = {one["Prefix"] for one in rules.values() if "ExpirationInDays" in one}
    assert expiring == {"reports/", "quarantine/", "changes/", "notices/"}, "states and pipelines must never expire"


def test_a_key_of_the_user_encrypts_everything_and_without_one_aws_s_own_do():
    key = {"Fn::If": ["WithKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]}
    places = [
        ("Function", "KmsKeyArn"), ("FunctionLogs", "KmsKeyId"), ("FleetLogs", "KmsKeyId"), ("Schedule", "KmsKeyArn"),
        ("DeadLetterQueue", "KmsMasterKeyId"), ("Secret", "KmsKeyId"), ("AlarmTopic", "KmsMasterKeyId")]
    for resource, name in places:
        assert properties(resource)[name] == key, resource
    assert properties("DeadLetterQueue")["SqsManagedSseEnabled"] == {"Fn::If": ["WithKey", {"Ref": "AWS::NoValue"}, True]}


def test_the_template_never_writes_a_value_into_the_secret():
    assert set(properties("Secret")) == {"Description", "KmsKeyId"}
    assert resources()["Secret"]["Condition"] == "SecretMade"


# ---------------------------------------------------------------- metrics, alarms, dashboard, runbook


def test_alarms_and_dashboard_read_the_metrics_that_the_program_publishes():
    published, _ = metric_constants()
    ours = {name for _, namespace, name, _ in metrics_read() if namespace in (STACK, "<AWS::StackName>")}
    assert ours == published | {metric_of_the_fleet()}
    assert len(published) <= 10, "CloudWatch gives ten metrics away; each more costs in every stack"


def test_metrics_are_read_of_sync_runs_only_so_that_a_plan_hides_nothing():
    count = 0
    for who, namespace, name, dimensions in metrics_read():
        if namespace in (STACK, "<AWS::StackName>"):
            count += 1
            assert dimensions == {"mode": "freshness" if name == metric_of_the_fleet() else "sync"}, (who, name)
        else:
            assert namespace in ("AWS/Lambda", "AWS/SQS", "AWS/States"), (who, namespace)
    assert count >= 16
    assert 'const DIMENSION_MODE: &str = "mode"' in (ROOT / "src/metrics.rs").read_text()


def test_the_queries_of_the_dashboard_name_numbers_of_the_metrics_line():
    _, names = metric_constants()
    queries = [one["properties"]["query"] for one in dashboard()["widgets"] if one["type"] == "log"]
    assert len(queries) == 5
    for query in queries:
        assert query.startswith("SOURCE '<FunctionLogs>' | ")
        words = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", query)) - {"FunctionLogs"}
        assert words <= names, words - names


def test_the_dashboard_and_the_pages_speak_the_language_of_the_stack():
    words = transformed()["Mappings"]["Dashboard"]
    assert set(words["en"]) == set(words["zh"]) == set(properties("Dashboard")["DashboardBody"]["Fn::Sub"][1])
    assert all(re.search("[\u4e00-\u9fff]", word) for word in words["zh"].values()), words["zh"]
    said = [{part[key] for part in walk(dashboard(language)) for key in ("title", "label") if key in part} for language in ("en", "zh")]
    # A name of an alarm and a unit are the same in both.
    assert said[0] - set(words["en"].values()) == said[1] - set(words["zh"].values()) == {"CatalogueAges", "s"}
    assert properties("Function")["Environment"]["Variables"]["OKKI_SYNC_LANG"] == {"Ref": "Language"}


def test_the_dashboard_shows_every_alarm_and_every_graph():
    widgets = dashboard()["widgets"]
    titles = " / ".join(one["properties"]["title"] for one in widgets)
    for word in ["Freshness", "Rows by outcome", "Calls by side", "Throttles by side", "Duration against the timeout", "Age of what was read longest ago", "Last reports"]:
        assert word in titles
    shown = {arn.strip("<>").removesuffix(".Arn") for arn in widgets[0]["properties"]["alarms"]}
    # The fleet's alarms are not always there, and a dashboard's body has no conditions.
    assert shown == set(alarms()) - OF_A_FLEET
    taken = set()
    for one in widgets:
        cells = {(x, y) for x in range(one["x"], one["x"] + one["width"]) for y in range(one["y"], one["y"] + one["height"])}
        assert not cells & taken and one["x"] + one["width"] <= 24, one["properties"]["title"]
        taken |= cells


OF_A_FLEET = {"FleetFailed", "ConnectionStale"}
THRESHOLDS = {
    "RunFailed": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "FunctionFailed": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "NoCompletedRun": (1, "LessThanThreshold", "breaching"),
    "PausedWithoutProgress": (1, "GreaterThanOrEqualToThreshold", "notBreaching"),
    "SourceCredentialsRefused": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "TargetCredentialsRefused": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "GuardStruck": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "FleetFailed": (1, "GreaterThanOrEqualToThreshold", "notBreaching"),
    "ConnectionStale": ({"Ref": "FreshnessHours"}, "GreaterThanThreshold", "ignore"),
    "DeadLetters": (1, "GreaterThanOrEqualToThreshold", "notBreaching"),
    "RowsQuarantined": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "SourceThrottled": (20, "GreaterThanOrEqualToThreshold", "ignore"),
    "TargetThrottled": (1, "GreaterThanOrEqualToThreshold", "ignore"),
    "DurationNearTimeout": (80, "GreaterThanOrEqualToThreshold", "ignore"),
    "CatalogueAges": ({"Ref": "OldestReadSeconds"}, "GreaterThanThreshold", "ignore"),
}
METRIC_OF = {
    "RunFailed": "RunsFailed", "FunctionFailed": "Errors", "NoCompletedRun": "RunsCompleted",
    "PausedWithoutProgress": "PausedWithoutProgress", "SourceCredentialsRefused": "SourceCredentialsRefused",
    "TargetCredentialsRefused": "TargetCredentialsRefused", "GuardStruck": "GuardRefused", "FleetFailed": "ExecutionsFailed",
    "DeadLetters": "ApproximateNumberOfMessagesVisible", "RowsQuarantined": "RowsQuarantined",
    "SourceThrottled": "SourceThrottled", "TargetThrottled": "TargetThrottled", "DurationNearTimeout": "Duration",
    "CatalogueAges": "OldestReadAge", "ConnectionStale": "OldestCompletedRunAge",
}


def test_each_alarm_reads_its_metric_against_its_threshold():
    found = {
        name: (one["Properties"]["Threshold"], one["Properties"]["ComparisonOperator"], one["Properties"]["TreatMissingData"])
        for name, one in resources("AWS::CloudWatch::Alarm").items()}
    assert found == THRESHOLDS
    assert {who: name for who, _, name, _ in metrics_read() if who != "Dashboard"} == METRIC_OF


def test_a_schedule_that_stops_altogether_is_noticed():
    alarm = properties("NoCompletedRun")
    assert alarm["EvaluationPeriods"] == alarm["DatapointsToAlarm"] == {"Ref": "FreshnessHours"}
    filled, completed = alarm["Metrics"]
    assert filled["Expression"] == "FILL(completed, 0)" and filled["ReturnData"] is True
    assert completed["MetricStat"]["Period"] == 3600 and completed["MetricStat"]["Stat"] == "Sum"
    # CloudWatch looks back seven days at most with periods of an hour.
    assert source()["Parameters"]["FreshnessHours"]["MaxValue"] * 3600 <= 7 * 24 * 3600
    assert source()["Parameters"]["FreshnessHours"]["MinValue"] >= properties("PausedWithoutProgress")["DatapointsToAlarm"] == 2


def test_the_duration_is_measured_against_the_timeout():
    share = properties("DurationNearTimeout")["Metrics"][0]
    assert share["Expression"] == {"Fn::Sub": "100 * duration / (1000 * ${TimeoutSeconds})"}


# What one connection can cause, or one run.
OF_ONE = {
    "RunFailed", "FunctionFailed", "PausedWithoutProgress", "SourceCredentialsRefused", "TargetCredentialsRefused", "GuardStruck"}
BY_THEMSELVES = {
    "DeadLettersWaiting", "RowsQuarantined", "SourceThrottled", "TargetThrottled", "DurationNearTimeout", "CatalogueAges"}


def watched(fleet):
    """(the members of Outage, the alarms that ring) of a stack with or without a fleet."""
    stack = {name: resolved(one["Properties"], WithFleet=fleet) for name, one in alarms().items()
             if fleet or one.get("Condition") != "WithFleet"}
    ringing = {name for name, one in stack.items() if one.get("AlarmActions")}
    for name in ringing:
        assert stack[name]["AlarmActions"] == TOPIC
    rule = stack["Outage"]["AlarmRule"]["Fn::Sub"]
    members = set(re.findall(r'ALARM\("\$\{(\w+)\}"\)', rule))
    assert rule == " OR ".join(f'ALARM("${{{name}}}")' for name in re.findall(r"\w+(?=\})", rule)), "nothing but these"
    assert members <= set(stack), "a part of the outage is not there"
    assert not members & ringing, "a part of the outage rings by itself"
    assert set(stack) == members | ringing | {"DeadLetters"}, "an alarm reaches nobody"
    return members, ringing


def test_one_outage_of_one_connection_rings_once():
    members, ringing = watched(fleet=False)
    assert members == OF_ONE | {"NoCompletedRun"}
    assert ringing == BY_THEMSELVES | {"Outage"}
    assert properties("Outage")["OKActions"] == TOPIC


def test_one_broken_connection_of_a_fleet_rings_and_hides_no_outage():
    members, ringing = watched(fleet=True)
    assert members == {"FleetFailed", "NoCompletedRun"}
    assert ringing == BY_THEMSELVES | OF_ONE | {"Outage", "ConnectionStale"}
    for name in OF_ONE:
        assert "with Fleet=on on its own" in properties(name)["AlarmDescription"]


def test_a_connection_of_a_fleet_that_stands_still_rings_and_is_no_outage():
    alarm = properties("ConnectionStale")
    assert resources()["ConnectionStale"]["Condition"] == "WithFleet"
    hours, age = alarm["Metrics"]
    assert (hours["Expression"], hours["ReturnData"]) == ("age / 3600", True)
    # One number an execution, and nothing between two: the state stays until the next one.
    assert (age["MetricStat"]["Stat"], age["MetricStat"]["Period"], alarm["EvaluationPeriods"]) == ("Maximum", 3600, 1)
    assert alarm["OKActions"] == TOPIC
    assert "ConnectionStale" not in json.dumps(properties("Outage"))


def test_the_outage_of_a_fleet_ends_by_itself():
    alarm = properties("FleetFailed")
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (3600, 2, 1)
    assert alarm["TreatMissingData"] == "notBreaching", "no zero is promised of an execution that did not fail"


def test_dead_letters_ring_only_while_no_outage_explains_them():
    letters = properties("DeadLettersWaiting")
    assert letters["AlarmRule"] == {"Fn::Sub": 'ALARM("${DeadLetters}")'}
    assert letters["ActionsSuppressor"] == {"Fn::GetAtt": ["Outage", "Arn"]}


@pytest.mark.parametrize("name", [
    "RunFailed", "FunctionFailed", "SourceCredentialsRefused", "TargetCredentialsRefused", "GuardStruck", "RowsQuarantined",
    "TargetThrottled", "CatalogueAges"])
def test_one_bad_connection_of_a_fleet_does_not_ring_each_hour(name):
    alarm = properties(name)
    assert alarm["Period"] == {"Fn::If": ["WithFleet", 3600, 300]}
    assert alarm["EvaluationPeriods"] == {"Fn::If": ["WithFleet", 2, 1]} and alarm["DatapointsToAlarm"] == 1


def test_an_alarm_names_itself_and_its_paragraph():
    for name, alarm in alarms().items():
        assert alarm["Properties"]["AlarmName"] == {"Fn::Sub": f"${{AWS::StackName}}-{name}"}
        text = alarm["Properties"]["AlarmDescription"]
        text = text["Fn::Sub"] if isinstance(text, dict) else text
        assert text.endswith(f"infra/README.md, {name}."), name


@pytest.mark.parametrize("edition, title, parts, least", [
    ("README.md", "Alarms", ["**Means**", "**Look first**", "**Usual cause**", "**To end it**"], 30),
    ("README.zh-CN.md", "告警", ["**含义**", "**先看**", "**常见原因**", "**如何恢复**"], 15),
])
def test_the_runbook_has_a_paragraph_for_every_alarm_and_no_other(edition, title, parts, least):
    chapter = re.search(rf"^## {title}\n(.*?)(?=^## )", RUNBOOK.with_name(edition).read_text(), re.S | re.M)[1]
    paragraphs = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", chapter, re.S | re.M))
    assert set(paragraphs) == set(alarms())
    for name, text in paragraphs.items():
        for part in parts:
            found = re.search(re.escape(part) + r"\s+(.+?)(?=\*\*|\Z)", text, re.S)
            assert found and len(found[1]) > least, (name, part)


def test_the_runbook_s_costs_follow_from_its_prices_and_assumptions():
    chapter = RUNBOOK.read_text().split("## Fleet: cost and scale")[1]
    assumed = re.search(r"(\d+) a month\), (\d+) s at (\d+) MB on arm64, (\d+) state transitions, (\d+) PUT and (\d+) GET", chapter)
    runs, seconds, megabytes, transitions, puts, gets = map(int, assumed.groups())
    table = {row.split(" | ")[0].strip("| *"): [float(cell.strip("| *").replace(",", "")) for cell in row.split(" | ")[1:]]
             for row in re.findall(r"^\| .*\d\.\d\d\*{0,2} \|$", chapter, re.M) if row.count("|") == 5}
    rows = int(re.search(r"([\d,]+) rows of as many products", chapter)[1].replace(",", ""))
    days = {rule["Id"]: rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
            for rule in properties("Store")["LifecycleConfiguration"]["Rules"] if rule["Id"] in ("states", "cache")}
    # S3 deletes at the end of the day after.
    kept_bytes = 24 * days["states"] * 2 * 37 + 24 * (days["cache"] + 1) * (37 + 75)
    assert f"= {kept_bytes:,} bytes a row" in chapter
    large_gb = 200_000 * kept_bytes / 1e9
    assert f"200,000 are {large_gb:.1f} GB and {large_gb * 0.023:.2f} a month" in chapter
    all_gb = 200_000 * 24 * 30 * (2 * 37 + 37 + 75) / 1e9
    assert f"{all_gb:.1f} GB and {all_gb * 0.023:.2f}." in chapter
    for column, connections in enumerate([10, 1_000, 10_000]):
        month = runs * connections
        parts = {
            "Lambda: 10 GB-s a run, and the request": month * (seconds * megabytes / 1024 * 0.0000133334 + 0.2e-6),
            "Step Functions, STANDARD children": month * transitions * 0.025e-3,
            "S3 requests": month * (puts * 0.005e-3 + gets * 0.0004e-3),
            "S3 storage, 38 MB each": connections * (rows * kept_bytes + 24 * 90 * 1_000) / 1e9 * 0.023,
            "logs": month * 4e-6 * 0.5,
            "X-Ray": month * 5e-6,
            "alarms, composites, 11 metrics": 11 * 0.3 + 15 * 0.1 + 2 * 0.5,
        }
        reads = month * 0.05e-4
        expected = {
            **parts, "Secrets Manager, one secret for all": 0.4 + reads, "Secrets Manager, one secret each, instead": 0.4 * connections + reads,
            "sum with one secret": sum(parts.values()) + 0.4 + reads,
            "sum with one secret each": sum(parts.values()) + 0.4 * connections + reads,
        }
        assert set(table) == set(expected)
        for name, value in expected.items():
            assert table[name][column] == pytest.approx(value, abs=0.0051), (name, connections)
    found = resources()
    assert sum(one["Type"] == "AWS::CloudWatch::Alarm" for one in found.values()) == 15
    assert sum(one["Type"] == "AWS::CloudWatch::CompositeAlarm" for one in found.values()) == 2


def test_only_who_gives_an_address_is_subscribed():
    assert resources()["AlarmSubscription"]["Condition"] == "WithEmail"
    assert properties("AlarmSubscription") == {
        "TopicArn": {"Ref": "AlarmTopic"}, "Protocol": "email", "Endpoint": {"Ref": "AlarmEmail"}}


# ---------------------------------------------------------------- parameters


def test_every_parameter_is_described_constrained_used_and_has_a_default():
    text = json.dumps([transformed()["Resources"], transformed()["Conditions"]])
    for name, one in source()["Parameters"].items():
        assert len(one["Description"]) > 10 and "Default" in one, name
        assert one["ConstraintDescription"].startswith(f"{name}: "), name
        assert {"AllowedPattern", "AllowedValues", "MinValue"} & set(one), name
        assert allows(name, one["Default"]), name
        assert f'"Ref": "{name}"' in text or f"${{{name}}}" in text, f"{name} is not used"
    groups = source()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(source()["Parameters"])


def allows(name, value):
    """What CloudFormation would say to this value."""
    one = source()["Parameters"][name]
    if "AllowedValues" in one and str(value) not in [str(allowed) for allowed in one["AllowedValues"]]:
        return False
    if "AllowedPattern" in one and not re.fullmatch(one["AllowedPattern"], str(value)):
        return False
    return not ("MinValue" in one and not one["MinValue"] <= float(value) <= one["MaxValue"])


GOOD = {
    "ScheduleExpression": [
        "rate(1 minute)", "rate(15 minutes)", "rate(1 hour)", "rate(24 hours)", "rate(1 day)", "rate(7 days)",
        "cron(0 2 * * ? *)", "cron(*/15 8-20 ? * MON-FRI *)", "cron(0 10 * * ? *)", "cron(15 12 ? * 2#1 *)",
        "cron(0 8 1 * ? *)", "cron(0 0 L * ? *)", "cron(0 0 15W * ? *)", "cron(0/10 * ? * 2-6 *)", "cron(5,35 0 ? JAN-MAR,12 6L 2027-2030)"],
    "ScheduleTimezone": ["Asia/Shanghai", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+8", "America/Port-au-Prince"],
    "Connection": ["default", "acme-2"],
    "SecretArn": ["", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:okki/acme-AbCdEf",
                  "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:x-AbCdEf"],
    "SecretPrefix": ["", "okki-sync/prod/"],
    "Hosts": ["", "127.0.0.1", "api-sandbox.xiaoman.cn,erp.example.com:8443"],
    "AlarmEmail": ["", "ops@example.com"],
    "KmsKeyArn": ["", "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/0f0d3cf4-3c3c-4b0b-9d5e-1a2b3c4d5e6f"],
    "LogRetentionDays": [7, 365], "FreshnessHours": [2, 168], "TimeoutSeconds": [60, 900],
}
BAD = {
    "ScheduleExpression": [
        "", "hourly", "1 hour", "rate(1 hours)", "rate(5 minute)", "rate(0 minutes)", "rate(-1 hours)", "rate(1.5 hours)",
        "rate(1 week)", "rate(1 hour", "at(2026-01-01T00:00:00)", "cron(0 2 * * *)", "cron(0 2 * * * *)", "cron(0 2 ? * ? *)",
        "cron(60 2 * * ? *)", "cron(0 24 * * ? *)", "cron(0 2 32 * ? *)", "cron(0 2 0 * ? *)", "cron(0 2 * 13 ? *)",
        "cron(0 2 ? * 8 *)", "cron(0 2 ? * FOO *)", "cron(0 2 ? * 2#6 *)", "cron(0 2 * * ? 1999)", "0 2 * * *", "rate(1 hour) "],
    "ScheduleTimezone": ["", "+08:00", "Asia/Shanghai; x", "8", "Asia//Shanghai"],
    "Connection": ["", "Acme", "a/b", "a" * 65],
    "SecretArn": ["okki", "arn:aws:s3:::bucket", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:*"],
    "SecretPrefix": ["okki-sync", "*/", "/", "okki*/"],
    "Hosts": ["*", "a.example, b.example", "https://a.example", "a.example,", "a.example/x"],
    "AlarmEmail": ["ops", "a@b", "a b@c.de"],
    "KmsKeyArn": ["alias/aws/s3", "arn:aws:kms:eu-west-1:123456789012:alias/x", "*"],
    "LogRetentionDays": [0, 8], "FreshnessHours": [1, 169], "TimeoutSeconds": [59, 901], "MemorySize": [127, 10241],
    "Architecture": ["arm", ""], "Fleet": ["true"], "LogLevel": ["WARN", "warn"], "AsyncRetries": [3, -1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_good_value_is_taken(name, value):
    assert allows(name, value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused(name, value):
    assert not allows(name, value)


def test_two_kinds_of_secret_at_once_are_refused_in_one_sentence():
    [rule] = transformed()["Rules"]["OneKindOfSecret"]["Assertions"]
    assert rule["Assert"] == {"Fn::Or": [{"Fn::Equals": [{"Ref": "SecretArn"}, ""]}, {"Fn::Equals": [{"Ref": "SecretPrefix"}, ""]}]}
    assert "exclude each other" in rule["AssertDescription"]


def test_the_tests_run_with_the_project_s_own_tools():
    assert sys.prefix == str(ROOT / ".venv")
