#!/usr/bin/env python3
"""What is inside the program: the crates that are linked into it, as a CycloneDX list and as their licences' texts.

It asks cargo and reads the crates' own files, where cargo put them; it reaches no network. Crates that only build or test
(build scripts and what they need, macros, what tests need) are not in the program and not in the lists. The same sources
give the same lists, byte by byte: the time is SOURCE_DATE_EPOCH.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)([-._].*)?$", re.IGNORECASE)
# C sources that a crate carries, whose licences lie deeper than at its top.
DEEPER = {"aws-lc-sys": ["aws-lc/LICENSE"]}


def said(*command):
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def target():
    """The platform that is built for: this machine's."""
    return next(line.split()[1] for line in said("rustc", "-vV").splitlines() if line.startswith("host:"))


def linked(metadata):
    """The packages that are linked into the program, the program first; and by name and version what each needs of them.

    The tree is cargo's: what `cargo metadata` resolves holds optional crates, too, that no feature of ours switches on.
    """
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    tree = said(
        "cargo", "tree", "--locked", "--edges", "no-dev,no-build,no-proc-macro", "--prefix", "depth", "--format", " {p}"
    )
    needs, path = {}, []
    for line in tree.splitlines():
        depth, name, version = line.split()[:3]
        one = name, version.removeprefix("v")
        del path[int(depth) :]
        needs.setdefault(one, set())
        if path:
            needs[path[-1]].add(one)
        path.append(one)
    root, *rest = list(needs)
    return [packages[one] for one in [root, *sorted(rest)]], needs


def licence(package):
    """The licence as an SPDX expression; a slash is how older crates write OR."""
    expression = package["license"]
    if not expression:
        sys.exit(f"inventory: {package['name']} {package['version']} says no licence")
    return re.sub(r"\s*/\s*", " OR ", expression)


def url(package):
    """The package's name in all the world's package lists (purl)."""
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def checksums(lock):
    """What each locked crate's archive hashes to, by name and version."""
    packages = tomllib.loads(lock.read_text())["package"]
    return {(one["name"], one["version"]): one["checksum"] for one in packages if "checksum" in one}


def sbom(packages, needs, sums, binary, time):
    """The CycloneDX document."""
    root, *crates = packages
    names = {(package["name"], package["version"]): url(package) for package in packages}
    program = {
        "type": "application",
        "bom-ref": url(root),
        "name": root["name"],
        "version": root["version"],
        "description": root["description"],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(binary.read_bytes()).hexdigest()}],
        "licenses": [{"expression": licence(root)}],
        "purl": url(root),
    }
    components = []
    for crate in crates:
        one = {
            "type": "library",
            "bom-ref": url(crate),
            "name": crate["name"],
            "version": crate["version"],
            "scope": "required",
        }
        if (crate["name"], crate["version"]) in sums:
            one["hashes"] = [{"alg": "SHA-256", "content": sums[crate["name"], crate["version"]]}]
        one |= {"licenses": [{"expression": licence(crate)}], "purl": url(crate)}
        if crate["repository"]:
            one["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
        components.append(one)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": components,
        "dependencies": [
            {"ref": names[one], "dependsOn": [names[need] for need in sorted(needs[one])]} for one in names
        ],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))}"
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def texts(package):
    """The licence texts that lie in the crate's archive, by file name."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name)]
    files += [folder / deeper for deeper in DEEPER.get(package["name"], [])]
    named = {path.relative_to(folder).as_posix(): path.read_text(errors="replace") for path in files}
    return dict(sorted(named.items()))


def licences(packages, compiler):
    """The list of licences, and each text once."""
    lines, bodies = [], {}
    for crate in packages[1:]:
        numbers = []
        for text in texts(crate).values():
            text = "\n".join(line.rstrip() for line in text.strip().splitlines())
            number, _ = bodies.setdefault(" ".join(text.split()), (len(bodies) + 1, text))
            numbers.append(number)
        where = "texts " + ", ".join(map(str, sorted(set(numbers)))) if numbers else "its archive has no text"
        lines.append(f"{crate['name']} {crate['version']}: {licence(crate)} ({where})")
    out = [
        f"What is linked into rekeyd {packages[0]['version']}, under which licences; their texts stand below, each once.",
        f"Besides, the standard library of Rust ({compiler}): MIT OR Apache-2.0. SQLite, inside libsqlite3-sys, is in the public domain.",
        "",
        *lines,
    ]
    for number, text in bodies.values():
        out += ["", "=" * 100, f"Text {number}", "=" * 100, "", text]
    return "\n".join(out) + "\n"


def path(text):
    """A path of the command line: it is meant from where the command was given."""
    return pathlib.Path(text).absolute()


def main():
    """Writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=path, required=True, help="the program, whose hash goes into the list")
    parser.add_argument("--sbom", type=path, required=True, help="where the CycloneDX list goes")
    parser.add_argument("--licences", type=path, required=True, help="where the licences go")
    given = parser.parse_args()
    os.chdir(pathlib.Path(__file__).resolve().parent.parent)
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    metadata = json.loads(said("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target()))
    packages, needs = linked(metadata)
    given.sbom.write_text(sbom(packages, needs, checksums(pathlib.Path("Cargo.lock")), given.binary, time))
    given.licences.write_text(licences(packages, said("rustc", "--version").strip()))


if __name__ == "__main__":
    main()
