//! Tells the program which commit it was built from, for `rekeyd --version`: `REKEYD_COMMIT` and `REKEYD_COMMIT_TIME` (seconds
//! since 1970), each left out where it is not known. The same sources give the same program: the time is the commit's, or
//! `SOURCE_DATE_EPOCH`, never the build's. It must never fail a build.
//!
//! Packagers without a git checkout set `REKEYD_COMMIT` in the environment. Debug builds do not ask git: each commit would build
//! them anew, and what they would say were wrong as soon as a file is edited.

use std::path::Path;
use std::process::Command;

fn main() {
    for name in ["REKEYD_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let release = given("PROFILE").as_deref() == Some("release");
    let (mut commit, mut time) = (given("REKEYD_COMMIT"), given("SOURCE_DATE_EPOCH"));
    if commit.is_none() && release && Path::new(".git").exists() {
        watch();
        commit = git(&["rev-parse", "--short=12", "HEAD"]);
        let changed =
            || git(&["--no-optional-locks", "status", "--porcelain", "-uno"]).is_some_and(|text| !text.is_empty());
        commit = commit.map(|commit| if changed() { format!("{commit}+changes") } else { commit });
        time = time.or_else(|| git(&["log", "-1", "--format=%ct"]));
    }
    for (name, value) in [("REKEYD_COMMIT", commit), ("REKEYD_COMMIT_TIME", time)] {
        let value = value.filter(|text| text.chars().all(|c| c.is_ascii_graphic()));
        println!("cargo:rustc-env={name}={}", value.unwrap_or_default());
    }
}

/// Runs again when another commit is checked out, or what the program is made of changes: then it is built anyway.
fn watch() {
    for path in ["src", "migrations", "config", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for name in ["HEAD", "logs/HEAD"] {
        // A path that is not there would run this at each build.
        let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
        path.into_iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
    }
}

/// What git says; `None` where there is none, or it does not like the place.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
