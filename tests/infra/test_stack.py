"""A schedule that really fires the real program, until the target holds the catalogue."""

import json
import time

from conftest import BUCKET, wait_for


def test_the_schedule_fires_the_function_until_the_target_holds_the_catalogue(scheduled, cloud):
    waited = time.monotonic() - scheduled.since
    wait_for("the catalogue at the target", scheduled.sandbox.holds_the_catalogue, seconds=150)
    [key, *_] = wait_for("the run's report", lambda: cloud.keys("scheduled/reports/main/"))
    report = json.loads(cloud.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert (report["mode"], report["status"], report["plan"]["create"]) == ("sync", "succeeded", 12), waited
    assert "scheduled/state/main.state" in cloud.keys("scheduled/state/")
