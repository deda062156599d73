"""Deploys okki-sync, puts pipelines and credentials in place, runs it by hand, shows its logs, takes it down.

The Makefile calls it: make deploy | pipeline | secret | invoke | logs | destroy, with ENV=dev|prod. Credentials never pass
through arguments, output or a template: they go from the terminal (not echoed) or the environment to Secrets Manager.
"""

import argparse
import getpass
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from datetime import datetime
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

INFRA = Path(__file__).resolve().parent
ROOT = INFRA.parent
SAMCONFIG = INFRA / "samconfig.toml"
CONNECTION = re.compile(r"[a-z0-9-]{1,64}")
# Lambda keeps this many for the functions without a reserve; an account whose quota is smaller can reserve nothing.
UNRESERVED_AT_LEAST = 100
# The longest run that the template allows, and a little for the way.
INVOKE_SECONDS = 930


class Mistake(Exception):
    """What the person has to mend, in one line."""


def say(text):
    print(text, file=sys.stderr)


# ---------------------------------------------------------------- settings: infra/samconfig.toml


def settings(env, file=None):
    """The environment's section of samconfig.toml."""
    file = file or SAMCONFIG
    section = tomllib.loads(file.read_text()).get(env, {}).get("deploy", {}).get("parameters", {})
    if "stack_name" not in section:
        raise Mistake(f"{file.name} has no [{env}.deploy.parameters] with a stack_name; ENV is dev or prod")
    return section


def remember(env, key, value, file=None):
    """Writes one text into the environment's section, keeping comments and order."""
    file = file or SAMCONFIG
    lines, at = file.read_text().splitlines(), None
    for number, line in enumerate(lines):
        if line.strip() == f"[{env}.deploy.parameters]":
            at = number + 1
        elif at and line.startswith("["):
            break
        elif at and re.match(rf"{key}\s*=", line):
            lines[number] = f"{key} = {json.dumps(value)}"
            break
    else:
        number = len(lines)
    if not any(re.match(rf"{key}\s*=", line) for line in lines[at:number + 1]):
        while number > at and not lines[number - 1].strip():
            number -= 1
        lines.insert(number, f"{key} = {json.dumps(value)}")
    file.write_text("\n".join(lines) + "\n")


def overrides(section):
    """The template's parameters that samconfig.toml sets, by name."""
    given = section.get("parameter_overrides", "")
    words = shlex.split(given) if isinstance(given, str) else given
    return dict(word.split("=", 1) for word in words)


def as_overrides(parameters):
    return " ".join(f'{name}="{value}"' for name, value in parameters.items())


def ask(question, default, pattern, wrong):
    while True:
        answer = input(f"{question} [{default}]: ").strip() or default
        if re.fullmatch(pattern, answer):
            return answer
        say(f"  {wrong}")


def guide(env, session_region, file=None):
    """The first deployment of an environment asks what nobody can guess, and keeps the answers."""
    section = settings(env, file)
    if "region" in section:
        return section
    if not sys.stdin.isatty() and not session_region:
        raise Mistake(f"the first deployment of {env} asks for a region; set AWS_REGION, or write region into infra/samconfig.toml")
    region, email = session_region, os.environ.get("ALARM_EMAIL", "")
    parameters = overrides(section)
    if sys.stdin.isatty():
        say(f"First deployment of {env}. The answers go into infra/samconfig.toml; infra/template.yaml lists what else can be set there.")
        region = ask("AWS region", session_region or "ap-east-1", r"[a-z]{2}(-[a-z]+)+-\d", "a region is written like ap-east-1")
        email = ask("E-mail address for alarms, - for none", email or "-", r"-|[^@\s\"]+@[^@\s\"]+\.[^@\s\"]+", "an address has an @, or answer -")
        schedule = ask("Schedule", parameters.get("ScheduleExpression", "rate(1 hour)"), schedule_pattern(),
                       "write rate(1 hour), rate(15 minutes), or cron(0 2 * * ? *)")
        parameters["ScheduleExpression"] = schedule
        if (hours := hours_between_runs(schedule)) is None:
            freshness = ask("Hours without a completed run before the alarm rings", "49", r"[2-9]|[1-9]\d|1[0-5]\d|16[0-8]", "write 2 to 168")
        else:
            freshness = str(min(168, max(int(parameters.get("FreshnessHours", 3)), 2 * hours + 1)))
        parameters["FreshnessHours"] = freshness
    if email and email != "-":
        parameters["AlarmEmail"] = email
    remember(env, "parameter_overrides", as_overrides(parameters), file)
    remember(env, "region", region, file)
    return settings(env, file)


