"""The list of dependencies that a program carries (cargo-auditable), as a CycloneDX SBOM: sbom.py <program> prints it.

The list comes from the program itself, so it tells what was deployed and not what a checkout would build. Cargo.lock adds the
checksums and `cargo metadata` the licences.
"""

import hashlib
import json
import struct
import subprocess
import sys
import tomllib
import uuid
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = ".dep-v0"
# What the list may grow to when it is unpacked: a hundred times ours.
LONGEST = 8 * 1024 * 1024


class NoList(Exception):
    """The program carries no list."""


def section(program, name):
    """The bytes of a section of a 64-bit little-endian ELF file; `None` if it has none of that name."""
    if program[:6] != b"\x7fELF\x02\x01":
        raise NoList("not a 64-bit little-endian ELF program")
    table, = struct.unpack_from("<Q", program, 0x28)
    size, count, of_names = struct.unpack_from("<HHH", program, 0x3A)
    # name, type, flags, address, offset, size
    headers = [struct.unpack_from("<IIQQQQ", program, table + index * size) for index in range(count)]
    names = headers[of_names][4]
    for header in headers:
        start = names + header[0]
        if program[start:program.index(b"\0", start)] == name.encode():
            return program[header[4]:header[4] + header[5]]
    return None


def listed(program):
    """The packages that the program says it is made of."""
    packed = section(program, SECTION)
    if packed is None:
        raise NoList(f"the program has no section {SECTION}: it was not built with cargo-auditable")
    return json.loads(zlib.decompressobj().decompress(packed, LONGEST))["packages"]


def checksums():
    """SHA-256 of each package of a registry, by name and version."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(one["name"], one["version"]): one["checksum"] for one in packages if "checksum" in one}


def licences():
    """SPDX expression of each package, by name and version."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", ROOT / "Cargo.toml"]
    found = json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE).stdout)["packages"]
    # A slash is how old packages write OR.
    return {(one["name"], one["version"]): one["license"].replace("/", " OR ") for one in found if one["license"]}


def sbom(program, checksum_of, licence_of):
    """A CycloneDX document. It holds no time and no random number: the same program gives the same one."""
    packages = listed(program)
    references = [f"pkg:cargo/{one['name']}@{one['version']}" for one in packages]
    components, dependencies, root = [], [], None
    for package, reference in zip(packages, references):
        key = package["name"], package["version"]
        component = {"type": "library", "bom-ref": reference, "name": key[0], "version": key[1], "purl": reference}
        if key in checksum_of:
            component["hashes"] = [{"alg": "SHA-256", "content": checksum_of[key]}]
        if key in licence_of:
            component["licenses"] = [{"expression": licence_of[key]}]
        if package.get("root"):
            root = {**component, "type": "application", "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(program).hexdigest()}]}
        else:
            # What only the build ran (macros, build scripts) is no part of the program.
            components.append({**component, "scope": "excluded" if package.get("kind") == "build" else "required"})
        dependencies.append({"ref": reference, "dependsOn": sorted(references[index] for index in package.get("dependencies", []))})
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root['hashes'][0]['content'])}", "version": 1,
        "metadata": {"component": root}, "components": components, "dependencies": dependencies,
    }


if __name__ == "__main__":
    try:
        print(json.dumps(sbom(Path(sys.argv[1]).read_bytes(), checksums(), licences()), indent=1))
    except (NoList, OSError) as error:
        sys.exit(f"error: {error}")
