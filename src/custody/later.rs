//! Custody that was away when rekeyd started: opened when a key is first asked for, and believed only once it shows the mark
//! that the names in our journals bear. It must never make a mark, nor answer for a custody that is another installation's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Custodian, CustodyError};
use crate::model::{KeyPairName, Mark, PrivateKey};

/// One attempt to open custody.
pub type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Custodian>, CustodyError>> + Send>>;

/// A custodian that may be away still. Until it is there each call tries anew, and fails with what it was told.
pub struct Later {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    mark: Mark,
    there: OnceCell<Arc<dyn Custodian>>,
}

impl Later {
    /// One that is opened like this, and is ours if it bears this mark.
    pub fn new(mark: Mark, open: impl Fn() -> Opening + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open), mark, there: OnceCell::new() }
    }

    async fn there(&self) -> Result<&dyn Custodian, CustodyError> {
        let open = || async {
            let custody = (self.open)().await?;
            let found = custody.kept_mark().await?;
            if found.as_ref() == Some(&self.mark) {
                return Ok(custody);
            }
            let found = found.map_or("none".to_string(), |mark| mark.as_str().to_string());
            let problem = format!(
                "it bears the installation's mark {found}, and the journals' keys bear {}: name the custody that they were put \
                 into, or restore its mark",
                self.mark.as_str()
            );
            Err(CustodyError::Failed { place: "custody".to_string(), problem })
        };
        Ok(&**self.there.get_or_try_init(open).await?)
    }
}

#[async_trait]
impl Custodian for Later {
    async fn put(&self, name: &KeyPairName, key: &PrivateKey) -> Result<(), CustodyError> {
        self.there().await?.put(name, key).await
    }
    async fn get(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        self.there().await?.get(name).await
    }
    async fn complete(&self, name: &KeyPairName) -> Result<PrivateKey, CustodyError> {
        self.there().await?.complete(name).await
    }
    async fn list(&self) -> Result<Vec<KeyPairName>, CustodyError> {
        self.there().await?.list().await
    }
    async fn destroy(&self, name: &KeyPairName) -> Result<(), CustodyError> {
        self.there().await?.destroy(name).await
    }
    async fn mark(&self, fresh: Mark) -> Result<Mark, CustodyError> {
        self.there().await?.mark(fresh).await
    }
    async fn kept_mark(&self) -> Result<Option<Mark>, CustodyError> {
        self.there().await?.kept_mark().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::Memory;
    use super::*;

    fn mark(text: &str) -> Mark {
        Mark::try_from(text.to_string()).unwrap()
    }

    fn away() -> CustodyError {
        CustodyError::Failed { place: "vault".to_string(), problem: "connection refused".to_string() }
    }

    /// Away for so many attempts; then a custody with this mark.
    fn after(attempts: usize, kept: Option<&str>) -> (Later, Arc<AtomicUsize>) {
        let (tried, kept) = (Arc::new(AtomicUsize::new(0)), kept.map(mark));
        let count = tried.clone();
        let later = Later::new(mark("ours"), move || {
            let (attempt, kept) = (count.fetch_add(1, Ordering::SeqCst), kept.clone());
            Box::pin(async move {
                if attempt < attempts {
                    return Err(away());
                }
                let memory = Memory::new();
                if let Some(kept) = kept {
                    memory.mark(kept).await?;
                }
                Ok(Arc::new(memory) as Arc<dyn Custodian>)
            })
        });
        (later, tried)
    }

    #[tokio::test]
    async fn each_call_fails_for_a_while_until_custody_is_there_and_opens_it_once() {
        let (later, tried) = after(2, Some("ours"));
        for _ in 0..2 {
            let error = later.list().await.unwrap_err();
            assert!(error.is_passing() && error.to_string().contains("connection refused"), "{error}");
        }
        assert!(later.list().await.unwrap().is_empty());
        assert_eq!(later.kept_mark().await.unwrap(), Some(mark("ours")));
        assert!(matches!(later.get(&"rkours_1".into()).await, Err(CustodyError::Missing(_))));
        assert_eq!(tried.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_custody_of_another_mark_or_of_none_is_never_believed_nor_marked() {
        let check = async |kept: Option<&str>, words: &str| {
            let (later, _) = after(0, kept);
            for error in [
                later.get(&"rkours_1".into()).await.map(|_| ()).unwrap_err(),
                later.destroy(&"rkours_1".into()).await.unwrap_err(),
                later.mark(mark("ours")).await.map(|_| ()).unwrap_err(),
            ] {
                assert!(error.is_passing() && error.to_string().contains(words), "{error}");
            }
        };
        check(Some("yours"), "mark yours, and the journals' keys bear ours").await;
        check(None, "mark none, and").await;
    }
}
