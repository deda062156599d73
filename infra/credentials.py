"""The credentials in Secrets Manager: collected from the environment or, not echoed, from the terminal, and merged into what
the secret holds already. They never pass through arguments, output or a template."""

import getpass
import json
import os
import sys

from botocore.exceptions import ClientError

from settings import Mistake, say


def is_missing(error):
    return error.response["Error"]["Code"] == "ResourceNotFoundException"


def collect(needed, optional):
    """(values by the secret's fields, names without a value). Nobody is asked for what is optional."""
    values = {name: os.environ.get(name, "").strip() for name in [*needed, *optional]}
    for name in needed:
        if not values[name] and sys.stdin.isatty():
            values[name] = getpass.getpass(f"{name} (not shown): ").strip()
    missing = [name for name in needed if not values[name]]
    return {name.lower(): value for name, value in values.items() if value}, missing


def is_filled(session, secret):
    try:
        stages = session.client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    except ClientError as error:
        if is_missing(error):
            return False
        raise
    return any("AWSCURRENT" in names for names in stages.values())


def fill(session, secret, values):
    """Puts the values in place; other fields of the secret stay as they are."""
    client = session.client("secretsmanager")
    try:
        kept = json.loads(client.get_secret_value(SecretId=secret)["SecretString"]) if is_filled(session, secret) else {}
    except (ValueError, KeyError):
        raise Mistake(f"the secret {secret} holds something that is not JSON; look at it, it is not overwritten") from None
    text = json.dumps({**kept, **values})
    try:
        client.put_secret_value(SecretId=secret, SecretString=text)
    except ClientError as error:
        # With SecretPrefix a connection's secret does not come from the template.
        if not is_missing(error) or secret.startswith("arn:"):
            raise
        client.create_secret(Name=secret, SecretString=text, Description="Credentials of an okki-sync connection")
    say(f"the secret {secret} holds {', '.join(sorted(values))}; runs see it within 15 minutes, or at once where the old ones are refused")
