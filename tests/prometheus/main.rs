//! What watches rekeyd, held against rekeyd: the alerting rules and the dashboards of `dashboards/`, by Prometheus' own
//! programs, and against a daemon that runs.

#![allow(clippy::unwrap_used)]

mod dashboards;
mod live;
mod rules;
mod server;
#[path = "../stage/mod.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::PathBuf;

/// A file of this repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The metrics that an expression names: ours, and the process's.
fn metrics_of(expr: &str) -> BTreeSet<&str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("rekeyd_") || word.starts_with("process_")).collect()
}
