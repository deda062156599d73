"""The template as written and as CloudFormation gets it, for the tests of this folder."""

import json
import os
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra" / "template.yaml"


@cache
def source():
    """The template as written: SAM, the short functions spelt out."""
    from samtranslator.yaml_helper import yaml_parse

    return yaml_parse(TEMPLATE.read_text())


@cache
def transformed():
    """What CloudFormation makes of it. A region of China, so that a partition that SAM writes itself would show."""
    from samtranslator.translator.transform import transform

    os.environ["AWS_DEFAULT_REGION"] = "cn-north-1"
    template = json.loads(json.dumps(source()))
    template["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://code-bucket/function.zip"
    template["Resources"]["FleetMachine"]["Properties"]["DefinitionUri"] = "s3://code-bucket/fleet.json"

    class Policies:
        @staticmethod
        def load():
            return {}

    return transform(template, {}, Policies())


def resources(kind=None):
    found = transformed()["Resources"]
    return {name: one for name, one in found.items() if kind in (None, one["Type"])}


def resolved(value, **conditions):
    """A value of the transformed template under conditions that are given by name; what is then nothing is left out."""
    nothing = {"Ref": "AWS::NoValue"}
    if isinstance(value, dict):
        if list(value) == ["Fn::If"] and value["Fn::If"][0] in conditions:
            condition, then, otherwise = value["Fn::If"]
            return resolved(then if conditions[condition] else otherwise, **conditions)
        found = {name: resolved(inner, **conditions) for name, inner in value.items()}
        return {name: inner for name, inner in found.items() if inner != nothing}
    if isinstance(value, list):
        found = [resolved(inner, **conditions) for inner in value]
        return [inner for inner in found if inner != nothing]
    return value


def properties(name):
    return transformed()["Resources"][name]["Properties"]


def alarms():
    return {**resources("AWS::CloudWatch::Alarm"), **resources("AWS::CloudWatch::CompositeAlarm")}


def dashboard(language="en"):
    """The dashboard's body in this language, each other ${…} replaced by its name (numbers by 900)."""
    body, found = properties("Dashboard")["DashboardBody"]["Fn::Sub"]
    for name, where in found.items():
        assert where == {"Fn::FindInMap": ["Dashboard", {"Ref": "Language"}, name]}, name
        body = body.replace("${%s}" % name, transformed()["Mappings"]["Dashboard"][language][name])
    body = re.sub(r"\$\{(TimeoutSeconds|OldestReadSeconds)\}", "900", body)
    return json.loads(re.sub(r"\$\{([\w.:]+)\}", r"<\1>", body))


def walk(value):
    """Every dict inside of a value, itself included."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def every(value):
    """A value that is one or a list, as a list."""
    return value if isinstance(value, list) else [value]


def statements():
    """Every policy statement of the template: (resource's name, statement)."""
    for name, resource in resources().items():
        for part in walk(resource["Properties"]):
            if "Effect" in part and ("Action" in part or "NotAction" in part):
                yield name, part


def metric_constants():
    """(the names published as metrics, all names) of src/metrics.rs."""
    text = (ROOT / "src/metrics.rs").read_text()
    metrics = re.findall(r'^    (published|property)(?:_seconds)?\(\s*"(\w+)"', text, re.M)
    return {name for kind, name in metrics if kind == "published"}, {name for _, name in metrics}


def metric_of_the_fleet():
    """The name of the one metric that only a fleet publishes."""
    return re.search(r'^const OLDEST_COMPLETED: &str = "(\w+)"', (ROOT / "src/metrics.rs").read_text(), re.M)[1]


def metrics_read():
    """Every metric that an alarm or the dashboard reads: (who, namespace, name, dimensions)."""
    for name, alarm in alarms().items():
        for part in walk(alarm["Properties"]):
            if "MetricName" in part:
                dimensions = {one["Name"]: one["Value"] for one in part["Dimensions"]}
                yield name, part["Namespace"], part["MetricName"], dimensions
    for widget in dashboard()["widgets"]:
        for row in widget["properties"].get("metrics", []):
            if isinstance(row[0], str):
                names = row[2:4] if isinstance(row[3], str) else []
                yield "Dashboard", row[0], row[1], dict([names])
