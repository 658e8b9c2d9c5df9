//! Real keys that are made once and handed out in every simulated world, since making one costs more than simulating a
//! rotation. It must never be the maker of a daemon: its keys are known to every world of the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::keygen::{KeyMaker, KeygenError, check, generate};
use crate::model::PrivateKey;

/// RSA keys of 2048 bits, each made when it is first asked for. Worlds of one process share one pool; the keys
/// themselves differ from process to process, so nothing that a seed decides may hang on a key's bytes.
#[derive(Debug)]
pub struct KeyPool {
    keys: Mutex<Vec<PrivateKey>>,
    size: usize,
}

impl KeyPool {
    /// A pool of at most `size` keys, none of them made yet.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { keys: Mutex::new(Vec::new()), size })
    }

    /// Key number `index`, the same whenever it is asked for.
    fn key(&self, index: usize) -> Result<PrivateKey, KeygenError> {
        if index >= self.size {
            return Err(KeygenError::PoolUsedUp(self.size));
        }
        // A panic cannot leave a key half-made in the list.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        while keys.len() <= index {
            keys.push(generate(2048, "simulated")?);
        }
        Ok(keys[index].clone())
    }
}

/// The maker of one simulated world: hands out its pool's keys in order, each once. It belongs to the world and not to
/// an engine in it, so that an engine that is started again goes on with fresh keys.
#[derive(Debug)]
pub struct PooledKeyMaker {
    pool: Arc<KeyPool>,
    next: AtomicUsize,
}

impl PooledKeyMaker {
    /// A maker that begins with the pool's first key.
    pub fn new(pool: Arc<KeyPool>) -> Self {
        Self { pool, next: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl KeyMaker for PooledKeyMaker {
    /// The next key of the pool, whatever the size and comment (both are checked). It is made without a second thread,
    /// so that the order of a simulation's events does not depend on how long that takes.
    async fn make(&self, bits: u16, comment: &str) -> Result<PrivateKey, KeygenError> {
        check(bits, comment)?;
        self.pool.key(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn worlds_share_the_pool_and_each_gets_different_keys_until_it_is_used_up() {
        let pool = KeyPool::new(2);
        let mut worlds = Vec::new();
        for _ in 0..2 {
            let maker = PooledKeyMaker::new(Arc::clone(&pool));
            assert!(matches!(maker.make(1024, "").await, Err(KeygenError::Size(1024))));
            assert!(matches!(maker.make(2048, "\n").await, Err(KeygenError::Comment)));
            let keys = [maker.make(4096, "a").await.unwrap(), maker.make(2048, "b").await.unwrap()];
            assert_ne!(keys[0].public(), keys[1].public());
            for _ in 0..2 {
                let error = maker.make(2048, "").await.unwrap_err();
                assert!(matches!(error, KeygenError::PoolUsedUp(2)), "{error:?}");
            }
            worlds.push(keys);
        }
        assert_eq!(worlds[0][0].public(), worlds[1][0].public());
        assert_eq!(worlds[0][1].public(), worlds[1][1].public());
    }
}
