"""Deploys okki-sync, puts pipelines and credentials in place, runs it by hand, shows its logs, takes it down.

The Makefile calls it: lifecycle.py deploy|pipeline|secret <env> <pipeline file>, invoke <env> <event file>, logs|destroy <env>.
SAM builds, deploys and deletes; `okki-sync check` judges pipeline files and names the credentials they need.
"""

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import credentials
import settings
from settings import Mistake, say

ROOT = Path(__file__).resolve().parents[1]
# Lambda keeps this many for the functions without a reserve; an account with a smaller quota can reserve nothing.
UNRESERVED_AT_LEAST = 100
# The longest run that the template allows, and a little for the way.
INVOKE_SECONDS = 930
# A look at the store for runs that go on. One that has just begun takes its lease within the time between two of them, and one
# that has just given it back writes what is left.
LOOK_SECONDS = 10


# cargo-auditable as the compiler's wrapper links the list of dependencies into the program. `cargo auditable build` sets the
# same two variables, the second one for itself; here SAM calls cargo. The Makefile pins the version.
AUDITED = {
    "RUSTC_WORKSPACE_WRAPPER": str(ROOT / ".tools/bin/cargo-auditable"),
    "CARGO_AUDITABLE_ORIG_ARGS": json.dumps({"offline": False, "locked": True, "frozen": False, "config": []})}

# What is uploaded, and unpacked at each cold start, is built for size: the function waits for both sides most of its time.
# `okki-sync` is built for speed. Of zstd's nine ways to compress, our levels take one.
UNUSED = ["DFAST", "GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA"]
SMALL = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "s",
    "CFLAGS": " ".join(f"-DZSTD_EXCLUDE_{way}_BLOCK_COMPRESSOR" for way in UNUSED)}