def hours_between_runs(schedule):
    """Of a rate, rounded up; none for a cron, whose gaps only a person knows."""
    found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule)
    if not found:
        return None
    minutes = int(found[1]) * {"minute": 1, "hour": 60, "day": 1440}[found[2]]
    return -(-minutes // 60)


def schedule_pattern():
    """The template's own pattern, so that the question refuses what CloudFormation would."""
    text = (INFRA / "template.yaml").read_text()
    found = re.search(r"  ScheduleExpression:\n.*?AllowedPattern: (\".*?\")\n", text, re.S)
    return json.loads(found[1])


# ---------------------------------------------------------------- the pipeline file and the credentials


def read_pipeline(path):
    """(connection, names of the credentials it needs, its bytes)."""
    try:
        data = Path(path).read_bytes()
        pipeline = tomllib.loads(data.decode())
    except FileNotFoundError:
        raise Mistake(f"{path} does not exist; name the pipeline file with PIPELINE=…") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} is not TOML: {error}") from None
    connection, target = pipeline.get("connection", "default"), pipeline.get("target", {})
    if not isinstance(connection, str) or not CONNECTION.fullmatch(connection):
        raise Mistake(f"{path}: connection = {json.dumps(connection)} is no name; use 1 to 64 of a-z, 0-9 and -")
    needed = ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET"]
    if target.get("kind") == "qeasy":
        needed += ["QEASY_APP_KEY", "QEASY_APP_SECRET"]
    elif target.get("auth") == "bearer":
        needed += ["TARGET_TOKEN"]
    return connection, needed, data


