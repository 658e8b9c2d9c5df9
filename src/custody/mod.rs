//! Where private halves are kept. Create-only: a key that is there is never written over. This room must never log a
//! key, and never destroy one unless it is told to by name.

use async_trait::async_trait;

use crate::model::{KeyPairName, Mark, PrivateKey};

/// Why custody did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// A key of this name is there already: create-only.
    #[error("custody already holds a private key named {0}; it is never written over")]
    Exists(KeyPairName),
    /// No key of this name.
    #[error("custody holds no private key named {0}")]
    Missing(KeyPairName),
    /// What is there is not what was put, or no key at all.
    #[error("{place}: {problem}")]
    Damaged {
        /// Which copy.
        place: String,
        /// What is wrong with it.
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

/// Keeps private halves. Contract, held by one conformance suite for every implementation:
///
/// - [`put`](Custodian::put) returns only when the key is durable in *every* copy: written, synced, read back.
///   Killed or failed half-way, a repetition with the *same* key completes it; another key of that name is `Exists`.
/// - [`get`](Custodian::get) answers only when every copy holds the same key.
/// - [`destroy`](Custodian::destroy) of what is not there is well.
#[async_trait]
pub trait Custodian: Send + Sync {
    /// Keeps a new private half under this name, for good.
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError>;
    /// The private half of this name, read back from every copy.
    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError>;
    /// The names of all private halves that any copy holds.
    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError>;
    /// Destroys the private half of this name in every copy.
    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError>;
    /// The installation's mark: kept here, made from `fresh` when there is none yet.
    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError>;
}
