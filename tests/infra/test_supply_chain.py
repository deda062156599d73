"""What the programs are made of: the list that the function carries, its SBOM, and the pins of what is installed."""

import json
import re
import subprocess
import sys
import zlib

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from template import ROOT

sys.path.insert(0, str(ROOT / "infra"))
import sbom  # noqa: E402

PACKAGES = [
    {"name": "okki-sync", "version": "0.1.0", "source": "local", "root": True, "dependencies": [1, 2]},
    {"name": "ring", "version": "0.17.14", "source": "crates.io", "dependencies": [3]},
    {"name": "serde_derive", "version": "1.0.229", "source": "crates.io", "kind": "build"},
    {"name": "untrusted", "version": "0.9.0", "source": "crates.io"},
]


def valid(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The dev build with a list in it."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "list").write_bytes(zlib.compress(json.dumps({"packages": PACKAGES}).encode()))
    subprocess.run(["objcopy", "--add-section", f"{sbom.SECTION}={folder / 'list'}", ROOT / "target/debug/okki-sync-lambda",
                    folder / "program"], check=True)
    return (folder / "program").read_bytes()


def test_a_program_tells_what_it_is_made_of(program):
    assert sbom.listed(program) == PACKAGES


def test_a_program_without_a_list_and_what_is_no_program_are_told_apart():
    with pytest.raises(sbom.NoList, match="not built with cargo-auditable"):
        sbom.listed((ROOT / "target/debug/okki-sync-lambda").read_bytes())
    with pytest.raises(sbom.NoList, match="not a 64-bit"):
        sbom.listed(b"#!/bin/sh\n")


def test_the_sbom_is_valid_cyclonedx_and_the_same_each_time(program):
    made = sbom.sbom(program, {("ring", "0.17.14"): "a4" * 32}, {("ring", "0.17.14"): "Apache-2.0 AND ISC"})
    assert made == sbom.sbom(program, {("ring", "0.17.14"): "a4" * 32}, {("ring", "0.17.14"): "Apache-2.0 AND ISC"})
    assert valid(json.dumps(made))
    assert not valid(json.dumps({**made, "components": [{"name": "ring"}]})), "the schema checks something"
    assert made["metadata"]["component"]["name"] == "okki-sync"
    ring, derive, _ = made["components"]
    assert ring == {
        "type": "library", "bom-ref": "pkg:cargo/ring@0.17.14", "name": "ring", "version": "0.17.14", "scope": "required",
        "purl": "pkg:cargo/ring@0.17.14", "hashes": [{"alg": "SHA-256", "content": "a4" * 32}],
        "licenses": [{"expression": "Apache-2.0 AND ISC"}]}
    assert derive["scope"] == "excluded", "a macro runs in the build only"
    assert made["dependencies"][0] == {
        "ref": "pkg:cargo/okki-sync@0.1.0", "dependsOn": ["pkg:cargo/ring@0.17.14", "pkg:cargo/serde_derive@1.0.229"]}


def test_every_package_of_the_lock_file_has_its_checksum_and_its_licence():
    checksums, licences = sbom.checksums(), sbom.licences()
    assert len(checksums) > 200 and {len(checksum) for checksum in checksums.values()} == {64}
    assert set(checksums) <= set(licences)
    assert not any("/" in licence for licence in licences.values())


@pytest.mark.parametrize("folder", ["infra", "tests", "tests/infra", "tests/browser", "benches"])
def test_every_python_package_is_pinned_with_its_hash(folder):
    wanted = re.findall(r"^[\w-]+", (ROOT / folder / "requirements.in").read_text(), re.M)
    pinned = (ROOT / folder / "requirements.txt").read_text()
    packages = re.split(r"^(?=[\w-])", pinned, flags=re.M)[1:]
    for package in packages:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+.*\n +--hash=sha256:[0-9a-f]{64}", package), package
    assert {name.lower() for name in wanted} <= {re.match(r"[\w.-]+", package)[0].lower() for package in packages}


def test_nothing_is_installed_without_a_hash_or_a_lock_file():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP_INSTALL = .*--no-deps --require-hashes -r$", makefile, re.M)
    installs = re.findall(r"(?:-m |bin/)pip (.+)", makefile)
    assert installs == ["$(PIP_INSTALL) $<"] * 4, installs
    cargo = re.findall(r"cargo install (.+)", makefile)
    assert len(cargo) == 3 and all("--locked" in one for one in cargo)
    assert '"--no-deps", "--require-hashes", "-r"' in (ROOT / "benches/run.py").read_text()
