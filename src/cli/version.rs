//! Which program this is: its release, and the commit that it was built from, as the build script found it. Pure.

use std::sync::LazyLock;

use crate::model::Timestamp;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    text(env!("CARGO_PKG_VERSION"), env!("REKEYD_COMMIT"), env!("REKEYD_COMMIT_TIME"), cfg!(debug_assertions))
});

/// What `--version` says behind the program's name: `0.1.0 (1a2b3c4d5e6f 2026-11-23)`.
pub(super) fn version() -> &'static str {
    &TEXT
}

/// The release, and what is known of the commit; both may be empty. Debug builds ask for none.
fn text(release: &str, commit: &str, time: &str, debug: bool) -> String {
    let commit = match (commit, debug) {
        ("", true) => "debug build",
        ("", false) => "commit unknown",
        (commit, _) => commit,
    };
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
        let check = |commit: &str, time: &str, debug: bool, expect: &str| {
            assert_eq!(text("0.1.0", commit, time, debug), expect);
        };
        check("1a2b3c4d5e6f", "1795417200", false, "0.1.0 (1a2b3c4d5e6f 2026-11-23)");
        check("1a2b3c4d5e6f+changes", "", true, "0.1.0 (1a2b3c4d5e6f+changes)");
        check("", "", false, "0.1.0 (commit unknown)");
        check("", "0", false, "0.1.0 (commit unknown 1970-01-01)");
        check("", "", true, "0.1.0 (debug build)");
        check("x", "yesterday", false, "0.1.0 (x)");
    }
}
