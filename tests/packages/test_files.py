"""What packaging/build makes, looked at file by file: the Debian package, the tarball, the list of what is inside, sums; and
the Containerfile, which no engine builds here: what it copies must be there, and be enough.

$PACKAGES names the directory, $REKEYD_BIN the program that is packed in it. Nothing is installed: see test_clean_root.py.
"""

import gzip
import hashlib
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import tomllib
import unittest

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

HOUSE = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = pathlib.Path(os.environ["PACKAGES"])
BINARY = pathlib.Path(os.environ["REKEYD_BIN"])
RELEASE = tomllib.loads((HOUSE / "Cargo.toml").read_text())["package"]["version"]

# What the Debian package may hold besides man pages and examples: path and mode.
FILES = {
    "usr/bin/rekeyd": "-rwxr-xr-x",
    "usr/lib/systemd/system/rekeyd.service": "-rw-r--r--",
    "usr/lib/sysusers.d/rekeyd.conf": "-rw-r--r--",
    "usr/lib/tmpfiles.d/rekeyd.conf": "-rw-r--r--",
    "usr/share/bash-completion/completions/rekeyd": "-rw-r--r--",
    "usr/share/fish/vendor_completions.d/rekeyd.fish": "-rw-r--r--",
    "usr/share/zsh/vendor-completions/_rekeyd": "-rw-r--r--",
    "usr/share/rekeyd/rekeyd.schema.json": "-rw-r--r--",
    "usr/share/doc/rekeyd/README.md": "-rw-r--r--",
    "usr/share/doc/rekeyd/changelog.gz": "-rw-r--r--",
    "usr/share/doc/rekeyd/changelog.Debian.gz": "-rw-r--r--",
    "usr/share/doc/rekeyd/copyright": "-rw-r--r--",
    "usr/share/doc/rekeyd/third-party-licences.gz": "-rw-r--r--",
}


