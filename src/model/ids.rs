//! Identifiers. Each is its own type, so that an instance id can never stand where a key-pair id is meant.
//! They hold what a cloud or an operator wrote; they must never be parsed for meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// A fleet, as the config file names it.
    FleetName
);
text_id!(
    /// An account, as the config file names it.
    AccountName
);
text_id!(
    /// A cloud's region, as the cloud spells it (`ap-singapore`, `cn-hangzhou`, `bj`).
    Region
);
text_id!(
    /// An instance, as its cloud calls it (`lhins-…`, `ins-…`, `i-…`).
    InstanceId
);
text_id!(
    /// A key pair's handle in its cloud: an id on Tencent and Baidu, the *name* on Alibaba.
    KeyPairId
);
text_id!(
    /// A key pair's name. Ours are `rk<mark>_` and 16 characters; see [`KeyPairName::derive`].
    KeyPairName
);

/// The alphabet of derived names: Crockford's base 32 in lower case, legal in every cloud's name rule.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl KeyPairName {
    /// The name of a new key pair: `rk<mark>_`, ten characters of time (milliseconds) and six of chance.
    /// At most 25 characters of `[a-z0-9_]`: the tightest rule of the four clouds (Tencent's).
    pub fn derive(mark: &Mark, at: jiff::Timestamp, chance: u32) -> Self {
        let millis = at.as_millisecond().max(0) as u64;
        let digit = |value: u64, place: u32| BASE32[((value >> (5 * place)) & 31) as usize] as char;
        let mut name = mark.prefix();
        name.extend((0..10).rev().map(|place| digit(millis, place)));
        name.extend((0..6).rev().map(|place| digit(u64::from(chance), place)));
        Self(name)
    }
}

/// The installation's mark in key-pair names: 1 to 6 characters of `[a-z0-9]`. It tells our pairs from
/// strangers' and from another installation's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mark(String);

impl Mark {
    /// What every name of ours begins with.
    pub fn prefix(&self) -> String {
        format!("rk{}_", self.0)
    }
    /// The mark that a name bears, if it may be one of ours.
    pub fn of(name: &KeyPairName) -> Option<Self> {
        let (mark, _) = name.as_str().strip_prefix("rk")?.split_once('_')?;
        Self::try_from(mark.to_string()).ok()
    }
    /// Whether a pair of this name bears our mark.
    pub fn is_on(&self, name: &KeyPairName) -> bool {
        name.as_str().starts_with(&self.prefix())
    }
    /// The mark's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Mark {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if (1..=6).contains(&text.len()) && text.chars().all(legal) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no installation mark: 1 to 6 characters of a-z and 0-9"))
        }
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.0
    }
}

/// A journal's id: a UUID of version 7, so that ids sort by the time at which the journal began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalId(uuid::Uuid);

impl JournalId {
    /// Nobody's id: it stands where a journal's own cannot be read.
    pub const NIL: Self = Self(uuid::Uuid::nil());

    /// The id of a journal that begins at `at`, told apart from others of that millisecond by `chance`.
    pub fn derive(at: jiff::Timestamp, chance: [u8; 10]) -> Self {
        let millis = at.as_millisecond().max(0) as u64;
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &chance).into_uuid())
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for JournalId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no journal id"))
    }
}
impl Serialize for JournalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for JournalId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A request's number: 1, 2, 3 … in the order in which a store was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(u64);

impl RequestId {
    /// The request of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for RequestId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no request's number"))
    }
}

/// The clouds that rekeyd speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Tencent Cloud Lighthouse, API 2020-03-24.
    TencentLighthouse,
    /// Tencent Cloud CVM, API 2017-03-12.
    TencentCvm,
    /// Alibaba Cloud ECS, API 2014-05-26.
    AlibabaEcs,
    /// Baidu AI Cloud BCC, API v2.
    BaiduBcc,
}

impl ProviderKind {
    /// All of them, in the order in which the documents name them.
    pub const ALL: [Self; 4] = [Self::TencentLighthouse, Self::TencentCvm, Self::AlibabaEcs, Self::BaiduBcc];

    /// The name in config, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TencentLighthouse => "tencent-lighthouse",
            Self::TencentCvm => "tencent-cvm",
            Self::AlibabaEcs => "alibaba-ecs",
            Self::BaiduBcc => "baidu-bcc",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_name_fits_the_tightest_rule_and_bears_the_mark() {
        for mark in ["a", "a7f3", "abcdef"] {
            let mark = Mark::try_from(mark.to_string()).unwrap();
            let name = KeyPairName::derive(&mark, "2026-11-22T00:00:00Z".parse().unwrap(), u32::MAX);
            assert_eq!(name.as_str().len(), mark.prefix().len() + 16);
            assert!(name.as_str().len() <= 25);
            assert!(name.as_str().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
            assert!(mark.is_on(&name));
        }
    }

    #[test]
    fn derived_names_sort_by_time_and_differ_by_chance() {
        let mark = Mark::try_from("m".to_string()).unwrap();
        let early = KeyPairName::derive(&mark, "2026-11-22T00:00:00Z".parse().unwrap(), u32::MAX);
        let late = KeyPairName::derive(&mark, "2026-11-22T00:00:00.001Z".parse().unwrap(), 0);
        assert!(early < late);
        let other = KeyPairName::derive(&mark, "2026-11-22T00:00:00.001Z".parse().unwrap(), 1);
        assert_ne!(late, other);
    }

    #[test]
    fn a_mark_is_one_to_six_of_lower_case_and_digits() {
        for bad in ["", "abcdefg", "A", "a-b", "é"] {
            assert!(Mark::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
