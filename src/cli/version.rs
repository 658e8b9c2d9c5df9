//! Which program this is: its release, and the commit that it was built from, as the build script found it. Pure.

use std::sync::LazyLock;

use crate::model::Timestamp;

static TEXT: LazyLock<String> =
    LazyLock::new(|| text(env!("CARGO_PKG_VERSION"), env!("REKEYD_COMMIT"), env!("REKEYD_COMMIT_TIME")));

/// What `--version` says behind the program's name: `0.1.0 (1a2b3c4d5e6f 2026-11-23)`.
pub(super) fn version() -> &'static str {
    &TEXT
}

/// The release, and what is known of the commit; both may be empty.
fn text(release: &str, commit: &str, time: &str) -> String {
    let commit = if commit.is_empty() { "commit unknown" } else { commit };
    let time = time.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    match time {
        Some(time) => format!("{release} ({commit} {})", time.strftime("%Y-%m-%d")),
        None => format!("{release} ({commit})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_the_commit_is_said_and_nothing_else() {
        let check = |commit: &str, time: &str, expect: &str| assert_eq!(text("0.1.0", commit, time), expect);
        check("1a2b3c4d5e6f", "1795417200", "0.1.0 (1a2b3c4d5e6f 2026-11-23)");
        check("1a2b3c4d5e6f+changes", "", "0.1.0 (1a2b3c4d5e6f+changes)");
        check("", "", "0.1.0 (commit unknown)");
        check("", "0", "0.1.0 (commit unknown 1970-01-01)");
        check("x", "yesterday", "0.1.0 (x)");
    }
}