def check_pipeline(path, needed):
    """`okki-sync check` with stand-ins for credentials and store: only the file is judged."""
    built = ROOT / "target" / "debug" / "okki-sync"
    command = [str(built)] if built.exists() else ["cargo", "run", "-q", "--bin", "okki-sync", "--"]
    overriding = {"OKKI_BASE_URL", "TARGET_BASE_URL", "QEASY_SCHEME_ID", "OKKI_SYNC_SECRET", "OKKI_SYNC_PIPELINE"}
    env = {name: value for name, value in os.environ.items() if name not in overriding}
    env.update({name: "not-checked-here" for name in needed}, OKKI_SYNC_STORE="memory:")
    done = subprocess.run([*command, "check", "--pipeline", str(Path(path).resolve())], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise Mistake(f"{path} has mistakes:\n{(done.stdout + done.stderr).strip()}")


def put_pipeline(session, bucket, path, fleet=False, deployed=None):
    connection, _, data = read_pipeline(path)
    if not fleet and deployed and connection != deployed:
        raise Mistake(f"{path} is of connection {connection}, but the stack runs {deployed}; run make deploy with it, or set Fleet=on")
    key = f"pipelines/{connection}.toml"
    session.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
    say(f"{path} is s3://{bucket}/{key}")
    return connection


# Nobody is asked for these; they go into the secret where the environment has them.
OPTIONAL = ["NOTIFY_WEBHOOK", "NOTIFY_SECRET"]


def collect(needed, environ=None, prompt=None):
    """The credentials, from the environment or else from the terminal without echo; none if they cannot be had."""
    environ = os.environ if environ is None else environ
    values = {name: environ.get(name, "").strip() for name in needed}
    missing = [name for name in needed if not values[name]]
    if missing and prompt is None:
        if not sys.stdin.isatty():
            return None, missing
        prompt = getpass.getpass
    for name in missing:
        values[name] = prompt(f"{name} (not shown): ").strip()
        if not values[name]:
            return None, [name]
    given = {name: environ.get(name, "").strip() for name in OPTIONAL}
    values.update({name: value for name, value in given.items() if value})
    return {name.lower(): value for name, value in values.items()}, []


def secret_is_filled(session, secret):
    try:
        stages = session.client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return False
        raise
    return any("AWSCURRENT" in names for names in stages.values())


def fill_secret(session, secret, values):
    """Puts the values in place; other fields of the secret stay as they are."""
    client = session.client("secretsmanager")
    try:
        kept = json.loads(client.get_secret_value(SecretId=secret)["SecretString"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        kept = {}
    except (ValueError, KeyError):
        raise Mistake(f"the secret {secret} holds something that is not JSON; look at it, it is not overwritten") from None
    text = json.dumps({**kept, **values})
    try:
        client.put_secret_value(SecretId=secret, SecretString=text)
    except ClientError as error:
        # With SecretPrefix a connection's secret does not come from the template.
        if error.response["Error"]["Code"] != "ResourceNotFoundException" or secret.startswith("arn:"):
            raise
        client.create_secret(Name=secret, SecretString=text, Description="Credentials of an okki-sync connection")
    say(f"the secret {secret} holds {', '.join(sorted(values))}; runs see it within 15 minutes, or at once where the old ones are refused")


# ---------------------------------------------------------------- the stack


def outputs(session, stack):
    """What the stack says of itself; none if there is no such stack."""
    try:
        [found] = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}


def remove_rolled_back(session, stack):
    """A first deployment that failed leaves a stack that holds nothing and can only be deleted."""
    client = session.client("cloudformation")
    try:
        [found] = client.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return
        raise
    if found["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        say(f"the first deployment of {stack} failed and was rolled back; removing what is left of it")
        client.delete_stack(StackName=stack)
        client.get_waiter("stack_delete_complete").wait(StackName=stack)


def deployed(session, env, stack):
    found = outputs(session, stack)
    if not found or "Store" not in found:
        raise Mistake(f"there is no stack {stack} in {session.region_name}; run make deploy ENV={env}")
    return found


def can_reserve(session, wanted, function=None):
    """Whether the account's quota leaves so many runs to reserve, those that the function has already included."""
    client = session.client("lambda")
    free = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    if function:
        free += client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions", 0)
    return free - wanted >= UNRESERVED_AT_LEAST


def run(command, **more):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, **more)
    if done.returncode != 0:
        raise Mistake(f"{Path(command[0]).name} {command[1]} ended with {done.returncode}; its own words are above")


def deploy(env, pipeline):
    # boto3 reads AWS_DEFAULT_REGION only.
    section = guide(env, os.environ.get("AWS_REGION") or boto3.Session().region_name)
    session = boto3.Session(region_name=section["region"])
    account = session.client("sts").get_caller_identity()["Account"]
    stack, parameters = section["stack_name"], overrides(section)
    connection, needed, _ = read_pipeline(pipeline)
    check_pipeline(pipeline, needed)
    say(f"{stack} goes to account {account}, {section['region']}")

    fleet = parameters.get("Fleet") == "on"
    parameters["Connection"] = connection
    remove_rolled_back(session, stack)
    before = outputs(session, stack) or {}
    wanted = int(parameters.get("FleetMaxConcurrency", 20) if fleet else parameters.get("ReservedConcurrency", 1))
    if wanted and not can_reserve(session, wanted, before.get("Function")):
        parameters["ReservedConcurrency"] = "0"
        say(f"the account's Lambda quota leaves no {wanted} to reserve: deployed without a reserve (runs may overlap; the state survives that)")

    sam = Path(sys.executable).parent / "sam"
    path = {**os.environ, "PATH": f"{sam.parent}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"}
    given = [f'{name}="{value}"' for name, value in parameters.items()]
    run([sam, "build", "--template-file", INFRA / "template.yaml", "--config-file", SAMCONFIG, "--config-env", env,
         "--parameter-overrides", *given], env=path)

    def put_stack(*more):
        run([sam, "deploy", "--config-file", SAMCONFIG, "--config-env", env, "--region", section["region"],
             "--parameter-overrides", *given, *more], env=path)

    # A schedule starts at once: the first time it waits until pipeline and credentials are there.
    waits = not before and parameters.get("ScheduleState", "ENABLED") == "ENABLED"
    put_stack(*(['ScheduleState="DISABLED"'] if waits else []))

    now = deployed(session, env, stack)
    put_pipeline(session, now["Store"], pipeline, fleet)
    secret = now["Secret"].replace("{connection}", connection)
    if not secret_is_filled(session, secret):
        values, missing = collect(needed)
        if values:
            fill_secret(session, secret, values)
        else:
            say(f"the secret has no value yet: {', '.join(missing)} missing. Set {', '.join(needed)} and run make secret ENV={env}")
            if waits:
                say(f"the schedule is off until then: run make deploy ENV={env} again after it")
                return 0
    if waits:
        put_stack()
    say(f"done. Look: CloudWatch dashboard {now['Dashboard']}. Try: make invoke ENV={env} EVENT=events/plan.json")
    return 0


def session_of(env):
    section = settings(env)
    if "region" not in section:
        raise Mistake(f"{env} has not been deployed from here; run make deploy ENV={env}")
    return boto3.Session(region_name=section["region"]), section["stack_name"]


def pipeline(env, path):
    session, stack = session_of(env)
    now = deployed(session, env, stack)
    _, needed, _ = read_pipeline(path)
    check_pipeline(path, needed)
    put_pipeline(session, now["Store"], path, "Fleet" in now, now["Connection"])
    return 0


def secret(env, path):
    session, stack = session_of(env)
    connection, needed, _ = read_pipeline(path)
    values, missing = collect(needed)
    if not values:
        raise Mistake(f"{', '.join(missing)}: no value; set it in the environment, or run this in a terminal")
    fill_secret(session, deployed(session, env, stack)["Secret"].replace("{connection}", connection), values)
    return 0


def invoke(env, event):
    try:
        payload = Path(event).read_bytes()
        json.loads(payload)
    except (OSError, ValueError) as error:
        raise Mistake(f"EVENT={event}: {error}") from None
    session, stack = session_of(env)
    function = deployed(session, env, stack)["Function"]
    # No second try: a run that takes long is not one that was lost.
    config = Config(read_timeout=INVOKE_SECONDS, retries={"total_max_attempts": 1})
    answer = session.client("lambda", config=config).invoke(FunctionName=function, Payload=payload)
    return show_answer(answer)


def show_answer(answer):
    """The report on stdout; the exit codes are those of the command line."""
    report = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        say(f"{report.get('errorType', 'error')}: {report.get('errorMessage', report)}")
        return 1
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 3 if report.get("status") in ("partial", "paused") else 0


def logs(env, minutes, follow):
    session, stack = session_of(env)
    group, client = deployed(session, env, stack)["Logs"], session.client("logs")
    since, shown = int((time.time() - minutes * 60) * 1000), set()
    while True:
        for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since):
            for event in page["events"]:
                if event["eventId"] not in shown:
                    shown.add(event["eventId"])
                    at = datetime.fromtimestamp(event["timestamp"] / 1000).strftime("%m-%d %H:%M:%S")
                    print(at, event["message"].rstrip(), flush=True)
        if not follow:
            return 0
        time.sleep(3)
        # Events arrive late and out of order: look back a minute each time, what was shown is known.
        since = max(since, int((time.time() - 60) * 1000))


def empty_bucket(session, bucket):
    """Deletes every object, every former version and every marker; gives back how many."""
    client, count = session.client("s3"), 0
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [{"Key": one["Key"], "VersionId": one["VersionId"]}
                 for one in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        if found:
            errors = client.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True}).get("Errors", [])
            if errors:
                raise Mistake(f"{bucket}: {errors[0]['Key']} cannot be deleted: {errors[0].get('Message')}")
            count += len(found)
    return count


