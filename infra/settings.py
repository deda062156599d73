"""infra/samconfig.toml: what an environment is deployed with, and the questions of its first deployment."""

import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import boto3
import tomlkit
from samtranslator.yaml_helper import yaml_parse

INFRA = Path(__file__).resolve().parent
TEMPLATE, SAMCONFIG = INFRA / "template.yaml", INFRA / "samconfig.toml"


class Mistake(Exception):
    """What the person has to correct, in one line."""


def say(text):
    print(text, file=sys.stderr)


def read(env):
    """(samconfig.toml, the environment's section of it)."""
    document = tomlkit.parse(SAMCONFIG.read_text())
    try:
        return document, document[env]["deploy"]["parameters"]
    except KeyError:
        raise Mistake(f"{SAMCONFIG.name} has no [{env}.deploy.parameters]; ENV is dev or prod") from None


def overrides(section):
    """The template's parameters that samconfig.toml sets, by name."""
    given = section.get("parameter_overrides", "")
    return dict(word.split("=", 1) for word in (shlex.split(given) if isinstance(given, str) else given))


def as_arguments(parameters):
    return [f'{name}="{value}"' for name, value in parameters.items()]


@cache
def template_parameters():
    return yaml_parse(TEMPLATE.read_text())["Parameters"]


def rule(name):
    """(pattern, words) of what the template takes, so that CloudFormation does not refuse an answer minutes later."""
    found = template_parameters()[name]
    numbers = "|".join(str(number) for number in range(found.get("MinValue", 0), found.get("MaxValue", 0) + 1))
    return found.get("AllowedPattern", numbers), found["ConstraintDescription"]


def ask(question, default, pattern, wrong):
    while not re.fullmatch(pattern, answer := input(f"{question} [{default}]: ").strip() or default):
        say(f"  {wrong}")
    return answer


def freshness(schedule, parameters):
    """Hours without a completed run until the alarm: twice the schedule's period and one more. Only a person knows a cron's."""
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule)
    if not rate:
        return ask("Hours without a completed run before the alarm rings", "49", *rule("FreshnessHours"))
    hours = -(-int(rate[1]) * {"minute": 1, "hour": 60, "day": 1440}[rate[2]] // 60)
    return str(min(168, max(int(parameters.get("FreshnessHours", 3)), 2 * hours + 1)))


def guide(env):
    """Asks at the first deployment what nobody can guess, and keeps the answers in samconfig.toml. `sam deploy --guided` asks
    for every parameter of the template, does not know FreshnessHours from the schedule, and needs a terminal."""
    document, section = read(env)
    if "region" in section:
        return section
    # boto3 reads AWS_DEFAULT_REGION only.
    region = os.environ.get("AWS_REGION") or boto3.Session().region_name
    parameters, email = overrides(section), os.environ.get("ALARM_EMAIL", "")
    if sys.stdin.isatty():
        say(f"First deployment of {env}. The answers go into infra/samconfig.toml; infra/template.yaml lists what else can be set there.")
        region = ask("AWS region", region or "ap-east-1", r"[a-z]{2}(-[a-z]+)+-\d", "a region is written like ap-east-1")
        email = ask("E-mail address for alarms, empty for none", email, *rule("AlarmEmail"))
        schedule = ask("Schedule", parameters.get("ScheduleExpression", "rate(1 hour)"), *rule("ScheduleExpression"))
        parameters |= {"ScheduleExpression": schedule, "FreshnessHours": freshness(schedule, parameters)}
    elif not region:
        raise Mistake(f"the first deployment of {env} asks for a region; set AWS_REGION, or write region into infra/samconfig.toml")
    section["parameter_overrides"] = " ".join(as_arguments({**parameters, **({"AlarmEmail": email} if email else {})}))
    section["region"] = region
    SAMCONFIG.write_text(tomlkit.dumps(document))
    return section
