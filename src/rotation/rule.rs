//! The rules that a person may override when a rotation begins, by name. Written into requests: none may be renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A rule that a rotation was refused by, and may be begun in spite of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The selection grew or shrank by more than 30 % since the last completed rotation.
    SizeChange,
    /// No maintenance window is open that a batch ends in.
    Window,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::SizeChange, Self::Window];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SizeChange => "size-change",
            Self::Window => "window",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Rule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|rule| rule.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("there is no rule {text:?} to force; there are {known}")
        })
    }
}

/// By how much in a hundred a selection may change between two rotations.
pub const SIZE_CHANGE_MAX: usize = 30;

/// Whether a selection changed more than it may: by more than [`SIZE_CHANGE_MAX`] in a hundred and by more than one machine
/// (or a fleet of three could never get its fourth).
pub fn size_changed(before: usize, now: usize) -> bool {
    let change = before.abs_diff(now);
    change > 1 && change * 100 > before * SIZE_CHANGE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_known_by_name_and_others_are_answered_with_the_list() {
        for rule in Rule::ALL {
            assert_eq!(rule.name().parse(), Ok(rule));
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
        let error = "size".parse::<Rule>().unwrap_err();
        assert_eq!(error, "there is no rule \"size\" to force; there are size-change, window");
    }

    #[test]
    fn a_selection_may_change_by_thirty_in_a_hundred_or_by_one() {
        let check = |before, now, expect| assert_eq!(size_changed(before, now), expect, "{before} {now}");
        check(10, 10, false);
        check(10, 13, false);
        check(10, 14, true);
        check(10, 7, false);
        check(10, 6, true);
        check(3, 4, false);
        check(1, 2, false);
        check(2, 4, true);
        check(3, 1, true);
        check(1000, 1300, false);
        check(1000, 1301, true);
        check(5, 0, true);
    }
}