def destroy(env, confirmed=None):
    session, stack = session_of(env)
    found = deployed(session, env, stack)
    if confirmed is None and sys.stdin.isatty():
        say(f"This deletes {stack} in {session.region_name}: schedule, function, alarms, the secret, and the store "
            f"{found['Store']} with every state, report and former version. Nothing brings them back.")
        confirmed = input(f"Type {stack} to go on: ").strip()
    if confirmed != stack:
        raise Mistake(f"nothing was deleted; to confirm, answer {stack} (or set CONFIRM={stack})")
    # Nobody may write into the bucket between its emptying and its end.
    session.client("lambda").put_function_concurrency(FunctionName=found["Function"], ReservedConcurrentExecutions=0)
    say(f"{empty_bucket(session, found['Store'])} objects and versions deleted from {found['Store']}")
    client = session.client("cloudformation")
    client.delete_stack(StackName=stack)
    client.get_waiter("stack_delete_complete").wait(StackName=stack)
    say(f"{stack} is gone; secrets that it did not create, and SAM's own bucket of programs, are left")
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="lifecycle.py", description=__doc__)
    parser.add_argument("what", choices=["deploy", "pipeline", "secret", "invoke", "logs", "destroy"])
    parser.add_argument("--env", required=True)
    parser.add_argument("--pipeline", default="pipeline.toml")
    parser.add_argument("--event", default="events/plan.json")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--follow", action="store_true")
    given = parser.parse_args(arguments)
    try:
        match given.what:
            case "deploy":
                return deploy(given.env, given.pipeline)
            case "pipeline":
                return pipeline(given.env, given.pipeline)
            case "secret":
                return secret(given.env, given.pipeline)
            case "invoke":
                return invoke(given.env, given.event)
            case "logs":
                return logs(given.env, given.minutes, given.follow)
            case "destroy":
                return destroy(given.env, os.environ.get("CONFIRM") or None)
    except (Mistake, BotoCoreError, ClientError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
