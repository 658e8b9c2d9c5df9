//! A person's orders, written straight into the store: whoever drives notices them. It must never write what the fold
//! would not take: each order is decided on the folded state and appended right behind it, or decided anew.

use crate::clock::Clock;
use crate::model::JournalId;
use crate::rotation::{Author, Entry, Order, Refusal};
use crate::store::{Journal, StoreError};

use super::EngineError;
use super::case::fold;

/// Why an order was not written.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The journal cannot be read, or not be written to.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Writes an order into a journal, and answers the entries; none if it is so already.
pub async fn operate(
    journal: &dyn Journal,
    clock: &dyn Clock,
    id: JournalId,
    order: &Order,
    by: &Author,
) -> Result<Vec<Entry>, OrderError> {
    loop {
        let (_, course) = fold(journal, id).await?;
        let events = course.order(order)?;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        match journal.append(id, course.seq(), &events, by, clock.now()).await {
            Ok(entries) => return Ok(entries),
            // Somebody wrote first: what they wrote may change the answer.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(EngineError::from(error).into()),
        }
    }
}
