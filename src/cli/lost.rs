//! Whether the database is lost beside a custody that holds private keys: the read verbs say it in the words with which whoever
//! drives refuses to start. It only looks; what this account may not look at is no loss.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::custody::{Custodian, Directory, Keeper, Settings};
use crate::daemon::{SharedEnv, keeping};
use crate::store::{Heads, StoreError, refuse_lost};

/// Why nothing begins over these journals, if they are lost.
pub(super) async fn lost(config: &Arc<Config>, env: &SharedEnv, heads: &Heads) -> Option<StoreError> {
    if !heads.readable.is_empty() || !heads.unreadable.is_empty() {
        return None;
    }
    let kept = match &config.custody.keeper {
        Keeper::Directory { places, .. } => {
            // To open custody makes its directories: who only looks opens those that are there. Names need no passphrase.
            let is_there = |place: &&PathBuf| place.is_dir();
            let directory = Some(&places.directory).filter(is_there)?.clone();
            let copies = places.copies.iter().filter(is_there).cloned().collect();
            Directory::open(Settings { directory, copies }).await.ok()?.list().await
        }
        Keeper::Vault(_) | Keeper::Exec(_) => keeping::custodian(config, env).await.ok()?.list().await,
    };
    refuse_lost(true, &kept.ok()?).err()
}