def environment(aws):
    """What a child process sees. A build runs the code of hundreds of packages: it gets no credentials of the two sides, nor
    what would override the pipeline file, and those of AWS only if `aws`."""
    hidden = r"(OKKI|QEASY|NOTIFY)_.*|TARGET_(TOKEN|BASE_URL)" + ("" if aws else "|AWS_.*")
    seen = {name: value for name, value in os.environ.items() if not re.fullmatch(hidden, name)}
    return {**seen, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"}


def sam(env, command, *arguments, aws=True):
    whole = ["sam", command, "--config-file", settings.SAMCONFIG, "--config-env", env, *arguments]
    seen = {**environment(aws), **(AUDITED | SMALL if command == "build" else {})}
    done = subprocess.run([str(part) for part in whole], cwd=ROOT, env=seen)
    if done.returncode != 0:
        raise Mistake(f"sam {command} ended with {done.returncode}; its own words are above")


def check(path, hosts):
    """What `okki-sync check` says of the pipeline file as one of the store, which may name only `hosts` (empty: the program's
    own), and its text. Credentials and store are not judged: they are not here."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}; name the pipeline file with PIPELINE=…") from None
    command = ["cargo", "run", "-q", "--locked", "--manifest-path", str(ROOT / "Cargo.toml"), "--bin", "okki-sync", "--",
               "check", "--stored", "--json", "--pipeline", path]
    seen = {**environment(aws=False), "OKKI_SYNC_STORE": "memory:", "OKKI_SYNC_HOSTS": hosts}
    done = subprocess.run(command, env=seen, stdout=subprocess.PIPE)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Mistake("okki-sync check did not run; the words above say why") from None
    wrong = "".join(f"\n{one['place']}: {one['message']}; {one['help']}" for one in found["diagnostics"] if one["kind"] == "pipeline")
    if wrong:
        # Here the variable is a parameter of the stack.
        raise Mistake(f"{path} has mistakes:{wrong.replace('OKKI_SYNC_HOSTS', 'the parameter Hosts')}")
    return {**found, "text": text, "format": Path(path).suffix[1:]}


# ---------------------------------------------------------------- the stack


def look(session, stack):
    """(status, parameters, outputs) of the stack; `None` and empty if it does not exist."""
    try:
        [found] = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        found = {"StackStatus": None}
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", [])}
    return found["StackStatus"], parameters, {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}


def opened(env):
    """(session, stack's name, its outputs) of an environment that was deployed from here."""
    _, section = settings.read(env)
    if "region" not in section:
        raise Mistake(f"{env} has not been deployed from here; run make deploy ENV={env}")
    session = boto3.Session(region_name=section["region"])
    _, _, outputs = look(session, section["stack_name"])
    if "Store" not in outputs:
        raise Mistake(f"there is no stack {section['stack_name']} in {session.region_name}; run make deploy ENV={env}")
    return session, section["stack_name"], outputs


def hosts(session, stack):
    """The hosts that the stack's pipelines may name. A stack of version 0.1.0 has no such parameter."""
    return look(session, stack)[1].get("Hosts", "")


def can_reserve(session, wanted, function):
    """Whether the account's quota leaves `wanted` runs to reserve; those that the function has already count as free."""
    client = session.client("lambda")
    free = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    held = client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions", 0) if function else 0
    return free + held - wanted >= UNRESERVED_AT_LEAST


def key_of(found):
    return f"pipelines/{found['connection']}.{found['format']}"


def put_pipeline(session, bucket, found):
    """The connection's file of the other format goes: a fleet would run both. The store keeps it as a former version."""
    client, key = session.client("s3"), key_of(found)
    client.put_object(Bucket=bucket, Key=key, Body=found["text"])
    say(f"{found['pipeline']} is s3://{bucket}/{key}")
    other = str(Path(key).with_suffix(".json" if found["format"] == "toml" else ".toml"))
    if "Contents" in client.list_objects_v2(Bucket=bucket, Prefix=other):
        client.delete_object(Bucket=bucket, Key=other)
        say(f"s3://{bucket}/{other}, this connection's pipeline until now, is deleted")


def secret_name(outputs, found):
    return outputs["Secret"].replace("{connection}", found["connection"])


# ---------------------------------------------------------------- the commands


def deploy(env, path):
    section = settings.guide(env)
    session, stack = boto3.Session(region_name=section["region"]), section["stack_name"]
    account = session.client("sts").get_caller_identity()["Account"]
    status, before, outputs = look(session, stack)
    found = check(path, {**before, **settings.overrides(section)}.get("Hosts", ""))
    say(f"{stack} goes to account {account}, {session.region_name}")
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        say(f"the first deployment of {stack} failed and was rolled back; removing what is left of it")
        sam(env, "delete", "--no-prompts", "--stack-name", stack, "--region", session.region_name)
        before, outputs = {}, {}

    # SAM keeps the previous value of a parameter that is not given: those that this script decides about are given each time.
    deciding = ["ScheduleState", "ReservedConcurrency", "FleetMaxConcurrency"]
    defaults = {name: settings.template_parameters()[name]["Default"] for name in deciding}
    parameters = {**defaults, **settings.overrides(section), "Connection": found["connection"], "PipelineFormat": found["format"]}
    schedule = parameters.pop("ScheduleState")
    wanted = int(parameters["FleetMaxConcurrency" if parameters.get("Fleet") == "on" else "ReservedConcurrency"])
    if wanted and not can_reserve(session, wanted, outputs.get("Function")):
        parameters["ReservedConcurrency"] = "0"
        say(f"the account's Lambda quota leaves no {wanted} to reserve: deployed without a reserve (runs may overlap; the state survives that)")
    given = ["--parameter-overrides", *settings.as_arguments(parameters)]
    sam(env, "build", "--template-file", settings.TEMPLATE, *given, aws=False)

    def put_stack(state):
        sam(env, "deploy", "--region", session.region_name, *given, f'ScheduleState="{state}"')

    # A schedule starts at once: one that is not on yet waits until pipeline and credentials are there.
    waits = schedule == "ENABLED" and before.get("ScheduleState", "DISABLED") == "DISABLED"
    put_stack("DISABLED" if waits else schedule)
    _, _, outputs = opened(env)
    put_pipeline(session, outputs["Store"], found)
    if not credentials.is_filled(session, secret_name(outputs, found)):
        values, missing = credentials.collect(found["needs"], found["optional"])
        if missing:
            say(f"the secret has no value yet: {', '.join(missing)} missing. Set {', '.join(found['needs'])} and run make secret ENV={env}")
            if waits:
                say(f"the schedule is off until then: run make deploy ENV={env} again after it")
            return 0
        credentials.fill(session, secret_name(outputs, found), values)
    if waits:
        put_stack(schedule)
    say(f"done. Look: CloudWatch dashboard {outputs['Dashboard']}. Try: make invoke ENV={env} EVENT=events/plan.json")
    return 0


def pipeline(env, path):
    session, stack, outputs = opened(env)
    found = check(path, hosts(session, stack))
    # A stack of version 0.1.0 has no output Pipeline, and runs TOML.
    runs = outputs.get("Pipeline", f"pipelines/{outputs['Connection']}.toml")
    if "Fleet" not in outputs and runs != key_of(found):
        raise Mistake(f"{path} is {key_of(found)}, but the stack runs {runs}; run make deploy with it, or set Fleet=on")
    put_pipeline(session, outputs["Store"], found)
    return 0


def secret(env, path):
    session, stack, outputs = opened(env)
    found = check(path, hosts(session, stack))
    name = secret_name(outputs, found)
    values, missing = credentials.collect(found["needs"], found["optional"], credentials.held(session, name))
    if missing or not values:
        raise Mistake(f"{', '.join(missing or found['needs'])}: no value; set it in the environment, or run this in a terminal")
    credentials.fill(session, name, values)
    return 0


def invoke(env, event):
    """The report goes to stdout, and the exit code is that of the command line. `sam remote invoke` waits for 60 seconds and
    then invokes again, and does not tell a part from the whole."""
    try:
        payload = Path(event).read_bytes()
        json.loads(payload)
    except (OSError, ValueError) as error:
        raise Mistake(f"EVENT={event}: {error}") from None
    session, _, outputs = opened(env)
    # No second try: a run that takes long is not one that was lost.
    client = session.client("lambda", config=Config(read_timeout=INVOKE_SECONDS, retries={"total_max_attempts": 1}))
    answer = client.invoke(FunctionName=outputs["Function"], Payload=payload)
    report = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise Mistake(f"{report.get('errorType', 'the function')}: {report.get('errorMessage', report)}")
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 3 if report.get("status") in ("partial", "paused") else 0


def logs(env):
    """The last hour and what follows, until Ctrl-C. `sam logs --tail` ends by itself after a thousand polls without news, sooner
    than the next run of an hourly schedule, and skips events that arrive late."""
    session, _, outputs = opened(env)
    pages, shown = session.client("logs").get_paginator("filter_log_events"), set()
    since = int((time.time() - 3600) * 1000)
    while True:
        for event in pages.paginate(logGroupName=outputs["Logs"], startTime=since).search("events[]"):
            if event["eventId"] not in shown:
                shown.add(event["eventId"])
                at = datetime.fromtimestamp(event["timestamp"] / 1000).strftime("%m-%d %H:%M:%S")
                print(at, event["message"].rstrip(), flush=True)
        time.sleep(3)
        # Looks back a minute each time, for what arrives late.
        since = max(since, int((time.time() - 60) * 1000))


def stop_runs(session, function):
    """No run begins any more; one that goes on is not ended by it. Answers what takes that back."""
    client = session.client("lambda")
    try:
        before = client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    except ClientError as error:
        # A former `destroy` came so far.
        if not credentials.is_missing(error):
            raise
        return lambda: None
    if before is None:
        return lambda: client.delete_function_concurrency(FunctionName=function)
    return lambda: client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=before)


def runs(session, bucket):
    """The connections whose runs hold an unexpired lease."""
    client, going_on = session.client("s3"), []
    now_ms = time.time() * 1000
    for one in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="state/").search("Contents[]"):
        # A run that goes on saves its lease every ten seconds: the others of a large fleet need not be read.
        if one and one["Key"].endswith(".run") and now_ms - one["LastModified"].timestamp() * 1000 < 120_000:
            try:
                lease = json.loads(client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read())
                if lease["holder"] and lease["holder"]["expires_at_ms"] > now_ms:
                    going_on.append(Path(one["Key"]).stem)
            except (ValueError, KeyError, TypeError):
                say(f"s3://{bucket}/{one['Key']} is damaged: whether its run goes on cannot be seen")
    return going_on


