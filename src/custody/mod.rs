//! Where private halves are kept. Create-only: a key that is there is never written over. This room must never log a
//! key, and never destroy one unless it is told to by name.

#[cfg(test)]
mod conformance;
mod directory;
mod exec;
mod folder;
mod keeper;
mod later;
mod memory;
mod quiet;
mod seal;
mod slots;
mod vault;

pub use directory::{Directory, Examined, Settings};
pub use exec::{Exec, ExecSettings};
pub use keeper::Keeper;
pub use later::{Later, Opening};
pub use memory::Memory;
pub use slots::Remote;
pub use vault::{Fetch, Login, Vault, VaultSettings};

use async_trait::async_trait;

use crate::model::{KeyPairName, Mark, PrivateKey};

/// Why custody did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// A name under which nothing is kept: it could be a path, or the name of custody's own file.
    #[error("{0:?} is no name for a private key in custody: 1 to 64 of A-Z, a-z, 0-9 and _, and not \"{MARK_FILE}\"")]
    Name(KeyPairName),
    /// A key of this name is there already: create-only.
    #[error("custody already holds a private key named {0}; it is never written over")]
    Exists(KeyPairName),
    /// No key of this name.
    #[error("custody holds no private key named {0}")]
    Missing(KeyPairName),
    /// What is there is not what was put, or no key at all. The problem names the way on.
    #[error("{place}: {problem}")]
    Damaged {
        /// Which copy.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The keeper did not answer or refused, or what it holds cannot be opened with what we have: nothing is known of the
    /// key. It is asked again later; it never counts as a key that is not there.
    #[error("{place}: {problem}")]
    Failed {
        /// Which keeper, or which copy.
        place: String,
        /// What it said, without a secret.
        problem: String,
    },
    /// The keeper failed.
    #[error("{place}: {source}")]
    Io {
        /// Which copy.
        place: String,
        /// Why.
        source: std::io::Error,
    },
}

impl CustodyError {
    /// Whether this says nothing about the key, and may be otherwise when custody is asked again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Io { .. })
    }
}

/// The file that holds the installation's mark; no key can be named so.
const MARK_FILE: &str = "installation";

/// Whether custody keeps keys under this name. Every implementation asks before all else, so that a name that is legal
/// in one is legal in all. Key pairs of ours have such names ([`KeyPairName::derive`]); strangers' need not.
fn check_name(name: &KeyPairName) -> Result<(), CustodyError> {
    let text = name.as_str();
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if (1..=64).contains(&text.len()) && text.chars().all(legal) && text != MARK_FILE {
        Ok(())
    } else {
        Err(CustodyError::Name(name.clone()))
    }
}

/// Keeps private halves. Contract, held by one conformance suite for every implementation:
///
/// - [`put`](Custodian::put) returns only when the key is durable in *every* copy: written, synced, read back.
///   Killed or failed half-way, a repetition with the *same* key completes it; another key of that name is `Exists`.
///   The same key has the same halves and comment, however its file was written.
/// - [`get`](Custodian::get) answers only when every copy holds the same key: in no copy it is `Missing`, in some only
///   it is `Damaged`. A keeper that cannot be asked is `Failed` or `Io`, never `Missing`: who believed that would make a
///   new key, or lose this one.
/// - [`complete`](Custodian::complete) is for the maker of a key that was killed inside `put`: the key is not in its
///   memory any more, but in the copies that were reached.
/// - [`destroy`](Custodian::destroy) of what is not there is well. Killed half-way, a repetition completes it.
/// - An answer may be lost, and a change land after it was reported failed: each method looks before it changes anything and
///   afterwards, and a repetition puts it right. A late `put` never replaces another key.
/// - [`mark`](Custodian::mark) answers the same for ever, whatever `fresh` is.
/// - Names are 1 to 64 of `[A-Za-z0-9_]`; any other is refused with `Name` by each method, before anything is touched.
#[async_trait]
pub trait Custodian: Send + Sync {
    /// Keeps a new private half under this name, for good.
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError>;
    /// The private half of this name, read back from every copy.
    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError>;
    /// As [`get`](Custodian::get), but first puts the key into each copy that misses it, from one that holds it. Copies
    /// that hold different keys are `Damaged` as ever. A keeper with a single copy has nothing to complete.
    async fn complete(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        self.get(name).await
    }
    /// The names of all private halves that any copy holds, sorted.
    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError>;
    /// Destroys the private half of this name in every copy.
    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError>;
    /// The installation's mark: kept here in every copy, made from `fresh` when there is none yet.
    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError>;
    /// The installation's mark, if there is one yet. Makes nothing.
    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError>;
}
