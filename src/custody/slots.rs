//! The contract over a keeper elsewhere, whose answers may be lost: look, change only what is not so, and look again. What
//! counts is what is read back, never what the keeper said of it. It must never write where something is, nor take silence
//! for absence.

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{Custodian, CustodyError, MARK_FILE, check_name};
use crate::model::{KeyPairName, Mark, PrivateKey};

/// A keeper of small texts by name. Its methods do no more than they say; [`Remote`] makes a custodian of them.
#[async_trait]
pub trait Slots: Send + Sync {
    /// The text of this name, whole, with a line break at its end; `None` only where the keeper says that there is none.
    async fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, CustodyError>;
    /// Keeps a new text. The keeper refuses where there is one already; whether it did so shows when it is read.
    async fn create(&self, name: &str, text: &str) -> Result<(), CustodyError>;
    /// Destroys a text with everything that could bring it back. Nothing to destroy is well.
    async fn erase(&self, name: &str) -> Result<(), CustodyError>;
    /// All names, in any order; some may be none of ours.
    async fn names(&self) -> Result<Vec<String>, CustodyError>;
    /// Where this name is kept, for errors.
    fn place(&self, name: &str) -> String;
}

/// A custodian over such a keeper. It has one copy of each key; how that is made durable is the keeper's business.
pub struct Remote<S>(pub(super) S);

impl<S: Slots> Remote<S> {
    /// What is there under this name once it was tried to keep `text` there.
    async fn settled(&self, name: &str, text: &str) -> Result<Zeroizing<String>, CustodyError> {
        let told = self.0.create(name, text).await;
        match (self.0.read(name).await, told) {
            (Ok(Some(held)), _) => Ok(held),
            (Ok(None), Ok(())) => Err(self.failed(name, "it was said to be kept, and is not there")),
            // What went wrong first explains more than what went wrong after it.
            (Ok(None) | Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    fn failed(&self, name: &str, problem: &str) -> CustodyError {
        CustodyError::Failed { place: self.0.place(name), problem: problem.to_string() }
    }

    fn read_mark(&self, text: &str) -> Result<Mark, CustodyError> {
        Mark::try_from(text.trim_end().to_string()).map_err(|problem| CustodyError::Damaged {
            place: self.0.place(MARK_FILE),
            problem: format!("{problem}: put back the one that the key pairs' names bear (rkMARK_…)"),
        })
    }
}

#[async_trait]
impl<S: Slots> Custodian for Remote<S> {
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        check_name(name)?;
        let held = match self.0.read(name.as_str()).await? {
            Some(held) => held,
            None => self.settled(name.as_str(), key.expose()).await?,
        };
        if held.as_str() == key.expose() { Ok(()) } else { Err(CustodyError::Exists(name.clone())) }
    }

    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        check_name(name)?;
        let held = self.0.read(name.as_str()).await?.ok_or_else(|| CustodyError::Missing(name.clone()))?;
        PrivateKey::parse(held).map_err(|error| CustodyError::Damaged {
            place: self.0.place(name.as_str()),
            problem: format!("{error}: restore it from a backup"),
        })
    }

    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        let mut names: Vec<_> = self.0.names().await?.into_iter().map(KeyPairName::new).collect();
        names.retain(|name| check_name(name).is_ok());
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        check_name(name)?;
        let told = self.0.erase(name.as_str()).await;
        match (self.0.read(name.as_str()).await, told) {
            (Ok(None), _) => Ok(()),
            (Ok(Some(_)), Ok(())) => Err(self.failed(name.as_str(), "it was said to be destroyed, and is still there")),
            (Ok(Some(_)) | Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        let held = match self.0.read(MARK_FILE).await? {
            Some(held) => held,
            // Whatever is there now wins: another rekeyd may have been first.
            None => self.settled(MARK_FILE, &format!("{}\n", fresh.as_str())).await?,
        };
        self.read_mark(&held)
    }

    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        self.0.read(MARK_FILE).await?.map(|held| self.read_mark(&held)).transpose()
    }
}
