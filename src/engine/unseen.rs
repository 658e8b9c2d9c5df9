//! What a survey could not see, and why. It must never be taken for drift, nor for its absence.

use crate::model::error::Error;

use super::NoProvider;

/// What could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blind {
    /// The account's API credentials cannot be read here, so that the cloud was not asked.
    Credentials,
    /// The cloud did not answer, or refused.
    Cloud,
    /// Custody cannot be read.
    Custody,
    /// A journal cannot be read.
    Journals,
    /// The key of the host before the machines cannot be read here, so that none was asked.
    Machines,
}

impl Blind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Credentials, Self::Cloud, Self::Custody, Self::Journals, Self::Machines];

    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Cloud => "cloud",
            Self::Custody => "custody",
            Self::Journals => "journals",
            Self::Machines => "machines",
        }
    }
}

/// One thing that could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// What did not answer.
    pub blind: Blind,
    /// What was asked for, and why it was not answered.
    pub why: String,
}

impl Unseen {
    pub(super) fn no_provider(error: NoProvider) -> Self {
        Self { blind: Blind::Credentials, why: error.to_string() }
    }
    pub(super) fn cloud(what: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self { blind: Blind::Cloud, why: format!("{what}: {error}") }
    }
    pub(super) fn custody(error: impl std::fmt::Display) -> Self {
        Self { blind: Blind::Custody, why: format!("custody: {error}") }
    }
    pub(super) fn journals(why: String) -> Self {
        Self { blind: Blind::Journals, why }
    }
    pub(super) fn machines(error: impl std::fmt::Display) -> Self {
        Self { blind: Blind::Machines, why: format!("its machines: {error}") }
    }
    /// The same, and of whom.
    pub(super) fn of(self, whom: &str) -> Self {
        Self { why: format!("{whom}: {}", self.why), ..self }
    }
}
