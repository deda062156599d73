"""The program that is deployed: built as for the cloud, but for this machine's processor. `make package` runs it; it takes minutes."""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import zipfile

import pytest
from programs import PATIENCE
from template import ROOT
from test_supply_chain import valid

sys.path.insert(0, str(ROOT / "infra"))
import lifecycle  # noqa: E402
import sbom  # noqa: E402

# What a cold start unpacks, and what a deployment uploads.
MAX_BYTES = 4_200_000
# From the start of the process to its first call of Lambda's runtime. The quickest of many starts counts: what a busy machine
# adds says nothing of the program.
MAX_START_MS = 6
STARTS = 20

pytestmark = pytest.mark.skipif("PACKAGE" not in os.environ, reason="the release build takes minutes: make package")


def dependencies():
    """Name and version of everything that the function's build compiles but itself."""
    machine = re.search(r"^host: (.+)$", subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout, re.M)[1]
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "-p", "okki-sync", "--no-default-features", "-e", "normal,build", "--target", machine, "--prefix",
         "none", "--format", "{p}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    assert len(found) > 150
    return {(name, version.removeprefix("v")) for name, version in found if name != "okki-sync"}


@pytest.fixture(scope="module")
def file():
    """The zip, freshly built."""
    done = subprocess.run(
        ["cargo", "lambda", "build", "--release", "--output-format", "zip", "--bin", "okki-sync-lambda", "--no-default-features"],
        cwd=ROOT, capture_output=True, text=True, timeout=8 * PATIENCE, env={**os.environ, **lifecycle.AUDITED, **lifecycle.SMALL})
    assert done.returncode == 0, done.stderr
    return ROOT / "target/lambda/okki-sync-lambda/bootstrap.zip"


def test_the_zip_holds_one_program_without_command_line_below_4200_kb(file):
    with zipfile.ZipFile(file) as zipped:
        assert zipped.namelist() == ["bootstrap"]
        program = zipped.read("bootstrap")
    print(f"zip {file.stat().st_size:,} bytes, program {len(program):,} bytes")
    assert file.stat().st_size < MAX_BYTES
    assert b".symtab" not in program, "the program is not stripped"
    for crate in [b"clap_builder", b"indicatif", b"axum"]:
        assert crate not in program, f"{crate.decode()} of the command line is in the deployed program"
    made = sbom.sbom(program, sbom.checksums(), sbom.licences())
    assert valid(json.dumps(made))
    listed = {(one["name"], one["version"]) for one in made["components"]}
    missing, more = dependencies() - listed, listed - dependencies()
    assert missing == set()
    # Cargo's metadata unites the features of tests and build: a few optional packages that nobody builds are in it.
    assert len(more) <= 10 and not {name for name, _ in more} & {"clap", "indicatif", "axum", "okki-sync-sandbox"}, more
    for one in made["components"]:
        assert one["hashes"] and one["licenses"], one["name"]
    beside = file.with_name("bootstrap.cdx.json")
    beside.write_text(json.dumps(made, indent=1))
    print(f"{beside.relative_to(ROOT)} lists {len(made['components'])} packages")


def test_it_asks_for_its_first_event_within_6_ms(file, tmp_path):
    with zipfile.ZipFile(file) as zipped:
        zipped.extract("bootstrap", tmp_path)
    program = tmp_path / "bootstrap"
    program.chmod(0o755)
    (tmp_path / "pipeline.toml").write_text('connection = "acme"\n[target]\nkind = "qeasy"\nscheme_id = "s"\n')
    runtime = socket.create_server(("127.0.0.1", 0))
    runtime.settimeout(PATIENCE)
    environment = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.getsockname()[1]}", "AWS_LAMBDA_FUNCTION_NAME": "okki-sync",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_LAMBDA_LOG_GROUP_NAME": "group", "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
        "OKKI_SYNC_STORE": "s3://bucket/okki", "OKKI_SYNC_PIPELINE": "pipeline.toml", "OKKI_SYNC_LANG": "zh",
        "OKKI_CLIENT_ID": "client", "OKKI_CLIENT_SECRET": "client-secret", "QEASY_APP_KEY": "keykeykeykey",
        "QEASY_APP_SECRET": "secretsecretsecret01"}
    took = []
    for _ in range(STARTS):
        started = time.perf_counter()
        process = subprocess.Popen([program], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        called, _ = runtime.accept()
        took.append((time.perf_counter() - started) * 1000)
        process.kill()
        process.wait()
        called.close()
    print(f"start to first call: {min(took):.1f} ms at best, median {statistics.median(took):.1f} ms of {STARTS}")
    assert min(took) <= MAX_START_MS, took
