//! The steps of a journal, and what they ask of the outside. Their names are written into journals: none may be renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step: what the brain names and the hands do. The number is the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make the key and put its private half into custody.
    StoreKey,
    /// Import its public half into the cloud.
    ImportKey,
    /// Look at everything that is under way in this batch, and write down what has come true.
    Settle(u32),
    /// Pay what is owed and make active what is bound: start, reboot, or stop so that a start can follow.
    Activate(u32),
    /// Stop what must be stopped before it can be bound.
    Prepare(u32),
    /// Bind the key pair.
    Bind(u32),
    /// Prove by a login that the batch accepts the new key.
    Verify(u32),
    /// Run the hook that comes before a batch.
    BeforeBatch(u32),
    /// Run the hook that comes after a batch.
    AfterBatch(u32),
    /// Put the private half of the proven key where the plan wants it besides custody.
    Deliver,
    /// Delete a superseded key pair.
    RetireKeyPair,
    /// Destroy a superseded private half.
    DestroyPrivateKey,
}

impl Step {
    /// The batch, of the steps that have one.
    pub fn batch(self) -> Option<u32> {
        match self {
            Self::Settle(batch)
            | Self::Activate(batch)
            | Self::Prepare(batch)
            | Self::Bind(batch)
            | Self::Verify(batch)
            | Self::BeforeBatch(batch)
            | Self::AfterBatch(batch) => Some(batch),
            Self::StoreKey | Self::ImportKey | Self::Deliver | Self::RetireKeyPair | Self::DestroyPrivateKey => None,
        }
    }
    /// Its name, as logs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::StoreKey => "store_key",
            Self::ImportKey => "import_key",
            Self::Settle(_) => "settle",
            Self::Activate(_) => "activate",
            Self::Prepare(_) => "prepare",
            Self::Bind(_) => "bind",
            Self::Verify(_) => "verify",
            Self::BeforeBatch(_) => "before_batch",
            Self::AfterBatch(_) => "after_batch",
            Self::Deliver => "deliver",
            Self::RetireKeyPair => "retire_key_pair",
            Self::DestroyPrivateKey => "destroy_private_key",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.batch() {
            Some(batch) => write!(f, "{} batch {}", self.name(), batch),
            None => f.write_str(self.name()),
        }
    }
}

/// A batch by its name: the first is the canary.
pub fn batch_name(batch: u32) -> String {
    if batch == 0 { "canary".to_string() } else { format!("batch {batch}") }
}

/// What a step asks of the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Put a private half into custody.
    Put,
    /// Import a public key.
    Import,
    /// Stop instances.
    Stop,
    /// Bind a key pair.
    Bind,
    /// Start instances.
    Start,
    /// Reboot instances.
    Reboot,
    /// Deliver a private half.
    Deliver,
    /// Delete a key pair.
    Delete,
    /// Destroy a private half.
    Destroy,
}

impl Call {
    /// Its name, as logs and progress lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Import => "import",
            Self::Stop => "stop",
            Self::Bind => "bind",
            Self::Start => "start",
            Self::Reboot => "reboot",
            Self::Deliver => "deliver",
            Self::Delete => "delete",
            Self::Destroy => "destroy",
        }
    }
}
