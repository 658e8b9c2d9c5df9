//! Whether the database is lost beside a custody that holds private keys: the read verbs say it in the words with which whoever
//! drives refuses to start. It only looks; what this account may not look at is no loss.

use std::path::PathBuf;

use crate::config::Config;
use crate::custody::{Custodian, Directory, Settings};
use crate::store::{Heads, StoreError, refuse_lost};

/// Why nothing begins over these journals, if they are lost.
pub(super) async fn lost(config: &Config, heads: &Heads) -> Option<StoreError> {
    let is_empty = heads.readable.is_empty() && heads.unreadable.is_empty();
    let directory = config.custody.directory.clone();
    // To open custody makes its directories: who only looks opens those that are there.
    let is_there = |place: &PathBuf| place.is_dir();
    if !is_empty || !is_there(&directory) {
        return None;
    }
    let copies = config.custody.copies.iter().filter(|copy| is_there(copy)).cloned().collect();
    let custody = Directory::open(Settings { directory, copies }).await.ok()?;
    refuse_lost(is_empty, &custody.list().await.ok()?).err()
}
