"""The credentials in Secrets Manager: collected from the environment or, not echoed, from the terminal, and merged into what
the secret holds already. They never pass through arguments, output or a template."""

import getpass
import json
import os
import sys

from botocore.exceptions import ClientError

from settings import Mistake, say


# Answered for an optional credential, it takes the field out of the secret.
REMOVED = "-"


def is_missing(error):
    return error.response["Error"]["Code"] == "ResourceNotFoundException"


def ask(name, is_held, is_optional):
    hints = ["not shown", *(["empty keeps what the secret holds"] if is_held else ["empty for none"] if is_optional else []),
             *([f"{REMOVED} removes it"] if is_held and is_optional else [])]
    return getpass.getpass(f"{name} ({'; '.join(hints)}): ").strip()


def collect(needed, optional, held=None):
    """(values by the secret's fields, names without a value); `None` is a value to remove. With `held`, the fields that the
    secret has: what is optional is asked for too, and what has a value there may go without a new one."""
    fields = {field for field, value in (held or {}).items() if value}
    values = {name: os.environ.get(name, "").strip() for name in [*needed, *optional]}
    if sys.stdin.isatty():
        for name in [*needed, *(optional if held is not None else ())]:
            values[name] = values[name] or ask(name, name.lower() in fields, name in optional)
    missing = [name for name in needed if not values[name] and name.lower() not in fields]
    given = {name: value for name, value in values.items() if value}
    return {name.lower(): None if name in optional and value == REMOVED else value for name, value in given.items()}, missing


def is_filled(session, secret):
    try:
        stages = session.client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    except ClientError as error:
        if is_missing(error):
            return False
        raise
    return any("AWSCURRENT" in names for names in stages.values())


def held(session, secret):
    """What the secret holds, by field."""
    if not is_filled(session, secret):
        return {}
    try:
        return dict(json.loads(session.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]))
    except (ValueError, TypeError, KeyError):
        raise Mistake(f"the secret {secret} holds something that is not JSON; look at it, it is not overwritten") from None


def fill(session, secret, values):
    """Puts the values in place, and takes out those that are `None`; other fields of the secret stay as they are."""
    client, before = session.client("secretsmanager"), held(session, secret)
    kept = {field: value for field, value in before.items() if field not in values}
    put = {field: value for field, value in values.items() if value is not None}
    text = json.dumps({**kept, **put})
    try:
        client.put_secret_value(SecretId=secret, SecretString=text)
    except ClientError as error:
        # With SecretPrefix a connection's secret does not come from the template.
        if not is_missing(error) or secret.startswith("arn:"):
            raise
        client.create_secret(Name=secret, SecretString=text, Description="Credentials of an okki-sync connection")
    for what, fields in [("new", put), ("removed", before.keys() & (values.keys() - put.keys())), ("kept", kept)]:
        if fields:
            say(f"the secret {secret}: {what} {', '.join(sorted(fields))}")
    say("runs see it within 15 minutes, or at once where the old ones are refused")
