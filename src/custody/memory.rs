//! Custody in memory, for simulations: what was put outlives the engine that put it, not the process. It must never be
//! offered in a config file: nothing in here is durable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Custodian, CustodyError, check_name};
use crate::model::{KeyPairName, Mark, PrivateKey, PublicKey};

/// A custodian without disk, time or chance: the same calls get the same answers.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    keys: BTreeMap<KeyPairName, PrivateKey>,
    mark: Option<Mark>,
}

impl Memory {
    /// A custodian that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The public halves of all that is held: what a simulation's checker asks for.
    pub fn publics(&self) -> Vec<PublicKey> {
        self.contents().keys.values().map(|key| key.public().clone()).collect()
    }

    /// No call leaves the contents half-changed, so those of a panicked thread are as good as any.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Custodian for Memory {
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        check_name(name)?;
        let mut contents = self.contents();
        match contents.keys.get(name) {
            Some(held) if held.expose() != key.expose() => Err(CustodyError::Exists(name.clone())),
            Some(_) => Ok(()),
            None => {
                contents.keys.insert(name.clone(), key.clone());
                Ok(())
            }
        }
    }

    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        check_name(name)?;
        self.contents().keys.get(name).cloned().ok_or_else(|| CustodyError::Missing(name.clone()))
    }

    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        Ok(self.contents().keys.keys().cloned().collect())
    }

    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        check_name(name)?;
        self.contents().keys.remove(name);
        Ok(())
    }

    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        Ok(self.contents().mark.get_or_insert(fresh).clone())
    }

    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        Ok(self.contents().mark.clone())
    }
}
