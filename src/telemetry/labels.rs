//! Closed sets of label values that are long: how requests end, and the steps. It must never hold a value that is open to
//! chance; tests hold each set to the room that makes its values.

use super::table::OK;

/// How a request ends: well, or with one of the error kinds.
pub(super) const OUTCOMES: &[&str] = &[
    OK,
    "throttled",
    "unavailable",
    "busy",
    "already",
    "invalid_state",
    "not_found",
    "conflict",
    "in_use",
    "quota",
    "denied",
    "invalid",
    "unsupported",
    "protocol",
];
/// The steps that do something: `settle` only looks, and has no beginning in a journal.
pub(super) const STEPS: &[&str] = &[
    "store_key",
    "import_key",
    "prepare",
    "bind",
    "activate",
    "verify",
    "before_batch",
    "after_batch",
    "deliver",
    "retire_key_pair",
    "destroy_private_key",
];
/// What bounds a rotation: failures in all, failures in a row, instances down at once.
pub(super) const BUDGETS: [&str; 3] = ["failures", "failures_in_a_row", "unavailable"];
/// What an open rotation waits for that is neither the cloud nor a person.
pub(super) const WAITS_FOR: &[&str; 4] = &["window", "hook", "soak", "account"];
/// What a survey for drift may have no answer from.
pub(super) const UNSEEN_BY_SURVEYS: &[&str] = &["credentials", "cloud", "custody", "journals", "machines"];
