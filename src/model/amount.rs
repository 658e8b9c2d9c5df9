//! Amounts as operators write them: `3`, `10%`, `10m`. Pure text to number; what an amount is *of* the caller knows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of machines, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many in a hundred, 0 to 100.
    Percent(u8),
}

impl Amount {
    /// The amount of `total`, percentages rounded down.
    pub fn of(self, total: usize) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => u32::try_from(total * usize::from(percent) / 100).unwrap_or(u32::MAX),
        }
    }
}

impl std::str::FromStr for Amount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is neither a number of machines (3) nor a share of them (10%)");
        match text.strip_suffix('%') {
            Some(share) => match share.trim().parse::<u8>() {
                Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
                _ => Err(bad()),
            },
            None => text.trim().parse().map(Self::Count).map_err(|_| bad()),
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A duration as operators write it: `90s`, `10m`, `1h 30m`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{text:?} is no duration ({error}); write it like 90s, 10m, 1h or 7d"))
}

/// A duration as [`parse_duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_counts_or_percentages_rounded_down() {
        let check = |text: &str, total: usize, expect: u32| {
            assert_eq!(text.parse::<Amount>().unwrap().of(total), expect, "{text} of {total}");
        };
        check("3", 100, 3);
        check("10%", 100, 10);
        check("10%", 19, 1);
        check("5%", 19, 0);
        check("100%", 7, 7);
        for bad in ["", "-1", "101%", "ten", "1.5", "%"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_and_print_alike() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("7d", 604_800)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds));
            assert_eq!(parse_duration(&show_duration(Duration::from_secs(seconds))).unwrap().as_secs(), seconds);
        }
        assert!(parse_duration("10").is_err());
    }
}
