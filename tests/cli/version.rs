//! Which commit a program was built from: the build script asks git and nobody else, and the program says what that found.
//! The script is run by itself, as a release build would run it: no release is built for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::stage::{rekeyd, said};

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// The build script, built.
struct Script {
    room: tempfile::TempDir,
    program: PathBuf,
}

impl Script {
    fn build() -> Self {
        let room = tempfile::tempdir().unwrap();
        let program = room.path().join("build-script");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-o"]).arg(&program).arg(Path::new(SOURCES).join("build.rs"));
        let built = said(command.output().unwrap());
        assert_eq!(built.code, 0, "{built:?}");
        Self { room, program }
    }

    /// What it tells the program, commit and time, there and with these variables; and what it says besides.
    fn run(&self, at: &Path, env: &[(&str, &str)]) -> (String, String, Vec<String>) {
        let mut command = Command::new(&self.program);
        command.current_dir(at).env_remove("REKEYD_COMMIT").env_remove("SOURCE_DATE_EPOCH").env("PROFILE", "release");
        let ran = said(command.envs(env.iter().copied()).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        let mut lines: Vec<String> = ran.out.lines().map(str::to_string).collect();
        let mut told = |name: &str| {
            let prefix = format!("cargo:rustc-env={name}=");
            let at = lines.iter().position(|line| line.starts_with(&prefix)).unwrap_or_else(|| panic!("{}", ran.out));
            lines.remove(at)[prefix.len()..].to_string()
        };
        (told("REKEYD_COMMIT"), told("REKEYD_COMMIT_TIME"), lines)
    }
}

/// What git says there; `None` where there is none, or it does not like the place.
fn git(at: &Path, arguments: &[&str]) -> Option<String> {
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.net", "-c", "commit.gpgsign=false"];
    let mut command = Command::new("git");
    command.current_dir(at).args(who).args(arguments).env("GIT_COMMITTER_DATE", "1795417200 +0000");
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).unwrap().trim().to_string())
}

#[test]
fn a_release_build_names_the_commit_its_time_and_whether_the_sources_were_changed_since() {
    let script = Script::build();
    let sources = script.room.path().join("sources");
    std::fs::create_dir_all(sources.join("src")).unwrap();
    let write = |text: &str| std::fs::write(sources.join("src/main.rs"), text).unwrap();
    write("fn main() {}\n");
    let two = |(commit, time, _): (String, String, Vec<String>)| (commit, time);
    let nothing = (String::new(), String::new());
    assert_eq!(two(script.run(&sources, &[])), nothing, "without git nothing is made up");

    for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "first"]] {
        git(&sources, arguments).unwrap_or_else(|| panic!("git {arguments:?}"));
    }
    let head = git(&sources, &["rev-parse", "HEAD"]).unwrap();
    let (commit, time, lines) = script.run(&sources, &[]);
    assert_eq!((commit.as_str(), time.as_str()), (&head[..12], "1795417200"));
    for path in ["src", ".git/HEAD", "build.rs"] {
        assert!(lines.contains(&format!("cargo:rerun-if-changed={path}")), "{path}: {lines:?}");
    }
    // What is beside the sources is no change of them; what is of them is.
    std::fs::write(sources.join("notes"), "").unwrap();
    assert_eq!(script.run(&sources, &[]).0, commit);
    write("fn main() { }\n");
    assert_eq!(two(script.run(&sources, &[])), (format!("{commit}+changes"), time.clone()));
    // A packager's word counts; and a debug build asks nobody.
    let given = [("REKEYD_COMMIT", "v1"), ("SOURCE_DATE_EPOCH", "0")];
    assert_eq!(two(script.run(&sources, &given)), ("v1".to_string(), "0".to_string()));
    assert_eq!(two(script.run(&sources, &given[1..])), (format!("{commit}+changes"), "0".to_string()));
    assert_eq!(two(script.run(&sources, &[("PROFILE", "debug")])), nothing);

    // Of these very sources, as far as git knows them.
    let ours = Path::new(SOURCES);
    let (commit, time, _) = script.run(ours, &[]);
    let head = git(ours, &["rev-parse", "--short=12", "HEAD"]).filter(|_| ours.join(".git").exists());
    assert_eq!(commit.strip_suffix("+changes").unwrap_or(&commit), head.clone().unwrap_or_default());
    let committed = head.and_then(|_| git(ours, &["log", "-1", "--format=%ct"]));
    assert_eq!(time, committed.unwrap_or_default());
}

#[test]
fn the_program_says_the_commit_and_the_day_that_its_build_found() {
    // Of the build script, which tells the tests what it tells the program.
    let (commit, time) = (env!("REKEYD_COMMIT"), env!("REKEYD_COMMIT_TIME"));
    let commit = match commit {
        "" if cfg!(debug_assertions) => "debug build",
        "" => "commit unknown",
        commit => commit,
    };
    let day = time
        .parse()
        .ok()
        .map(|seconds| jiff::Timestamp::from_second(seconds).unwrap().strftime(" %Y-%m-%d").to_string());
    let expect = format!("{} ({commit}{})\n", env!("CARGO_PKG_VERSION"), day.unwrap_or_default());
    let says = |arguments: &[&str]| said(rekeyd(Path::new("/nowhere"), arguments).output().unwrap()).out;
    assert_eq!(says(&["--version"]), format!("rekeyd {expect}"));
    assert_eq!(says(&["rotate", "--version"]), format!("rekeyd-rotate {expect}"));
}
