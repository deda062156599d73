"""The program that is deployed: built as for the cloud, but for this machine's processor. `make package` runs it; it takes minutes."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
from programs import PATIENCE
from template import ROOT
from test_supply_chain import valid

sys.path.insert(0, str(ROOT / "infra"))
import lifecycle  # noqa: E402
import sbom  # noqa: E402

MAX_BYTES = 4_000_000

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


def test_the_zip_holds_one_program_without_command_line_below_4_mb():
    done = subprocess.run(
        ["cargo", "lambda", "build", "--release", "--output-format", "zip", "--bin", "okki-sync-lambda", "--no-default-features"],
        cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE, env={**os.environ, **lifecycle.AUDITED})
    assert done.returncode == 0, done.stderr
    file = ROOT / "target/lambda/okki-sync-lambda/bootstrap.zip"
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