def said(*command, **more):
    """What a command prints; it must do well."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def only(pattern):
    """The one file that was made by such a name."""
    (found,) = PACKAGES.glob(pattern)
    return found


def in_house(*folders):
    """The files that git knows below these folders, by path."""
    return set(said("git", "ls-files", "--", *folders, cwd=HOUSE).split())


def verbs():
    """Every verb that the program shows."""
    shown = said(BINARY, "--help").split("Commands:\n", 1)[1].split("\n\n", 1)[0]
    names = {line.split()[0] for line in shown.splitlines() if re.match(r"  \S", line)} - {"help"}
    assert len(names) > 10, names
    return names


class DebianPackage(unittest.TestCase):
    """The .deb."""

    @classmethod
    def setUpClass(cls):
        cls.deb = only("*.deb")
        rows = [line.split(None, 5) for line in said("dpkg-deb", "-c", cls.deb).splitlines()]
        cls.owners = {row[1] for row in rows}
        cls.modes = {row[5].removeprefix("./"): row[0] for row in rows}
        cls.room = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.room.cleanup)
        cls.root = pathlib.Path(cls.room.name)
        said("dpkg-deb", "-R", cls.deb, cls.root)

    def test_it_holds_what_it_should_and_nothing_else(self):
        files = {path: mode for path, mode in self.modes.items() if not path.endswith("/")}
        pages = {path for path in files if path.startswith("usr/share/man/man1/")}
        examples = {path for path in files if path.startswith("usr/share/doc/rekeyd/examples/")}
        boards = {path for path in files if path.startswith("usr/share/rekeyd/dashboards/")}
        self.assertEqual({path: files[path] for path in files.keys() - pages - examples - boards}, FILES)
        self.assertEqual({files[path] for path in pages | examples | boards}, {"-rw-r--r--"})
        self.assertLessEqual(self.owners, {"root/root", "0/0"})
        self.assertEqual({mode for path, mode in self.modes.items() if path.endswith("/")}, {"drwxr-xr-x"})
        self.assertEqual(
            {path.replace("usr/share/doc/rekeyd/examples/", "config/") for path in examples}, in_house("config")
        )
        self.assertEqual({path.replace("usr/share/rekeyd/", "") for path in boards}, in_house("dashboards"))
        expected = {f"usr/share/man/man1/rekeyd{verb}.1.gz" for verb in {""} | {f"-{verb}" for verb in verbs()}}
        self.assertEqual(pages, expected)

    def test_an_operators_file_is_none_of_its_own(self):
        # Neither a conffile, about which dpkg would ask, nor anything else below /etc and /var.
        self.assertFalse((self.root / "DEBIAN/conffiles").exists())
        self.assertFalse([path for path in self.modes if path.startswith(("etc/", "var/"))])

    def test_it_says_what_it_needs(self):
        fields = dict(line.split(": ", 1) for line in said("dpkg-deb", "-f", self.deb).splitlines() if ": " in line)
        self.assertEqual((fields["Package"], fields["Version"], fields["Section"]), ("rekeyd", f"{RELEASE}-1", "admin"))
        needs = {re.sub(r" \(.*?\)", "", need) for need in fields["Depends"].split(", ")}
        self.assertLessEqual({"libc6", "ca-certificates", "tzdata", "adduser"}, needs)
        self.assertNotIn("openssh-server", json.dumps(fields))

    def test_the_files_are_those_of_the_sources(self):
        for packed, source in [
            ("usr/lib/systemd/system/rekeyd.service", "systemd/rekeyd.service"),
            ("usr/lib/sysusers.d/rekeyd.conf", "systemd/rekeyd.sysusers"),
            ("usr/lib/tmpfiles.d/rekeyd.conf", "systemd/rekeyd.tmpfiles"),
            ("usr/share/rekeyd/rekeyd.schema.json", "config/rekeyd.schema.json"),
            ("usr/share/rekeyd/dashboards/alerts.yaml", "dashboards/alerts.yaml"),
        ]:
            self.assertEqual((self.root / packed).read_bytes(), (HOUSE / source).read_bytes(), packed)
        self.assertEqual((self.root / "usr/bin/rekeyd").read_bytes(), BINARY.read_bytes())
        unit = (self.root / "usr/lib/systemd/system/rekeyd.service").read_text()
        program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)[1]
        self.assertIn(program.lstrip("/"), FILES)

    def test_the_program_names_the_commit_and_its_day(self):
        inside = re.fullmatch(rf"rekeyd {re.escape(RELEASE)} \((.+)\)\n", said(self.root / "usr/bin/rekeyd", "--version"))[1]
        # tests/run packs the debug program, which asks git for nothing; what is handed out is held to git's word.
        if inside != "debug build":
            commit = said("git", "rev-parse", "--short=12", "HEAD", cwd=HOUSE).strip()
            day = said("git", "log", "-1", "--date=format-local:%F", "--format=%cd", cwd=HOUSE, env={**os.environ, "TZ": "UTC"})
            self.assertIn(inside, {f"{commit}{changed} {day.strip()}" for changed in ("", "+changes")})

    def test_pages_and_completions_know_the_verbs(self):
        shell = self.root / "usr/share/bash-completion/completions/rekeyd"
        said("bash", "-n", shell)
        fish = (self.root / "usr/share/fish/vendor_completions.d/rekeyd.fish").read_text()
        zsh = (self.root / "usr/share/zsh/vendor-completions/_rekeyd").read_text()
        page = gzip.decompress((self.root / "usr/share/man/man1/rekeyd.1.gz").read_bytes()).decode()
        for verb in verbs():
            for text in (shell.read_text(), fish, zsh, page.replace("\\-", "-")):
                self.assertIn(verb, text)

    def test_what_readme_says_of_it_is_so(self):
        readme = (HOUSE / "README.md").read_text()
        names = set(re.findall(r"rekeyd_[\w.~+-]+\.deb", readme))
        self.assertEqual(names, {f"rekeyd_{RELEASE}-1_amd64.deb"})
        # Where things lie once they are installed: files and directories.
        places = {place.rstrip("/.") for place in re.findall(r"/usr/(?:share|lib)/[\w./-]*rekeyd[\w./-]*", readme)}
        self.assertLessEqual(
            {"/usr/share/doc/rekeyd/examples/policies", "/usr/share/rekeyd/dashboards/alerts.yaml"}, places
        )
        self.assertEqual({place for place in places if not (self.root / place.lstrip("/")).exists()}, set())
        policies = (self.root / "usr/share/doc/rekeyd/examples/policies").iterdir()
        self.assertEqual({path.stem for path in policies}, {path.stem for path in (HOUSE / "config/policies").iterdir()})

    def test_the_links_of_its_readme_and_the_places_its_files_name_lead_to_files_of_its_own(self):
        folder = self.root / "usr/share/doc/rekeyd"
        links = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (folder / "README.md").read_text()))
        self.assertGreater(len(links), 8)
        self.assertEqual({link for link in links if not (folder / link).exists()}, set())
        for path in ["config", "dashboards"]:
            for file in in_house(path):
                places = re.findall(r"/usr/(?:share|lib)/[\w./-]*rekeyd[\w./-]*", (HOUSE / file).read_text())
                lost = [place for place in places if not (self.root / place.rstrip("/.").lstrip("/")).exists()]
                self.assertEqual(lost, [], file)
                if re.fullmatch(r"config/(?!demo|rekeyd)[\w-]+\.yaml", file):
                    self.assertEqual(len(places), 3, f"{file}: its schema, all keys, its policy")

    def test_lintian_finds_nothing(self):
        # Who is not in Debian's archive closes no bug by coming into it.
        words = [
            "lintian",
            "--allow-root",
            "--suppress-tags",
            "initial-upload-closes-no-bugs",
            "--fail-on",
            "error,warning",
        ]
        done = subprocess.run([*words, str(self.deb)], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)


class Tarball(unittest.TestCase):
    """The .tar.gz."""

    def setUp(self):
        self.name = only("*.tar.gz").name.removesuffix(".tar.gz")
        with tarfile.open(only("*.tar.gz")) as tar:
            self.members = tar.getmembers()
            self.readme = tar.extractfile(f"{self.name}/README.md").read().decode()
        self.paths = [member.name.removeprefix(f"{self.name}/") for member in self.members[1:]]

    def test_it_holds_what_a_machine_without_the_package_needs(self):
        needed = in_house("config", "dashboards", "systemd") | {
            "rekeyd",
            "README.md",
            "LICENSE",
            "INSTALL.md",
            "CHANGELOG.md",
        }
        needed |= {"third-party-licences", "completions/rekeyd", "completions/_rekeyd", "completions/rekeyd.fish"}
        needed |= {"man/rekeyd.1"} | {f"man/rekeyd-{verb}.1" for verb in verbs()}
        files = {path for path, member in zip(self.paths, self.members[1:]) if member.isfile()}
        self.assertEqual(files, needed)

    def test_it_says_nothing_of_who_packed_it_and_when(self):
        self.assertEqual([member.name for member in self.members], sorted(member.name for member in self.members))
        self.assertEqual(
            {(member.uid, member.gid, member.uname, member.gname) for member in self.members}, {(0, 0, "", "")}
        )
        self.assertEqual(len({member.mtime for member in self.members}), 1)
        programs = [member.name for member in self.members if member.isfile() and member.mode != 0o644]
        self.assertEqual(programs, [f"{self.name}/rekeyd"])

    def test_the_links_of_its_readme_lead_to_files_of_its_own(self):
        links = set(re.findall(r"\]\(([a-z][^)#:]*)", self.readme))
        self.assertGreater(len(links), 8)
        lost = {link for link in links if link.rstrip("/") not in self.paths}
        self.assertEqual(lost, set())


class Inventory(unittest.TestCase):
    """The list of what is inside, and the licences."""

    def setUp(self):
        self.text = only("*.cdx.json").read_text()
        self.bom = json.loads(self.text)
        with tarfile.open(only("*.tar.gz")) as tar:
            (member,) = [one for one in tar.getmembers() if one.name.endswith("/third-party-licences")]
            self.licences = tar.extractfile(member).read().decode()

    def test_it_is_cyclonedx(self):
        validator = JsonStrictValidator(SchemaVersion.V1_5)
        self.assertIsNone(validator.validate_str(self.text))
        self.assertIsNotNone(
            validator.validate_str(self.text.replace('"library"', '"librarian"', 1)), "it refuses nothing"
        )

    def test_it_names_each_crate_that_is_linked_and_none_that_only_builds(self):
        # What cargo compiled for the program, build scripts and macros and what they need among it; nothing is compiled anew.
        built = said("cargo", "build", "--locked", "--bin", "rekeyd", "--message-format=json", cwd=HOUSE)
        artifacts = [row for row in map(json.loads, built.splitlines()) if row["reason"] == "compiler-artifact"]
        compiled = {row["package_id"] for row in artifacts if "lib" in row["target"]["kind"]}
        metadata = json.loads(said("cargo", "metadata", "--locked", "--format-version=1", cwd=HOUSE))
        names = {one["id"]: (one["name"], one["version"]) for one in metadata["packages"]}
        named = {(one["name"], one["version"]) for one in self.bom["components"]}
        self.assertLessEqual(named, {names[one] for one in compiled}, "named, and never compiled")
        # Who is compiled and not named is needed by a macro or a build script.
        macros = {
            one["id"] for one in metadata["packages"] if any("proc-macro" in part["kind"] for part in one["targets"])
        }
        deps = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
        builds = [
            dep["pkg"]
            for row in deps.values()
            for dep in row
            if dep["pkg"] in macros or any(kind["kind"] == "build" for kind in dep["dep_kinds"])
        ]
        tools, waiting = set(), builds
        while waiting:
            one = waiting.pop()
            if one not in tools:
                tools.add(one)
                waiting += [dep["pkg"] for dep in deps[one]]
        rest = {names[one] for one in compiled if names[one] not in named} - {("rekeyd", RELEASE)}
        self.assertLessEqual(rest, {names[one] for one in tools}, "linked, and not named")
        crates = {name for name, _ in named}
        self.assertLessEqual({"tokio", "rustls", "aws-lc-sys", "libsqlite3-sys"}, crates)
        self.assertFalse({"syn", "tempfile", "cc", "serde_derive", "sqlx-postgres"} & crates)

    def test_it_tells_the_program_and_each_crate_by_its_hash(self):
        program = self.bom["metadata"]["component"]
        self.assertEqual(program["hashes"][0]["content"], hashlib.sha256(BINARY.read_bytes()).hexdigest())
        self.assertFalse([one["name"] for one in self.bom["components"] if not one.get("hashes")])
        refs = {one["bom-ref"] for one in self.bom["components"]} | {program["bom-ref"]}
        self.assertEqual({one["ref"] for one in self.bom["dependencies"]}, refs)
        self.assertLessEqual({need for one in self.bom["dependencies"] for need in one["dependsOn"]}, refs)

    def test_each_crate_has_its_licence_and_most_their_text(self):
        rows = {
            tuple(row.split(":")[0].split()): row
            for row in self.licences.splitlines()
            if re.match(r"\S+ \d+\.\d\S*: ", row)
        }
        for one in self.bom["components"]:
            row = rows[one["name"], one["version"]]
            self.assertIn(one["licenses"][0]["expression"], row)
        without = [row for row in rows.values() if "no text" in row]
        self.assertLess(len(without), len(rows) / 8, without)
        for words in (
            "Permission is hereby granted, free of charge",
            "Apache License",
            "Redistribution and use in source and binary",
        ):
            self.assertIn(words, self.licences)
        # What binds who hands the program on: none of it may ask for our sources.
        self.assertNotRegex("\n".join(rows.values()), r"GPL|EUPL|OSL|SSPL|CDDL")


class TheBuild(unittest.TestCase):
    """The files, as one."""

    def test_the_sums_are_those_of_all_files(self):
        lines = dict(reversed(line.split("  ")) for line in only("SHA256SUMS").read_text().splitlines())
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in PACKAGES.iterdir()}
        del files["SHA256SUMS"]
        self.assertEqual(lines, files)
        self.assertEqual(len(files), 3)

    def test_the_same_program_gives_the_same_files(self):
        with tarfile.open(only("*.tar.gz")) as tar:
            time = {"SOURCE_DATE_EPOCH": str(tar.next().mtime)}
        with tempfile.TemporaryDirectory() as again:
            said(HOUSE / "packaging/build", "--binary", BINARY, "--fast", "--to", again, env=os.environ | time)
            self.assertEqual((pathlib.Path(again) / "SHA256SUMS").read_text(), only("SHA256SUMS").read_text())

    def test_a_wrong_argument_is_refused(self):
        for wrong in (["--colour"], ["--binary", "/nonexistent", "--to", "/nonexistent"]):
            done = subprocess.run([HOUSE / "packaging/build", *wrong], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn("packaging/build: ", done.stderr)


class Containerfile(unittest.TestCase):
    """No engine builds it here: what it copies must be there, and be what the build reads."""

    def setUp(self):
        text = re.sub(r"\\\n", " ", (HOUSE / "packaging/Containerfile").read_text())
        self.lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        at = [number for number, line in enumerate(self.lines) if line[0] == "FROM"]
        self.build, self.image = self.lines[: at[1]], self.lines[at[1] :]

    def copied(self, lines):
        """What is copied from the sources: files, and folders with a slash."""
        sources = [path for line in lines if line[0] == "COPY" and not line[1].startswith("--") for path in line[1:-1]]
        return {f"{path}/" if (HOUSE / path).is_dir() else path for path in sources}

    def test_what_it_copies_is_in_the_sources(self):
        for path in self.copied(self.lines):
            self.assertTrue(in_house(path), f"git knows no {path}")

    def test_what_the_compiler_reads_is_copied(self):
        copied = self.copied(self.build)
        # cargo writes beside the program what it was made of.
        target = pathlib.Path(
            json.loads(said("cargo", "metadata", "--locked", "--no-deps", "--format-version=1", cwd=HOUSE))[
                "target_directory"
            ]
        )
        read = (target / "debug/rekeyd.d").read_text().split(": ", 1)[1].split()
        read = {os.path.relpath(path, HOUSE) for path in read}
        self.assertIn("src/main.rs", read)
        manifest = tomllib.loads((HOUSE / "Cargo.toml").read_text())
        read |= {"Cargo.toml", "Cargo.lock", "build.rs"} | {
            f"benches/{bench['name']}.rs" for bench in manifest["bench"]
        }
        lost = {
            path
            for path in read
            if path not in copied and not any(path.startswith(one) for one in copied if one[-1] == "/")
        }
        self.assertEqual({path.rstrip("/") for path in lost} - {one.rstrip("/") for one in copied}, set())

    def test_it_takes_the_program_from_where_the_build_put_it(self):
        (command,) = [" ".join(line[1:]) for line in self.build if line[0] == "RUN"]
        profile = re.search(r"--profile (\S+)", command)[1]
        self.assertIn(profile, tomllib.loads((HOUSE / "Cargo.toml").read_text())["profile"])
        (place,) = [line[1] for line in self.build if line[0] == "WORKDIR"]
        (copy,) = [line for line in self.image if line[0] == "COPY" and line[1] == "--from=build"]
        self.assertEqual(copy[2:], [f"{place}/target/{profile}/rekeyd", "/usr/bin/rekeyd"])
        self.assertIn(["ENTRYPOINT", '["/usr/bin/rekeyd"]'], self.image)

    def test_both_stages_are_of_one_debian_and_the_image_is_nobodys_root(self):
        bases = [line[1] for line in self.lines if line[0] == "FROM"]
        self.assertEqual(bases[0].split("-")[-1], bases[1].split(":")[1].split("-")[0])
        rust = [int(part) for part in re.search(r"rust:(\d+)\.(\d+)", bases[0]).groups()]
        least = tomllib.loads((HOUSE / "Cargo.toml").read_text())["package"]["rust-version"].split(".")
        self.assertGreaterEqual(rust, [int(part) for part in least])
        users = [line[1] for line in self.image if line[0] == "USER"]
        self.assertEqual(len(users), 1)
        self.assertRegex(users[0], r"^[1-9]\d*:[1-9]\d*$")
        last = max(number for number, line in enumerate(self.image) if line[0] in ("RUN", "COPY"))
        self.assertGreater([line[0] for line in self.image].index("USER"), last)


if __name__ == "__main__":
    unittest.main()
