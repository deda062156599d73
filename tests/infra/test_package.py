"""The program that is deployed: built as for the cloud, but for this machine's processor. `make package` runs it; it takes minutes."""

import os
import subprocess
import zipfile

import pytest
from template import ROOT

MAX_BYTES = 4_000_000

pytestmark = pytest.mark.skipif("PACKAGE" not in os.environ, reason="the release build takes minutes: make package")


def test_the_zip_holds_one_program_without_command_line_below_4_mb():
    done = subprocess.run(
        ["cargo", "lambda", "build", "--release", "--output-format", "zip", "--bin", "okki-sync-lambda", "--no-default-features"],
        cwd=ROOT, capture_output=True, text=True, timeout=1800, env=os.environ)
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