def wait_for_runs(session, bucket, longest):
    """What a run writes after the bucket was emptied would keep the bucket, and with it the stack."""
    waited = quiet = 0
    while waited <= longest + LOOK_SECONDS:
        going_on = runs(session, bucket)
        quiet = 0 if going_on else quiet + 1
        if quiet == 2:
            return
        if going_on:
            say(f"waiting for the end of {', '.join(going_on[:5])}{', …' if len(going_on) > 5 else ''}: "
                f"{waited} s of at most {longest}; Ctrl-C leaves everything as it was")
        time.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    say(f"no run lasts longer than {longest} s, so none is left")


def destroy(env):
    session, stack, outputs = opened(env)
    confirmed = os.environ.get("CONFIRM")
    if not confirmed and sys.stdin.isatty():
        say(f"This deletes {stack} in {session.region_name}: schedule, function, alarms, the secret, and the store "
            f"{outputs['Store']} with every state, report and former version. Nothing brings them back.")
        confirmed = input(f"Type {stack} to go on: ").strip()
    if confirmed != stack:
        raise Mistake(f"nothing was deleted; to confirm, answer {stack} (or set CONFIRM={stack})")
    # Nobody may write into the bucket between its emptying and its end. `sam delete` does not empty it.
    take_back = stop_runs(session, outputs["Function"])
    try:
        wait_for_runs(session, outputs["Store"], int(look(session, stack)[1].get("TimeoutSeconds", INVOKE_SECONDS)))
    except KeyboardInterrupt:
        take_back()
        raise
    answers = session.resource("s3").Bucket(outputs["Store"]).object_versions.delete()
    if errors := [error for answer in answers for error in answer.get("Errors", [])]:
        raise Mistake(f"{outputs['Store']}: {errors[0]['Key']} cannot be deleted: {errors[0].get('Message')}")
    say(f"{sum(len(answer['Deleted']) for answer in answers)} objects and versions deleted from {outputs['Store']}")
    sam(env, "delete", "--no-prompts", "--stack-name", stack, "--region", session.region_name)
    say(f"{stack} is gone; secrets that it did not create, and SAM's own bucket, are left")
    return 0


COMMANDS = {command.__name__: command for command in [deploy, pipeline, secret, invoke, logs, destroy]}


def main(command, *arguments):
    try:
        return COMMANDS[command](*arguments)
    except (Mistake, BotoCoreError, ClientError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
